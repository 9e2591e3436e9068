"""Processes are stopped with everything that they started; docker's command lines; why a job failed."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel_launch import settings
from kennel_launch.machine import processes


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "trap 'echo stopped; exit 0' TERM; sleep 300 & echo $!; wait"

    def interrupted() -> None:
        with processes.started(processes.Command(["sh", "-c", script], settings.child()), log) as process:
            started.append(process)
            assert until(lambda: log.read_text().strip())
            raise KeyboardInterrupt

    started: list[subprocess.Popen[bytes]] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    child = int(log.read_text().split()[0])
    assert "stopped" in log.read_text()
    assert started[0].returncode == 0
    assert until(lambda: not alive(child))


def test_a_missing_command_is_one_sentence(tmp_path: Path) -> None:
    run = processes.Command([str(tmp_path / "docker")], settings.child())
    with pytest.raises(UserError, match="cannot be started"), processes.started(run, tmp_path / "log"):
        pass


def test_the_platforms_variables_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_MODEL_DIR", "/elsewhere")
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "theirs.py")
    monkeypatch.setenv("KEPT", "1")
    env = settings.child(SAGEMAKER_BASE_DIR="/ours")
    assert env["KEPT"] == "1"
    assert {key for key in env if key.startswith(("SM_", "SAGEMAKER_"))} == {"SAGEMAKER_BASE_DIR"}


def test_the_end_of_a_long_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"line {i}\n\n" for i in range(10_000)))
    assert processes.last_lines(tmp_path / "log", 2) == ["line 9998", "line 9999"]
    subprocess.run(["truncate", "-s", "0", str(tmp_path / "log")], check=True)
    assert processes.last_lines(tmp_path / "log", 2) == []
