"""Takes one stage's numbers while it trains: losses, norms by layer, step times, who was mistaken for whom.

Nothing here waits for a GPU: what it has not finished is taken later. `debug.debugger` decides what the numbers mean.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from kennel_train.measure import tensor_stats
from kennel_train.measure.callbacks import Callback
from kennel_train.measure.history import PARTS, Curve, Evaluated, Seen, StageHistory, Tensors
from kennel_train.measure.step_timer import StepClock

EVERY = 10  # steps between two measurements of the layers, at first
MEASURED = 500  # measurements after which that is doubled: a long stage costs no more memory than a short one
FIRST = 10  # steps in which activations and the spread of gradients are measured, to judge an initialization by
SLOWEST = 10  # steps to remember
JUDGED = 1.0  # seconds at least between two judgements


class StageRecorder(Callback):
    """Fills a `StageHistory`; `judge` is called about once a second, and with `ended` set when the stage is over."""

    def __init__(
        self, series: StageHistory, module: nn.Module, clock: StepClock | None, judge: Callable[[], None], tensors: bool
    ) -> None:
        """
        Args:
            clock: None where no time is to be taken.
            tensors: whether layers are to be measured.
        """
        self._series, self._clock, self._judge = series, clock, judge
        self._parameters = {n: p for n, p in module.named_parameters() if p.requires_grad} if tensors else {}
        self._activations = tensor_stats.ActivationInputs(module) if tensors else None
        self._tensors = tensors
        self._every, self._measured = EVERY, 0
        self._step, self._begun = -1, time.monotonic()
        self._judged = self.last = self._begun
        self._losses: deque[tuple[int, Tensor]] = deque()
        self._norms: deque[tuple[int, list[str], Tensor, Tensor]] = deque()
        self._firsts: deque[tuple[int, dict[str, Tensor], dict[str, Tensor]]] = deque()
        self._judgements: list[tuple[Tensor, Tensor, int]] = []  # sums of losses, of their squares, count
        self._photos = self._wrong = torch.empty(0)

    def begin(self, step: int) -> None:
        if self._step < 0:
            self._series.first = step
        self._step = step
        if self._activations:
            self._activations.listening = True
        if self._clock:
            self._clock.begin()

    def lap(self, part: str) -> None:
        if self._clock:
            self._clock.lap(part)

    def batch(self, logits: Tensor, labels: Tensor) -> None:
        if self._activations:
            self._activations.listening = False  # the first micro-batch tells enough
        if not self._tensors:
            return
        if not len(self._photos):
            self._photos = torch.zeros(logits.shape[1], device=logits.device)
            self._wrong = torch.zeros_like(self._photos)
        wrong = (logits.argmax(1) != labels).to(self._photos.dtype)
        self._photos.scatter_add_(0, labels, torch.ones_like(wrong))
        self._wrong.scatter_add_(0, labels, wrong)

    def end(self, sums: Tensor) -> None:
        if self._clock:
            self._clock.end(self._step)
        self._losses.append((self._step, sums))
        if self._tensors:
            self._measure()
        now = self.last = time.monotonic()
        if now - self._judged >= JUDGED:
            self._settle(wait=False)
            self._judge()
            self._judged = time.monotonic()

    def evaluated(self, losses: Tensor) -> None:
        self._judgements.append((losses.double().sum(), losses.double().square().sum(), len(losses)))
        self.last = time.monotonic()

    def epoch(self, train_loss: float | None, validation_loss: float) -> None:
        self._settle(wait=True)
        known = float("nan") if train_loss is None else train_loss
        seconds = time.monotonic() - self._begun
        self._series.evaluated.append(Evaluated(self._step, known, validation_loss, self._error(), seconds))
        if len(self._photos):
            photos, wrong = (counts.cpu().numpy().astype(np.int64) for counts in (self._photos, self._wrong))
            self._series.seen = Seen(photos, wrong, self._step)
            self._photos = self._wrong = torch.empty(0)
        self.last = time.monotonic()

    def close(self) -> None:
        if self._activations:
            self._activations.close()
        self._settle(wait=True)
        self._series.ended = True
        self._judge()

    def _measure(self) -> None:
        """The layers, every so many steps; in the first steps what an initialization is judged by."""
        since = self._step - self._series.first
        gradients = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        if not gradients:
            return
        if since < FIRST:
            inputs = self._activations.take() if self._activations else {}
            self._firsts.append((self._step, {n: tensor_stats.spread(g) for n, g in gradients.items()}, inputs))
        elif self._activations:
            self._activations.close()
            self._activations = None
        if since % self._every:
            return
        self._measured += 1
        if self._measured % MEASURED == 0:
            self._every *= 2
        weights = [self._parameters[name].detach() for name in gradients]
        measured = (tensor_stats.norms(list(gradients.values())), tensor_stats.norms(weights))
        self._norms.append((self._step, list(gradients), *measured))

    def _settle(self, *, wait: bool) -> None:
        """Move what is finished into the series; with `wait`, all of it."""
        series, done = self._series, self._step if wait or not self._clock else -1
        for step, parts in self._clock.finished(wait=wait) if self._clock else ():
            done = step
            self._time(step, parts)
        while self._losses and self._losses[0][0] <= done:
            step, sums = self._losses.popleft()
            total, weight = sums.tolist()
            if weight:  # a step without a photo, of a job that was stopped, has no loss
                series.loss.add(step, total / weight)
        while self._norms and self._norms[0][0] <= done:
            step, names, gradients, weights = self._norms.popleft()
            for into, found in ((series.gradients, gradients), (series.weights, weights)):
                for name, mean_abs, norm in zip(names, *found.tolist(), strict=True):
                    row = into.setdefault(name, Tensors())
                    row.mean_abs.add(step, mean_abs)
                    row.norm.add(step, norm)
        while self._firsts and self._firsts[0][0] <= done:
            step, spreads, variances = self._firsts.popleft()
            for curves, numbers in ((series.gradient_spread, spreads), (series.activation_variance, variances)):
                for name, number in numbers.items():
                    curves.setdefault(name, Curve()).add(step, float(number))

    def _time(self, step: int, parts: dict[str, float]) -> None:
        series, seconds = self._series, sum(parts.values())
        for part in PARTS:
            series.times.setdefault(part, Curve()).add(step, parts.get(part, 0.0))
            series.seconds[part] = series.seconds.get(part, 0.0) + parts.get(part, 0.0)
        if len(series.slowest) < SLOWEST:
            heapq.heappush(series.slowest, (seconds, step, parts))
        elif seconds > series.slowest[0][0]:
            heapq.heapreplace(series.slowest, (seconds, step, parts))

    def _error(self) -> float:
        """Standard error of the last evaluation's mean loss, by this rank's photos."""
        total = sum(float(row[0]) for row in self._judgements)
        squares = sum(float(row[1]) for row in self._judgements)
        count = sum(row[2] for row in self._judgements)
        self._judgements = []
        if count < 2:
            return 0.0
        variance = max(0.0, squares - total * total / count) / (count - 1)
        return float(np.sqrt(variance / count))
