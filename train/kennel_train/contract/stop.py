"""Whether a job was asked to end, as those see it who have something to finish first."""

import time
from collections.abc import Callable
from typing import Protocol

GRACE = 4.0  # seconds of each phase of a job that was stopped and has no model yet; its end takes ten more


class Stop(Protocol):
    """Whether the job was asked to end, and whether that was so many seconds ago."""

    def __call__(self) -> bool: ...
    def ago(self, seconds: float) -> bool: ...


class Never:
    """The stop of what is not asked to end."""

    def __call__(self) -> bool:
        return False

    def ago(self, seconds: float) -> bool:
        return False


def grace(stop: Stop) -> Callable[[], bool]:
    """Whether the phase that begins now has used up what is left to a job that was stopped."""
    begun = time.monotonic()
    return lambda: stop.ago(GRACE) and time.monotonic() - begun >= GRACE


class TrialPruner:
    """A job's stop and that of one trial, which has a reason of its own."""

    def __init__(self, stop: Stop) -> None:
        self.reason = ""
        self._stop = stop

    def __call__(self) -> bool:
        return bool(self.reason) or self._stop()

    def ago(self, seconds: float) -> bool:
        return self._stop.ago(seconds)


class GracePeriod:
    """A job's stop that leaves what begins now its grace."""

    def __init__(self, stop: Stop) -> None:
        self.ago = stop.ago
        self._late = grace(stop)

    def __call__(self) -> bool:
        return self._late()
