"""The Makefile's help, and its plain words where a Python, a folder or an address is missing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kennel_launch import cli

from ..conftest import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make on PATH")
TEXT = (REPOSITORY / "Makefile").read_text()


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """make as from a fresh shell: not with the flags of a make that runs the tests."""
    kept = {key for key in os.environ if "MAKE" not in key} - {"IMAGE", "DATA", "VENV"}
    # `make` alone looks for a Python itself, which can take as long as all the rest.
    env = {key: os.environ[key] for key in kept} | ({"PYTHON": sys.executable} if arguments else {})
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_is_the_default_and_lists_every_target() -> None:
    shown = make().stdout
    assert shown == make("help").stdout
    targets = re.findall(r"^([a-z][a-z-]*):", TEXT, re.MULTILINE)
    assert len(targets) > 10
    assert re.findall(r"^  ([a-z-]+) +\S", shown, re.MULTILINE) == targets


def test_every_target_is_phony() -> None:
    phony = re.search(r"^\.PHONY: (.*?[^\\])$", TEXT, re.MULTILINE | re.DOTALL)
    assert phony is not None
    assert set(re.findall(r"^([a-z][a-z-]*):", TEXT, re.MULTILINE)) <= set(phony[1].split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["build", "PYTHON=/bin/false"], "Kennel needs Python 3.11 or 3.12, and /bin/false is neither"),
        (["build", "PYTHON="], "Kennel needs Python 3.11 or 3.12, and what is on PATH is neither"),
        (["venv", "PYTHON=no-such-python", "VENV=build/no-such-venv"], "Kennel needs Python 3.11 or 3.12"),
        (["demo", "DATA=/no/such/folder"], "DATA=/no/such/folder is no folder"),
        (["train-local"], "make train-local DATA=folder"),
        (["tune-local", "VENV=build/no-such-venv"], "make tune-local DATA=folder"),
        (["tune-local", "VENV=build/no-such-venv", "DATA=/no/such/folder"], "DATA=/no/such/folder is no folder"),
        (["serve-local", f"PYTHON={sys.executable}", "MODEL=/no/model"], "MODEL=/no/model is no model folder"),
        (["build", f"PYTHON={sys.executable}", "DOCKER=/no/docker"], "there is no docker client '/no/docker'"),
    ],
)
def test_one_sentence_says_what_is_missing(arguments: list[str], says: str) -> None:
    done = make(*arguments)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert says in lines[0]
    assert not (REPOSITORY / "build" / "no-such-venv").exists()


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """An environment's Python that writes down what it is called with, in `heard` beside the environment's folders."""
    path = tmp_path / "bin" / "python"
    path.parent.mkdir()
    # -c are the Makefile's own questions about Python; ARGS goes on to the command by the environment
    path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\nprintf "%s\\n" "$@" "$ARGS" >> {tmp_path}/heard\n')
    path.chmod(0o755)
    shutil.copy(path, path.with_name("kennel"))
    (tmp_path / ".ready").touch()
    os.utime(tmp_path / ".ready", (2**31, 2**31))
    return path


@pytest.mark.parametrize(
    "value", ["a`touch RAN`b", "a$(shell touch RAN)b", "a$$(touch RAN)b", 'a"; touch RAN; echo "b', "a'b $c \\\\ #d"]
)
@pytest.mark.parametrize(
    ("target", "name"), [("train-local", "HP"), ("train", "HP"), ("build", "IMAGE"), ("push", "TO"), ("deploy", "ARGS")]
)
def test_a_value_is_passed_as_it_is_and_never_run(
    tmp_path: Path, stub: Path, target: str, name: str, value: str
) -> None:
    value = value.replace("RAN", str(tmp_path / "ran"))
    environments = (f"PYTHON={stub}", f"VENV={tmp_path}", f"VENV_LAUNCH={tmp_path}")
    done = make(target, f"DATA={tmp_path}", "TO=host/name", *environments, f"{name}={value}")
    assert done.returncode == 0, done.stderr
    assert value in (tmp_path / "heard").read_text().splitlines()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["DATA=."], "kennel_launch.make.local"),
        (["DATA=.", "ARGS=--wait"], "kennel_launch.make.arguments"),
        (["ARGS=--wait"], "kennel_launch.make.arguments"),
        ([], "kennel_launch.make.arguments"),
    ],
)
def test_train_with_photos_alone_is_done_here(tmp_path: Path, stub: Path, words: list[str], module: str) -> None:
    done = make("train", f"PYTHON={stub}", f"VENV={tmp_path}", f"VENV_LAUNCH={tmp_path}", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "heard").read_text().splitlines()[1] == module


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="make venv needs a C compiler")
@pytest.mark.parametrize("code", [0, 1])
def test_what_pip_says_is_a_line_unless_it_fails(tmp_path: Path, code: int) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    flood = 'for i in 1 2 3; do echo "Collecting $i"; done'
    python.write_text(f'#!/bin/sh\ncase "$*" in *--require-hashes*) {flood}; exit {code};; esac\n')
    python.chmod(0o755)
    done = make("venv", f"PYTHON={python}", f"VENV={tmp_path}")
    assert "Collecting" not in done.stdout
    assert f"installing requirements/image.txt requirements/demo.txt into {tmp_path}\n" in done.stdout
    assert len(done.stdout.splitlines()) <= 3
    assert done.returncode == (2 if code else 0)
    assert ("Collecting 3\n" in done.stderr) is (code == 1)
    assert (tmp_path / ".ready").exists() is (code == 0)


@pytest.fixture
def launch() -> str:
    """Arguments of make, so that it takes the tests' own environment."""
    if not all((Path(sys.prefix) / name).is_file() for name in (".ready", "bin/kennel")):
        pytest.skip(f"{sys.prefix} was not made by make launch")
    return f"VENV_LAUNCH={sys.prefix}"


def test_push_is_the_command_s(launch: str) -> None:
    done = make("push", "TO=kennel", launch)
    assert done.returncode == 2
    assert done.stderr.startswith("kennel push: --to kennel names no registry: write HOST/NAME or HOST/NAME:TAG\n")
    assert "say where to: make push TO=host/name[:tag]" in make("push", launch).stderr


def test_every_other_command_but_check_is_a_target(tmp_path: Path, stub: Path) -> None:
    names = cli.COMMANDS.keys() - {"push", "check"}
    done = make(*names, f"VENV_LAUNCH={tmp_path}", "ARGS=--words")
    assert done.returncode == 0, done.stderr
    heard = (tmp_path / "heard").read_text().splitlines()
    assert set(heard[3::5]) == names
    assert heard[:3] == ["-m", "kennel_launch.make.arguments", str(stub.with_name("kennel"))]


def test_the_words_of_a_target_are_the_command_s(launch: str) -> None:
    done = make("upload", "ARGS=--no-such-flag 'two words'", launch)
    assert done.returncode == 2
    assert "kennel upload: error: " in done.stderr
