"""An endpoint in the SDK's local mode: deployed into a process of its own, found again by its folder, deleted.

Its log is locked for as long as that process lives, by the open file that is the process' output: the kernel lets go
of the lock however it ends, so that no other process is ever taken for it.
"""

import argparse
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kennel import files
from kennel.errors import UserError
from kennel_launch.aws import sdk
from kennel_launch.console import flags
from kennel_launch.hosting import specs
from kennel_launch.local_mode import local_docker, local_job
from kennel_launch.machine import http_probe, processes, signals
from kennel_launch.settings import Settings

LOG, STATE = "endpoint.log", "endpoint.json"
_PATIENCE = 10.0  # seconds until a killed process has let go of its log
_KNOWN = ("local", "out", "sdk_run", "model", "image", "port", "engine", "yes")


@dataclass(frozen=True)
class Running:
    """What is known of the endpoint of a folder; `name` is that of its run, `pid` of its process and its group."""

    pid: int
    port: int
    name: str
    image: str


def deploy(options: argparse.Namespace, settings: Settings) -> int:
    """0: /ping answers 200; 1: the endpoint ended before.

    Raises:
        UserError: it can't be deployed as asked.
    """
    out: Path = options.out
    flags.refuse_elsewhere(options, _KNOWN)
    model = Path(options.model or out / local_job.MODEL)
    if not model.is_file():
        raise UserError(f"{model} is no file: kennel train --local makes one, or name another by --model FILE.tar.gz")
    if here := running(out):
        raise UserError(f"an endpoint runs from {out} already, on port {here.port}: kennel delete --local ends it")
    image = options.image or (not options.model and local_job.image_of(out)) or settings.image
    local_docker.check_image(image)
    _check_port(options.port)
    _clear(out, _state(out))
    run = Running(0, options.port, f"kennel-endpoint-{os.getpid()}", image)
    folder = local_job.scratch(out, run.name)
    try:
        (folder / "model").mkdir()
        shutil.copyfile(model, folder / "model" / local_job.MODEL)  # the SDK unpacks it where it lies
        process = _background(out, run)
        run = replace(run, pid=process.pid)
        files.put(out / STATE, json.dumps(asdict(run)))
        http_probe.wait_until_healthy(run.port, process, lambda: None, out / LOG)
    except http_probe.EndedError as error:
        print(f"kennel deploy: {error} ({_last_words(out, run.name)})", file=sys.stderr)
        _stop(out, run)
        return 1
    except BaseException:  # Ctrl-C, too
        _stop(out, run)
        raise
    print(f"http://127.0.0.1:{run.port}")
    return 0


def work(options: argparse.Namespace, settings: Settings) -> int:
    """What the endpoint's own process does, until its container ends.

    Raises:
        UserError: the SDK can't do it here.
    """
    local = replace(local_job.local(options.out, options.sdk_run), port=options.port)
    sdk.serve_locally(settings, local.folder / "model" / local_job.MODEL, local, specs.environment(options.engine))
    return 0


def running(out: Path) -> Running | None:
    """The endpoint that runs from a folder.

    Raises:
        UserError: its process runs, and what it is was not written down yet.
    """
    if not _locked(out):
        return None
    found = _state(out)
    if found is None:
        raise UserError(f"an endpoint is just being deployed from {out}: wait until it is")
    return found


def delete(out: Path) -> int:
    """Stops the endpoint of a folder, and removes all of it but its log.

    Raises:
        UserError: nothing runs from there.
    """
    here, known = running(out), _state(out)
    if known is None:
        raise UserError(f"no endpoint runs from {out}: kennel deploy --local starts one")
    _stop(out, known)
    print(f"removed the endpoint on port {known.port}" + ("" if here else ", which had ended"))
    return 0


def _background(out: Path, run: Running) -> subprocess.Popen[bytes]:
    """
    Raises:
        UserError: another deployment from this folder was faster.
    """
    command, environment = local_docker.again(run.name, local_job.folder_of(out, run.name), run.image)
    with (out / LOG).open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"an endpoint is just being deployed from {out}: name another --out") from error
        log.truncate(0)
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _last_words(out: Path, name: str) -> str:
    """Of the container; or of the process that was to start it, which can end before."""
    with suppress(UserError):
        if ended := local_docker.ended(name):
            return ended
    return " / ".join(processes.last_lines(out / LOG, 2))


def _stop(out: Path, run: Running) -> None:
    """Gently for the requests in flight; then whatever is left of it."""
    with signals.deaf():
        with suppress(UserError):
            local_docker.stop(run.name, processes.GRACE)
        if run.pid and _locked(out):
            os.killpg(run.pid, signal.SIGKILL)
            deadline = time.monotonic() + _PATIENCE
            while _locked(out) and time.monotonic() < deadline:
                time.sleep(0.05)
        _clear(out, run)


def _clear(out: Path, run: Running | None) -> None:
    if run:
        local_docker.clear(run.name, local_job.folder_of(out, run.name), run.image)
        if _state(out) == run:
            (out / STATE).unlink()


def _locked(out: Path) -> bool:
    try:
        with (out / LOG).open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _state(out: Path) -> Running | None:
    try:
        return Running(**json.loads((out / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _check_port(port: int) -> None:
    """
    Raises:
        UserError: it is no port, or something listens on it.
    """
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port}: write 1 to 65535")
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"something listens on port {port} already: write another --port") from error
