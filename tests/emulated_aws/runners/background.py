"""Threads that run jobs and endpoints beside the server's own; all of them end, processes included, when asked to."""

import threading
import time
from collections.abc import Callable

PATIENCE = 30.0  # seconds for a thread that was asked to end


class Background:
    """What one emulated account has running."""

    def __init__(self) -> None:
        self.closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def start(self, work: Callable[[], None], name: str) -> None:
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()]
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
        thread.start()

    def close(self) -> list[str]:
        """Ends all of them; the names of those that would not."""
        self.closing.set()
        deadline = time.monotonic() + PATIENCE
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in threads if thread.is_alive()]
