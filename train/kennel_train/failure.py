"""Any exception as the text of /opt/ml/output/failure: the cause and its mending first, the traceback after."""

import errno
import traceback
from pathlib import Path

import torch

from kennel.errors import UserError

_FATAL_MEMORY = (MemoryError, torch.OutOfMemoryError)


def describe(error: BaseException) -> str:
    """What the failure file says; its first line fits SageMaker's FailureReason (1,024 characters)."""
    if isinstance(error, UserError):
        return _line(str(error))
    trace = "".join(traceback.format_exception(error))
    return f"{_line(_cause(error))}\n\n{trace}"


def write(path: Path, text: str) -> None:
    """Write the failure file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def _cause(error: BaseException) -> str:
    where = _where(error)
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called at {where}: a job ends by returning or by raising, remove the call"
    if isinstance(error, KeyboardInterrupt):
        return "the job was interrupted (SIGINT) before a model was written: start it again"
    if isinstance(error, _FATAL_MEMORY):
        return f"out of memory at {where}: lower batch_size or image_size, or take a larger instance"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.filename or where}): give the job a larger volume"
    return f"{type(error).__name__}: {error} (at {where}); the traceback follows here and in the log"


def _where(error: BaseException) -> str:
    """`file.py:12, in function`: the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    last = frames[-1]
    return f"{Path(last.filename).name}:{last.lineno}, in {last.name}"


def _line(text: str) -> str:
    """One line of at most 1,000 characters: SageMaker shows the first 1,024 of the file."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 1000 else flat[:997] + "..."
