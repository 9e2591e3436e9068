"""The tables of docs/ come from the code."""

from pathlib import Path

import pytest

from kennel import hyperparameters
from kennel.errors import UserError
from kennel_launch.make import docs

from ..conftest import Command

PAGE = """# Kennel
<!-- hyperparameters -->
old
<!-- /hyperparameters -->
between
<!-- metrics -->
<!-- /metrics -->
"""


def test_the_tables_are_written_between_their_markers_and_nothing_else_changes() -> None:
    text = docs.fill(PAGE)
    assert hyperparameters.markdown() in text
    assert "| `validation:accuracy` | higher |" in text
    assert "\nold\n" not in text
    assert text.startswith("# Kennel\n<!-- hyperparameters -->\n| name |")
    assert "<!-- /hyperparameters -->\nbetween\n<!-- metrics -->\n" in text
    assert docs.fill(text) == text


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(UserError, match="<!-- hyperparameters -->"):
        docs.fill("# Kennel\n")


def test_check_fails_until_the_tables_are_written(process: Command, tmp_path: Path) -> None:
    page = tmp_path / "training.md"
    page.write_text(PAGE)
    assert process("make.docs", "--check", str(page)).returncode == 1
    assert page.read_text() == PAGE
    assert process("make.docs", str(page)).returncode == 0
    assert process("make.docs", "--check", str(page)).returncode == 0
    assert hyperparameters.markdown() in page.read_text()
