"""One training job on this machine, in a folder that is its /opt/ml: its model lies in OUT/model.

With several hosts the folder is the first one's, and the others' lie in OUT/hosts.
"""

import argparse
import json
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from kennel import files
from kennel.errors import UserError
from kennel.layout import Layout
from kennel_launch.local_mode import command_lines
from kennel_launch.local_mode.command_lines import LocalTraining
from kennel_launch.machine import docker, opt_ml, processes

OUT = Path("build/local")
_PATIENCE = 30.0  # seconds that the other hosts have to end by themselves, where one has failed


class JobFailedError(UserError):
    """It was started, and has failed."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--local and --out."""
    parser.add_argument("--local", action="store_true", help="on this machine, without AWS")
    text = "of --local, for its files (%(default)s)"
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help=text)


def add_gpus(parser: argparse._ActionsContainer) -> None:
    """--gpus."""
    parser.add_argument("--gpus", default="", metavar="GPUS", help="docker's --gpus, of --local --image")


def check(training: LocalTraining) -> None:
    """
    Raises:
        UserError: it can't be started as asked.
    """
    if training.image:
        docker.check_image(training.image)
        return
    if training.hosts > 1:
        raise UserError("each host of --instance-count is a container: name an image with --image")
    command_lines.check_here("train", training.gpus)


def run(training: LocalTraining, out: Path) -> Layout:
    """The job's /opt/ml after it has ended well; an earlier job's model stays until the new one is whole.

    Raises:
        JobFailedError: says why.
        UserError: it can't be started.
    """
    check(training)
    with opt_ml.model_kept(out):
        prepared = command_lines.prepared(out, training)
        with docker.network(training.network):
            code = _wait([command for _, command in prepared])
        layouts = [layout for layout, _ in prepared]
        if code:
            kind = UserError if code == command_lines.NOT_STARTED else JobFailedError
            raise kind(command_lines.failure(layouts, code))
    files.put(out / opt_ml.RECORD, json.dumps({"name": training.name, "image": training.image}))
    return layouts[0]


def image_of(out: Path) -> str | None:
    """The image of the job whose model lies there, empty of one without an image; None: there is no such job."""
    try:
        return str(json.loads((out / opt_ml.RECORD).read_text())["image"])
    except (OSError, ValueError, KeyError):
        return None


def _wait(commands: list[processes.Command]) -> int:
    """The exit code of the first host that failed, 0 where none did; none runs any more."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(processes.started(command)) for command in commands]
        failed = 0.0
        while running := [host for host in hosts if host.poll() is None]:
            failed = failed or (time.monotonic() if any(host.returncode for host in hosts) else 0.0)
            if failed and time.monotonic() - failed > _PATIENCE:
                break
            with suppress(subprocess.TimeoutExpired):
                running[0].wait(0.2)
        return next((host.returncode for host in hosts if host.returncode), 0)
