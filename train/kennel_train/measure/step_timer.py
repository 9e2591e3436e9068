"""What a step's time goes to. On a GPU by events on its stream: what the GPU itself did, or waited for."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch

_Marks = list[tuple[str, Any]]


class StepClock:
    """Laps of each step, in seconds by part of `history.PARTS`.

    Fetching a batch is one lap, "data wait"; of it, what the loader itself says it kept us waiting is that, the rest
    "host to device". On a GPU the stream's own time counts: a batch that comes late while the GPU is still busy costs
    nothing.
    """

    def __init__(self, device: torch.device, waited: Callable[[], float]) -> None:
        """`waited`: seconds that batches were waited for so far."""
        self._gpu = device.type == "cuda"
        self._waited = waited
        self._marks: _Marks = []
        self._late = 0.0  # what `waited` said when the step began
        self._pending: deque[tuple[int, _Marks, float]] = deque()  # steps, of which a GPU may not be done with the last

    def begin(self) -> None:
        self._late = self._waited()
        self._marks = [("", self._now())]

    def lap(self, part: str) -> None:
        self._marks.append((part, self._now()))

    def end(self, step: int) -> None:
        self._pending.append((step, self._marks, self._waited() - self._late))

    def finished(self, *, wait: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """(step, seconds by part) of the steps that are done and not returned before; with `wait`, of all."""
        while self._pending:
            step, marks, waited = self._pending[0]
            if self._gpu and not marks[-1][1].query():
                if not wait:
                    return
                marks[-1][1].synchronize()
            self._pending.popleft()
            yield step, self._parts(marks, waited)

    def _now(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _parts(self, marks: _Marks, waited: float) -> dict[str, float]:
        parts: dict[str, float] = {}
        for (_, before), (part, after) in itertools.pairwise(marks):
            seconds = before.elapsed_time(after) / 1000 if self._gpu else after - before
            parts[part] = parts.get(part, 0.0) + seconds
        fetched = parts.get("data wait", 0.0)
        parts["data wait"] = min(waited, fetched)
        parts["host to device"] = fetched - parts["data wait"]
        return parts
