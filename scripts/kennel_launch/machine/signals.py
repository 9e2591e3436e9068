"""Ctrl-C and SIGTERM, kept off while something is started or stopped that must not be left behind."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_Handler = Callable[[int, FrameType | None], None] | signal.Handlers


@contextmanager
def held() -> Iterator[list[int]]:
    """Those that come meanwhile: a Ctrl-C inside Popen would lose the process that it has already started."""
    came: list[int] = []
    with _handled(lambda number, _frame: came.append(number)):
        yield came


@contextmanager
def deaf() -> Iterator[None]:
    """A second Ctrl-C must not leave a server behind while the first one is being obeyed.

    What is started meanwhile is deaf, too.
    """
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def _handled(handler: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
