"""What the loop calls, step by step; the base class does nothing, `debug.debugger` and `debug.smdebug` do."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor


class Callback:
    """Hears of every step of one stage, in this order, and does nothing.

    begin; then for each micro-batch lap("data wait"), lap("forward"), lap("backward"), batch; then lap("other"),
    lap("optimizer"), end. In between, evaluations.
    """

    def begin(self, step: int) -> None:
        """A step begins; `step` counts from 0, over all stages, and goes on where a checkpoint left off."""

    def lap(self, part: str) -> None:
        """What happened since the last lap was `part`, one of `history.PARTS`."""

    def batch(self, logits: Tensor, labels: Tensor) -> None:
        """A micro-batch was seen: logits (n, classes), labels int64 (n,), both on the device."""

    def end(self, sums: Tensor) -> None:
        """The optimizer has stepped, gradients are still there; `sums` is (2,): loss over all photos, their weight."""

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around one evaluation."""
        yield

    def evaluated(self, losses: Tensor) -> None:
        """A batch of an evaluation was judged: its photos' cross-entropies (n,), nats."""

    def epoch(self, train_loss: float | None, validation_loss: float) -> None:
        """An epoch is closed: mean loss of its training photos, None where it had none, and of validation, nats."""

    def close(self) -> None:
        """The stage is over, or has failed; called once, whatever happened."""


NO_CALLBACK = Callback()


class CallbackList(Callback):
    """Several, in turn."""

    def __init__(self, *members: Callback) -> None:
        self._members = members

    def begin(self, step: int) -> None:
        for member in self._members:
            member.begin(step)

    def lap(self, part: str) -> None:
        for member in self._members:
            member.lap(part)

    def batch(self, logits: Tensor, labels: Tensor) -> None:
        for member in self._members:
            member.batch(logits, labels)

    def end(self, sums: Tensor) -> None:
        for member in self._members:
            member.end(sums)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        with ExitStack() as stack:
            for member in self._members:
                stack.enter_context(member.evaluating())
            yield

    def evaluated(self, losses: Tensor) -> None:
        for member in self._members:
            member.evaluated(losses)

    def epoch(self, train_loss: float | None, validation_loss: float) -> None:
        for member in self._members:
            member.epoch(train_loss, validation_loss)

    def close(self) -> None:
        with ExitStack() as stack:
            for member in self._members:
                stack.callback(member.close)
