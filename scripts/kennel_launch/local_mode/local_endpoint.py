"""An endpoint on this machine that outlives its command: deployed from a folder, found again by it, deleted.

Its log is locked for as long as its process lives, by the open file that is the process' output: the kernel lets go
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
import tarfile
import time
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from kennel import files
from kennel.errors import UserError
from kennel.layout import Layout
from kennel_launch.console import flags
from kennel_launch.hosting import specs
from kennel_launch.local_mode import command_lines, local_job
from kennel_launch.machine import docker, http_probe, opt_ml, processes, signals
from kennel_launch.settings import Settings

_PATIENCE = 10.0  # seconds until a killed process has let go of its log
_KNOWN = ("local", "out", "model", "image", "gpus", "port", "engine", "yes")


@dataclass(frozen=True)
class Running:
    """What is known of the endpoint of a folder; `pid` is that of its process and its group."""

    pid: int
    port: int
    container: str  # empty: it has none


def log_of(out: Path) -> Path:
    return out / opt_ml.ENDPOINT / "serve.log"


def deploy(options: argparse.Namespace, settings: Settings) -> int:
    """0: /ping answers 200; 1: the endpoint ended before.

    Raises:
        UserError: it can't be deployed as asked.
    """
    out: Path = options.out
    flags.refuse_elsewhere(options, _KNOWN)
    model = Path(options.model) if options.model else Layout(out).model
    if not (model.is_file() or opt_ml.holds_files(model)):
        hint = "kennel train --local makes one, or name another by --model FILE.tar.gz|FOLDER"
        raise UserError(f"{model} is no model: {hint}")
    if here := running(out):
        raise UserError(f"an endpoint runs from {out} already, on port {here.port}: kennel delete --local ends it")
    trained_by = None if options.model else local_job.image_of(out)
    image = options.image or (settings.image if trained_by is None else trained_by)
    if image:
        docker.check_image(image)
    else:
        command_lines.check_here("serve", options.gpus)
    _check_port(options.port)
    layout, run = Layout(out / opt_ml.ENDPOINT), None
    log = _claimed(out)
    try:
        _remove(out, _state(out))
        with log:
            _lay(model, layout.model)
            process, run = _started(layout, options, image, log)
        files.put(_state_file(out), json.dumps(asdict(run)))
        http_probe.wait_until_healthy(run.port, process, lambda: None, log_of(out))
    except http_probe.EndedError as error:
        print(f"kennel deploy: {error} ({' / '.join(processes.last_lines(log_of(out), 2))})", file=sys.stderr)
        _stop(out, run)
        return 1
    except BaseException:  # Ctrl-C, too
        log.close()
        _stop(out, run)
        raise
    print(f"http://127.0.0.1:{run.port}")
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


def _lay(model: Path, target: Path) -> None:
    """A model folder of the endpoint's own: the job that made the model may run again meanwhile.

    Raises:
        UserError: the file is no archive of a model, or there is no room.
    """
    try:
        if model.is_dir():
            shutil.copytree(model, target, copy_function=opt_ml.hard_link)
            return
        target.mkdir(parents=True)
        with tarfile.open(model) as archive:  # its own `filter` is not in every Python 3.11
            for member in filter(tarfile.TarInfo.isfile, archive):
                path = PurePosixPath(member.name)
                content = archive.extractfile(member)
                if path.is_absolute() or ".." in path.parts or content is None:
                    raise UserError(f"{model} has a file outside its folder, {member.name}: pack the model again")
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                with content, (target / path).open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (OSError, tarfile.TarError, zlib.error, EOFError) as error:
        raise UserError(f"{model} cannot be unpacked to {target} ({error}): name a model.tar.gz or a folder") from error


def _claimed(out: Path) -> BinaryIO:
    """The log, empty and locked.

    Raises:
        UserError: another deployment from this folder was faster, or nothing can be written there.
    """
    path = log_of(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("ab")
    except OSError as error:
        raise UserError(f"{path.parent} cannot be made ({error.strerror}): name another --out") from error
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        log.close()
        raise UserError(f"an endpoint is just being deployed from {out}: wait until it is") from error
    log.truncate(0)
    return log


def _started(
    layout: Layout, options: argparse.Namespace, image: str, log: BinaryIO
) -> tuple[subprocess.Popen[bytes], Running]:
    environment = specs.environment(options.engine)
    if image:
        command = command_lines.serve_in_image(image, layout.model, options.port, options.gpus, environment)
    else:
        command = command_lines.serve_here(layout, options.port, environment)
    process = subprocess.Popen(
        command.argv, env=command.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    return process, Running(process.pid, options.port, command.container)


def _stop(out: Path, run: Running | None) -> None:
    """Gently for the requests in flight; then whatever is left of it."""
    with signals.deaf():
        if run and run.container:
            with suppress(UserError):
                docker.run("stop", "--time", str(int(processes.GRACE)), run.container, capture=True)
        elif run and _locked(out):
            with suppress(ProcessLookupError):
                os.kill(run.pid, signal.SIGTERM)
            _until_free(out, processes.GRACE)
        if run and _locked(out):
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            _until_free(out, _PATIENCE)
        _remove(out, run)


def _until_free(out: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while _locked(out) and time.monotonic() < deadline:
        time.sleep(0.05)


def _remove(out: Path, run: Running | None) -> None:
    """What is left of an endpoint that has ended, but its log."""
    if run and run.container:
        with suppress(UserError):  # it is gone by itself
            docker.run("rm", "--force", run.container, capture=True)
    shutil.rmtree(Layout(out / opt_ml.ENDPOINT).model, ignore_errors=True)
    _state_file(out).unlink(missing_ok=True)


def _locked(out: Path) -> bool:
    try:
        with log_of(out).open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _state_file(out: Path) -> Path:
    return out / opt_ml.ENDPOINT / "endpoint.json"


def _state(out: Path) -> Running | None:
    try:
        return Running(**json.loads(_state_file(out).read_text()))
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
