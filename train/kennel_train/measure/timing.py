"""Where a job's time went: named phases, in the order in which they first began."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


class Timing:
    """Seconds by phase; what is called inside another phase is not counted there."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"start": time.time() - psutil.Process().create_time()}
        self._open: list[str] = []
        self._since = time.monotonic()

    @property
    def now(self) -> str:
        """The phase that is open."""
        last = self._open[-1:]  # one read: the sampler's thread asks, too
        return last[0] if last else "start"

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._charge()
        self.seconds.setdefault(name, 0.0)
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        """Give the time since the last change to the phase that was open."""
        now = time.monotonic()
        self.seconds[self.now] += now - self._since
        self._since = now
