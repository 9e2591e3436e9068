"""Whether each worker lives, works or hangs: a file per worker, which it writes and the server reads.

MMS calls a worker READY as long as the thread that watches it runs, and waits for a stopped one. Here a worker holds
a lock on its file, which the kernel lets go of when it dies; in it stand the moment of the last beat of a thread of
its own and the moment since when it has been busy. Moments are CLOCK_MONOTONIC's, the same in every process.
"""

import fcntl
import logging
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_MOMENTS = struct.Struct("dd")  # last beat; busy since, 0 when idle
_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Heartbeat:
    """A worker's own side."""

    def __init__(self, folder: Path) -> None:
        """Begin to beat, in a thread that ends with the process."""
        path = folder / str(os.getpid())
        partial = path.with_suffix(".partial")
        self._file = os.open(partial, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.write(self._file, _MOMENTS.pack(time.monotonic(), 0.0))
        self._moments = mmap.mmap(self._file, _MOMENTS.size)
        partial.rename(path)
        threading.Thread(target=self._beat, daemon=True).start()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While a request is worked on."""
        self._moments[8:16] = struct.pack("d", time.monotonic())
        try:
            yield
        finally:
            self._moments[8:16] = struct.pack("d", 0.0)

    def _beat(self) -> None:
        while True:
            self._moments[:8] = struct.pack("d", time.monotonic())
            time.sleep(_SECONDS)


@dataclass(frozen=True)
class Worker:
    """A living worker as the server sees it."""

    pid: int
    silent: float  # seconds without a beat
    busy: float  # seconds with the same request, 0 when idle

    def hangs(self, seconds: float) -> bool:
        return max(self.silent - 2 * _SECONDS, self.busy) > seconds


def workers(folder: Path) -> list[Worker]:
    """The living workers; the files of dead ones are removed."""
    found = []
    now = time.monotonic()
    for path in folder.glob("*[0-9]"):
        with suppress(FileNotFoundError):
            if _dead(path):
                beat, since = _MOMENTS.unpack(path.read_bytes())
                path.unlink()
                doing = "while it worked on a request" if since else "while it was idle"
                _log.warning("worker %s died %s: %s", path.name, doing, _how(int(path.name)))
                continue
            beat, since = _MOMENTS.unpack(path.read_bytes())
            found.append(Worker(int(path.name), now - beat, now - since if since else 0.0))
    return found


def _dead(path: Path) -> bool:
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)


def _how(pid: int) -> str:
    """By which signal, where its parent has not yet taken its status away; what it may have been where it has."""
    with suppress(OSError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] == "Z" and (number := int(fields[-1]) & 0x7F):
            name = signal.Signals(number).name
            if number == signal.SIGKILL:
                return f"{name}, most likely of the kernel's out-of-memory killer{_memory()}"
            return f"{name} ({signal.strsignal(number)}), of its own code or a library's"
    return f"killed{_memory()}"


def _memory() -> str:
    """What the kernel says of its out-of-memory killer in this container."""
    with suppress(OSError, ValueError):
        events = dict(line.split() for line in Path("/sys/fs/cgroup/memory.events").read_text().splitlines())
        if kills := int(events.get("oom_kill", 0)):
            return f" (the kernel has ended {kills} process(es) here for want of memory: fewer workers, or more memory)"
    return ", or ended by its own code"
