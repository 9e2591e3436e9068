"""The log that never blocks: what this process and its children write is read at once, and passed on as it is taken.

The reader of the container's log may stop reading. A full pipe would then stop everything that writes a line: the
front door, /ping and SIGTERM with it, and Java, whose threads pass on what workers write. So descriptors 1 and 2
become pipes of our own; what the reader does not take in time is dropped, in whole lines, and counted.
"""

import fcntl
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_MOST_BYTES = 4 << 20  # kept for a reader that is slow
_PIPE_BYTES = 1 << 20  # of our own pipes: what is written in a pause fits
_PAUSE_SECONDS = 0.01  # lines are passed on together: a thread's turn for each would cost every request
_END_SECONDS = 1.0  # for a reader to take the last lines
_STDOUT, _STDERR = 1, 2


@contextmanager
def unblocked() -> Iterator[None]:
    """Descriptors 1 and 2, for this process and those that it starts: writing there waits for no reader."""
    same = os.path.samestat(os.fstat(_STDOUT), os.fstat(_STDERR))  # then their lines stay in order
    streams = [_Stream(_STDOUT, _STDERR)] if same else [_Stream(_STDOUT), _Stream(_STDERR)]
    try:
        yield
    finally:
        for file in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                file.flush()
        end = time.monotonic() + _END_SECONDS
        for stream in streams:
            stream.close(end)


class _Stream:
    """What is written to some descriptors, on its way to where the first of them led."""

    def __init__(self, *descriptors: int) -> None:
        self._descriptors = descriptors
        self._target = os.dup(descriptors[0])
        self._source, ours = os.pipe()
        with suppress(OSError):  # more than this user's pipes may have
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        for descriptor in descriptors:
            os.dup2(ours, descriptor)
        os.close(ours)
        self._kept, self._bytes, self._dropped, self._ended = deque[bytes](), 0, 0, False
        self._change = threading.Condition()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._write)]
        for thread in self._threads:
            thread.start()

    def close(self, end: float) -> None:
        """Give the descriptors back, and the reader until the moment `end` to take what is left."""
        for descriptor in self._descriptors:
            os.dup2(self._target, descriptor)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _read(self) -> None:
        rest = b""
        buffer = bytearray(_PIPE_BYTES)  # one for all reads: a new megabyte for each tears holes into the heap
        while count := os.readv(self._source, [buffer]):
            lines, end, rest = (rest + buffer[:count]).rpartition(b"\n")
            if len(rest) > _PIPE_BYTES:
                lines, end, rest = rest, b"", b""
            self._keep(lines + end)
            time.sleep(_PAUSE_SECONDS)
        self._keep(rest)
        with self._change:
            self._ended = True
            self._change.notify()

    def _keep(self, lines: bytes) -> None:
        with self._change:
            if self._dropped or self._bytes + len(lines) > _MOST_BYTES:  # the count stands where the lines would
                self._dropped += lines.count(b"\n")
            elif lines:
                self._kept.append(lines)
                self._bytes += len(lines)
                self._change.notify()

    def _write(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._kept or self._dropped or self._ended)
                if self._kept:
                    lines = self._kept.popleft()
                    self._bytes -= len(lines)
                elif self._dropped:
                    lines = b"%d lines of the log were dropped: its reader did not keep up\n" % self._dropped
                    self._dropped = 0
                else:
                    return
            self._pass_on(memoryview(lines))

    def _pass_on(self, lines: memoryview) -> None:
        while lines:
            try:
                lines = lines[os.write(self._target, lines) :]
            except BlockingIOError:  # its reader made it so
                time.sleep(_PAUSE_SECONDS)
            except OSError:  # its reader is gone, or the disk is full
                return
