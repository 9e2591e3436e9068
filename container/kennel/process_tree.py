"""Which processes a SIGTERM is meant for: what was started may only start another."""

import contextlib
import signal
from pathlib import Path

import psutil

_SHELLS = {"sh", "bash", "dash", "ash", "zsh"}
_DRIVERS = "sm_drivers"  # the channel that SageMaker's SDK v3 starts scripts from, by a driver of Python's


def send(pid: int, number: signal.Signals) -> list[int]:
    """Send a signal to whom it is meant for below a process that was started; their process ids."""
    sent = []
    with contextlib.suppress(psutil.Error):  # it has ended meanwhile
        for receiver in _receivers(psutil.Process(pid)):
            with contextlib.suppress(psutil.Error):
                receiver.send_signal(number)
                sent.append(receiver.pid)
    return sent


def _receivers(started: psutil.Process) -> list[psutil.Process]:
    """A launcher's children, else the process itself.

    A shell would die of it and leave its command alone; torchrun would call even a clean end a failure; a driver of
    SDK v3's would end without its script.
    """
    try:
        children = started.children()
        if children and _launches(started):
            return [receiver for child in children for receiver in _receivers(child)]
    except (psutil.Error, OSError):  # it has ended meanwhile
        return []
    return [started]


def _launches(started: psutil.Process) -> bool:
    words = started.cmdline()
    if "torch.distributed.run" in words[:3] or any(Path(word).name == "torchrun" for word in words[:2]):
        return True
    if any(_DRIVERS in Path(word).parts for word in words[:2]):
        return True
    status = Path(f"/proc/{started.pid}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1
    return Path(started.exe()).name in _SHELLS and not caught  # one with a trap is signalled itself
