"""What holds for the whole repository: import order, a test for each module, generated tables, locks without hosts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kennel import hyperparameters

ROOT = Path(__file__).resolve().parents[2]


def test_imports_go_one_way():
    run = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_table_of_hyperparameters_is_the_code():
    page = (ROOT / "docs" / "training.md").read_text()
    table = re.search(r"<!-- hyperparameters -->\n(.*?)<!-- /hyperparameters -->", page, re.DOTALL)
    assert table, "docs/training.md lost its hyperparameter markers"
    assert table[1].strip() == hyperparameters.markdown().strip(), "run `make docs`"


PACKAGES = {
    "container/kennel": "tests/container",
    "docker/kennel_image": "tests/docker",
    "train/kennel_train": "tests/train",
    "serve/kennel_serve": "tests/serve",
    "scripts/kennel_launch": "tests/launch",
}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_has_a_test_file_of_its_name_or_a_place_in_the_map(package):
    page = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("| ")]
    named = {word for row in rows for word in re.findall(r"\w+", row.split("|")[1])}
    for module in (ROOT / package).rglob("*.py"):
        if module.name.startswith("__"):
            continue
        test = ROOT / PACKAGES[package] / module.relative_to(ROOT / package).parent / f"test_{module.name}"
        assert test.exists() or module.stem in named, f"{module.name}: name its tests in CONTRIBUTING.md"
    for path in re.findall(r"tests/[\w/]+(?:\.py)?", page):
        assert (ROOT / path).exists(), f"CONTRIBUTING.md names {path}, which is not there"


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_locks_have_hashes_and_no_hosts(path):
    text = path.read_text()
    assert "://" not in text
    assert "--index-url" not in text
    pinned = re.findall(r"^[a-zA-Z0-9._-]+(?:\[.*?\])?==\S+", text, re.MULTILINE)
    assert pinned
    assert text.count("--hash=sha256:") >= len(pinned)


@pytest.mark.parametrize("package", ["kennel.hyperparameters", "kennel.metrics", "kennel.layout", "kennel.cgroup"])
def test_a_laptops_part_of_the_core_imports_the_standard_library_only(package):
    code = f"import sys; import {package}; print([m for m in ('numpy', 'PIL', 'torch') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_cpu_endpoint_imports_no_torch():
    code = "import sys; import kennel_serve.worker.handler, kennel_serve.server; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
