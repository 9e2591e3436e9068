"""A process that is stopped with all that it started: its whole group, and its container where it has one."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kennel.errors import UserError
from kennel_launch import settings
from kennel_launch.machine import signals

GRACE = 30.0  # seconds from SIGTERM to SIGKILL, as on an endpoint


@dataclass(frozen=True)
class Command:
    """A command and what must be removed after it."""

    argv: list[str]
    env: dict[str, str]
    container: str = ""
    grace: float = GRACE


@contextmanager
def started(run: Command, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """The running process, its output in `log` or on this terminal; stopped at the end, however that comes.

    Raises:
        UserError: there is no such command.
    """
    with (log or Path(os.devnull)).open("wb") as file:
        try:
            with signals.held() as came:
                process = subprocess.Popen(
                    run.argv,
                    env=run.env,
                    stdin=subprocess.DEVNULL,
                    stdout=file if log else None,
                    stderr=subprocess.STDOUT if log else None,
                    start_new_session=True,  # Ctrl-C comes to us alone, and we pass it on once
                )
        except OSError as error:
            raise UserError(f"{run.argv[0]} cannot be started ({error.strerror})") from error
        try:
            for number in came:
                signal.raise_signal(number)
            yield process
        finally:
            with signals.deaf():
                _stop(process, run)


def last_lines(log: Path, count: int) -> list[str]:
    """The end of a log, without empty lines."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 200 * max(count, 20)))
        lines = file.read().decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()][-count:]


def _stop(process: subprocess.Popen[bytes], run: Command) -> None:
    docker = settings.docker()
    if run.container and process.poll() is None:
        subprocess.run([docker, "stop", "-t", str(int(run.grace)), run.container], capture_output=True, check=False)
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(run.grace)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever it left behind
    process.wait()
    if run.container:
        subprocess.run([docker, "rm", "-f", run.container], capture_output=True, check=False)
