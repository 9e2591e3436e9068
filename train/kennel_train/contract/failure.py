"""Any exception, and any traceback that a script printed, as the text of /opt/ml/output/failure: the cause first."""

import errno
import os
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from kennel.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FRAME = re.compile(r'\s+File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<name>.+))?$')
_RAISED = re.compile(r"[A-Za-z_][\w.]*(: .*|:)?$")  # `ValueError: no` or, without words, `KeyboardInterrupt`
_PREFIX = re.compile(r"\[\w+\]:")  # torch.distributed writes [rank0]: before each line of a traceback
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_LAUNCHER = "torch.distributed.elastic."  # torchrun's own exceptions only tell that a worker's came before


class ScriptError(Exception):
    """A user's script that failed: the cause in one sentence, and what it printed on stderr."""

    def __init__(self, cause: str, printed: str) -> None:
        super().__init__(cause)
        self.printed = printed


@dataclass(frozen=True)
class Printed:
    """A traceback on stderr: its last line, where it was raised, and the text from its first line on."""

    raised: str
    where: str
    text: str


def describe(error: BaseException) -> str:
    """What the failure file says; its first line fits SageMaker's FailureReason (1,024 characters)."""
    if isinstance(error, UserError):
        return _line(str(error))
    if isinstance(error, ScriptError):
        return f"{_line(str(error))}\n\n{error.printed}"
    trace = "".join(traceback.format_exception(error))
    return f"{_line(_cause(error))}\n\n{trace}"


def printed(stderr: str, code: Path) -> list[Printed]:
    """The uncaught tracebacks on a script's stderr, in the order of their ends; torchrun's own are left out.

    Args:
        code: the user's folder: the innermost frame in it is where the user looks first.
    """
    lines = stderr.splitlines()
    prefixes = [match[0] if (match := _PREFIX.match(line)) else "" for line in lines]
    found: list[tuple[int, Printed]] = []
    for rank in dict.fromkeys(prefixes):  # ranks write at the same time: each by itself
        own = [(at, line[len(rank) :]) for at, (line, of) in enumerate(zip(lines, prefixes, strict=True)) if of == rank]
        found += _tracebacks([(at, line[1:] if rank else line) for at, line in own], code)
    return [traceback for _, traceback in sorted(found, key=lambda pair: pair[0])]


def _tracebacks(lines: list[tuple[int, str]], code: Path) -> list[tuple[int, Printed]]:
    """(the line that it ends in, the traceback), of one process; a chain of exceptions counts as its last."""
    found: list[tuple[int, Printed]] = []
    frames: list[re.Match[str]] = []
    start, chained, ignored, counted = 0, False, False, False
    for index, (at, line) in enumerate(lines):
        if frame := _FRAME.match(line):
            if not frames and not chained:
                start = max(index - 1, 0)
            frames.append(frame)
        elif line.startswith("Exception ignored"):  # in __del__ or at exit: not what ended the process
            ignored = True
        elif line.startswith(_CHAINED):
            chained, ignored = True, not counted
            if counted:
                found.pop()
        elif frames and line[:1].strip():  # the first line that is not indented ends the frames
            counted = bool(_RAISED.match(line)) and not line.startswith(_LAUNCHER) and not ignored
            if counted:
                text = "\n".join(line for _, line in lines[start:])
                found.append((at, Printed(line.rstrip(": "), _shown(frames, code), text)))
            frames, chained, ignored = [], False, False
    return found


def _shown(frames: list[re.Match[str]], code: Path) -> str:
    """`file.py:12, in function`: the innermost frame of the user's own files, else of all."""
    own = [frame for frame in frames if (code / frame["file"]).resolve().is_relative_to(code.resolve())]
    frame = (own or frames)[-1]
    path = (code / frame["file"]).resolve()
    name = path.relative_to(code.resolve()) if own else Path(path.name)
    return f"{name}:{frame['line']}" + (f", in {frame['name']}" if frame["name"] else "")


def _cause(error: BaseException) -> str:
    where = _where(error)
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called at {where}: a job ends by returning or by raising, remove the call"
    if isinstance(error, KeyboardInterrupt):
        return "the job was interrupted (SIGINT) before a model was written: start it again"
    if out_of_memory(error):
        return f"out of memory at {where}: lower batch_size or image_size, or take a larger instance"
    if disk_full(error):
        file = error.filename if isinstance(error, OSError) else None
        return f"the disk is full ({file or where}): give the job a larger volume"
    return f"{type(error).__name__}: {error} (at {where}); the traceback follows here and in the log"


def disk_full(error: BaseException) -> bool:
    """Whether a file did not fit: safetensors, torch and ONNX Runtime say so in words of their own."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    text = str(error)
    return any(os.strerror(number) in text or f"(os error {number})" in text for number in _FULL)


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, a GPU or torch's allocator on a CPU, which has no exception of its own for it, had too little."""
    torch = sys.modules.get("torch")  # not imported for this alone: a user's script needs no torch in this process
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


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
