"""Each command's --help: on one screen, and at once, since nothing is imported that it does not need."""

import subprocess

import pytest

from kennel_launch import cli

from .conftest import Command

SLOW = {"sagemaker", "boto3", "botocore", "rich", "torch", "numpy", "pandas"}
SCREEN = 40  # lines of 80 columns
LONGER = {"train": 52, "tune": 50, "deploy": 50}  # every setting of a training job, or of an endpoint
NEEDED = {
    "push": ["kennel:dev", "--to", "localhost/kennel"],
    "upload": ["photos"],
    "check": ["train"],
    "invoke": ["pets", "photo.jpg"],
    "transform": ["--data", "photos"],
    "logs": ["job"],
    "report": ["job"],
    "register": ["pets"],
    "pipeline": ["pets"],
}


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The packages that a command with PYTHONPROFILEIMPORTTIME=1 imported."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_help_names_every_command(process: Command) -> None:
    done = process("cli", "--help", COLUMNS="80", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert all(f"\n    {name} " in done.stdout for name in cli.COMMANDS)
    assert len(done.stdout.splitlines()) <= SCREEN
    assert "argparse" in imported(done)
    assert imported(done).isdisjoint(SLOW)


def test_kennel_alone_is_its_help(process: Command) -> None:
    done = process("cli", COLUMNS="80")
    assert (done.returncode, done.stdout) == (0, process("cli", "--help", COLUMNS="80").stdout)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_fits_a_screen_and_imports_nothing_slow(process: Command, name: str) -> None:
    done = process("cli", name, "--help", COLUMNS="80", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert cli.COMMANDS[name] in lines
    assert len(lines) <= LONGER.get(name, SCREEN)
    assert max(map(len, lines)) <= 80
    assert "kennel_launch" in imported(done)
    assert imported(done).isdisjoint(SLOW)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_flag_is_refused_before_anything_slow_is_imported(process: Command, name: str) -> None:
    done = process("cli", name, *NEEDED.get(name, []), "--regoin", "eu-west-1", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "unknown argument --regoin" in done.stderr.splitlines()[-1]
    assert imported(done).isdisjoint(SLOW)
