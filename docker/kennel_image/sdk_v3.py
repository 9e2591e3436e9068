"""Training jobs of SageMaker's Python SDK v3, which start bash and sm_train.sh in place of the image's entry point.

BASH_ENV (docker/bash_env.sh) hands such a start over to the entry point. What this image trains by itself runs as
`train`; a user's own script runs by v3's drivers as they are (sagemaker-train 1.27, `container_drivers`), as a child
whose SIGTERM goes to the script and not to bash, and whose reason to fail is the script's own traceback.
"""

import contextlib
import re
import signal
from pathlib import Path

from kennel import source_code
from kennel.layout import Layout
from kennel.source_code import SourceCode

_START = "sm_drivers/sm_train.sh"
_DRIVERS = re.compile(r"CalledProcessError|Training Execution failed\.")  # what v3's drivers leave as a reason
_UNREAD = re.compile(r"sm_training\.env: line \d+: (.+)")  # it writes values into shell without quoting them
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning)\b.*")
_FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')


def starts(command: list[str]) -> bool:
    """Whether a command is the one that SDK v3 gives as ContainerEntrypoint and ContainerArguments."""
    return any(_START in word for word in command)


def own_training(sent: SourceCode) -> bool:
    """Whether this image's own training is what was asked for: by `command="train"`, or by a hook."""
    return sent.command.split() == ["train"] or sent.hook is not None


def installation(sent: SourceCode, layout: Layout) -> list[str]:
    """v3's own command that installs the requirements, which sm_train.sh would have run; [] where there are none."""
    if not sent.requirements:
        return []
    script = source_code.drivers(layout) / "scripts" / "install_requirements.py"
    return ["env", "-C", str(sent.folder), "python3", str(script), sent.requirements]


def send(child: int, number: signal.Signals) -> None:
    """A signal to the script that bash and the driver wait for."""
    from kennel import process_tree  # here: no other start needs psutil

    process_tree.send(child, number)


def reason(failure: Path, sent: SourceCode | None, output: bytes, stopped: bool) -> str:
    """Why a script failed, where v3's drivers did not find out; "" where it said so itself, or nothing is known.

    Args:
        output: the last of what was printed.
        stopped: SIGTERM was passed on to it.
    """
    with contextlib.suppress(OSError):
        if not _DRIVERS.search(failure.read_text(errors="replace")):
            return ""
    name = (sent.entry_script or sent.command) if sent else "the script"
    text = output.decode(errors="replace")
    if unread := _UNREAD.search(text):
        return (
            f"SDK v3's sm_train.sh cannot read what it wrote of the job's settings ({unread[1].strip()}): use no ' in "
            "hyperparameters, and no . or - in the names of hyperparameters and channels"
        )
    if found := _traceback(text.splitlines()):
        return f"{name} failed{' after SIGTERM' if stopped else ''}: {found}"
    cure = "catch the signal, save the model to SM_MODEL_DIR and end with exit code 0"
    return f"{name} was stopped by SIGTERM, which it did not handle: {cure}" if stopped else ""


def _traceback(lines: list[str]) -> str:
    """The last traceback that is not the drivers': its exception, where it was raised, then all of it.

    v3's driver takes the indentation away, so that a source line can't be known from the end of a traceback but by
    how exceptions are called.
    """
    found, start, frames = "", None, list[re.Match[str]]()
    for at, line in enumerate(lines):
        if line.startswith("Traceback (most recent call last)"):
            start, frames = at, []
        elif start is not None and (frame := _FRAME.match(line)):
            frames.append(frame)
        elif start is not None and frames and _RAISED.match(line):
            if "sm_drivers" not in frames[-1]["file"] and "CalledProcessError" not in line:
                where = f"{Path(frames[-1]['file']).name}:{frames[-1]['line']}"
                found = f"{line.strip()} ({where})\n\n" + "\n".join(lines[start : at + 1])
            start = None
    return found
