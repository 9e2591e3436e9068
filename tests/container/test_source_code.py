"""A hook is known by its text; what SDK v3 sends is read from its own file."""

import json

import pytest

from kennel import source_code
from kennel.layout import Layout


@pytest.mark.parametrize(
    ("body", "hook"),
    [
        ("def on_epoch_end(epoch, metrics): ...", True),
        ("from neighbour import on_epoch_end", True),
        ("from neighbour import mine as on_epoch_end", True),
        ("on_epoch_end = print", True),
        ("print('a script')", False),
        ("class Mine:\n    def on_epoch_end(self): ...", False),
        ("import sys; sys.exit('imported')", False),
        ("def on_epoch_end(epoch:", False),
        ("\0", False),
    ],
)
def test_a_hook_is_told_from_a_script_without_running_it(tmp_path, body, hook):
    (tmp_path / "mine.py").write_text(body)
    assert source_code.is_hook(tmp_path / "mine.py") is hook


@pytest.mark.parametrize(
    ("row", "seen"),
    [
        ({"entry_script": "mine.py", "requirements": "more.txt", "ignore_patterns": []}, ("mine.py", "", "more.txt")),
        ({"entry_script": None, "command": "train", "args": None}, ("", "train", "")),
    ],
)
def test_sourcecode_json(tmp_path, row, seen):
    layout = Layout(tmp_path)
    assert source_code.read(layout) is None
    drivers = tmp_path / "input/data/sm_drivers"
    drivers.mkdir(parents=True)
    (drivers / "sourcecode.json").write_text(json.dumps(row))
    sent = source_code.read(layout)
    assert (sent.entry_script, sent.command, sent.requirements) == seen
    assert sent.hook is None
    (tmp_path / "input/data/code").mkdir()
    (tmp_path / "input/data/code/mine.py").write_text("on_epoch_end = print")
    assert (sent.hook is not None) is (seen[0] == "mine.py")
