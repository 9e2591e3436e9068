"""How far a stage has come: its plan, its best epoch, and all of the state that a checkpoint holds."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kennel import metrics
from kennel.metrics import Metric
from kennel_train.context import Context
from kennel_train.engine import recipe
from kennel_train.engine.batches import Dataset
from kennel_train.measure.callbacks import NO_CALLBACK, Callback
from kennel_train.measure.history import EpochRow


@dataclass
class Best:
    """The best epoch so far: its stage and number, its metrics and its trainable module's state, on the CPU."""

    stage: str = ""
    epoch: int = 0
    values: dict[Metric, float] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)

    def beats(self, stage: str, values: dict[Metric, float]) -> bool:
        """Whether this epoch is no worse than one of `stage` with `values`: more accuracy, then less loss.

        An epoch of an earlier stage is passed by more accuracy alone: a fine-tuned network is surer of itself, which
        is no sign on a small split that it is right more often, and the calibration follows anyway.
        """
        judged_by = 2 if stage == self.stage else 1
        return bool(self.state) and _rank(self.values)[:judged_by] >= _rank(values)[:judged_by]

    def as_dict(self) -> dict[str, Any]:
        values = {metric.name: value for metric, value in self.values.items()}
        return {"stage": self.stage, "epoch": self.epoch, "values": values, "state": self.state}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Best":
        values = {metric: row["values"][metric.name] for metric in metrics.METRICS if metric.name in row["values"]}
        return cls(row["stage"], row["epoch"], values, row["state"])


@dataclass(frozen=True)
class StagePlan:
    """What one call of `fit` does: a stage of so many epochs, in micro-batches of so many photos."""

    stage: str
    epochs: int
    before: int  # epochs of earlier stages: the numbering goes on
    micro_batch: int
    class_weights: Tensor  # float32 (classes,)
    keep_statistics: bool  # batch normalization goes by the pretrained backbone's: micro-batches then change nothing
    best: Best = field(default_factory=Best)  # what an epoch must beat: an earlier stage's, or an empty one


@dataclass(frozen=True)
class LoopCallbacks:
    """What the loop calls: at an epoch's end, with a state worth keeping, and to ask whether to stop."""

    stop: Callable[[], bool]
    hurry: Callable[[], bool]  # whether a job that was stopped before its first step has used up its time
    save: Callable[[dict[str, Any]], None]
    on_epoch_end: Callable[[EpochRow, dict[Metric, float]], None]
    callback: Callback = NO_CALLBACK


def even_batches(photos: int, batch_size: int) -> int:
    """How many batches photos are dealt to evenly.

    None has a single photo, which batch normalization may not take, unless `batch_size` is one: with batches of two an
    odd photo joins another batch.
    """
    return max(1, min(math.ceil(photos / batch_size), photos // 2)) if batch_size > 1 else photos


class Run:
    """The state of one stage: module, optimizer, schedule, moving average, position, best epoch."""

    def __init__(self, module: nn.Module, train: Dataset, context: Context, plan: StagePlan) -> None:
        hp = context.hp
        self.context, self.plan, self.train, self.module = context, plan, train, module
        self.steps = even_batches(train.total, hp.batch_size)
        self.optimizer = recipe.optimizer(module, hp, context.device.torch)
        self.schedule = recipe.schedule(self.optimizer, hp, plan.epochs, self.steps)
        self.average = recipe.average(module, hp)
        self.epoch, self.step, self.stale, self.best = 1, 0, 0, plan.best
        self.sums = torch.zeros(
            2, dtype=torch.float64, device=context.device.torch
        )  # the epoch's losses and weights so far
        self.rows: list[EpochRow] = []  # one per finished epoch

    @property
    def judged(self) -> nn.Module:
        return self.average.module if self.average else self.module

    @property
    def ended(self) -> bool:
        """All epochs are done, or the last `patience` of them brought nothing better (early stopping)."""
        patience = self.context.hp.patience
        return self.epoch > self.plan.epochs or bool(patience and self.stale >= patience)

    def as_dict(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "position": {"epoch": self.epoch, "step": self.step, "stale": self.stale},
            "sums": self.sums.cpu(),
            "best": self.best.as_dict(),
            "rows": self.rows,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.epoch, self.step, self.stale = (state["position"][key] for key in ("epoch", "step", "stale"))
        self.sums = state["sums"].to(self.sums.device)
        self.rows, self.best = state["rows"], Best.from_dict(state["best"])


def _rank(values: dict[Metric, float]) -> tuple[float, float]:
    return values[metrics.VALIDATION_ACCURACY], -values[metrics.VALIDATION_LOSS]
