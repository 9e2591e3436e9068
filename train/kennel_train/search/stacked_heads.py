"""Heads of several trials side by side on the same features: one matrix product a step, otherwise each as if alone.

Each keeps its own optimizer, schedule and best epoch, so that whatever the recipe knows may differ between them, but
for `batch_size` and `epochs`: those of one stack see the same photos at the same moment.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear

from kennel.hyperparameters import Hyperparameters
from kennel_train.distributed import all_reduce
from kennel_train.engine import loop, recipe
from kennel_train.engine.batches import FeatureDataset, Index
from kennel_train.engine.progress import Run


@dataclass
class Head:
    """One trial's: `run.module` is an `nn.Linear`."""

    number: int
    run: Run
    seconds: float = 0.0  # its share of the stack's time
    failed: str = ""  # why

    @property
    def hp(self) -> Hyperparameters:
        return self.run.context.hp

    @property
    def going(self) -> bool:
        return not self.failed and not self.run.ended


def fit(
    heads: Sequence[Head],
    train: FeatureDataset,
    validation: FeatureDataset,
    over: Callable[[], bool],
) -> bool:
    """Train all heads to their ends; whether they came there before the search was over.

    Args:
        over: asked after every epoch, by all ranks alike.
    """
    while going := [head for head in heads if head.going]:
        started = time.monotonic()
        rates = [float(head.run.schedule.get_last_lr()[-1]) for head in going]
        _epoch(going, train)
        seconds = max(time.monotonic() - started, 1e-9) / len(going)
        for head, rate in zip(going, rates, strict=True):
            row = {"learning_rate": rate, "seconds": seconds, "photos_per_second": train.total / seconds, "waited": 0.0}
            head.seconds += seconds
            try:
                loop.close_epoch(head.run, row, validation)
            except loop.DivergedError as error:
                head.failed = str(error)
        if over():
            return False
    return True


def _epoch(heads: Sequence[Head], train: FeatureDataset) -> None:
    first = heads[0]
    device, cluster = first.run.context.device, first.run.context.cluster
    parts: list[Index] = np.array_split(train.order(first.hp.seed, first.run.epoch), first.run.steps)
    modules = nn.ModuleList(head.run.module for head in heads)
    modules.train()
    weights = [head.run.plan.class_weights.to(device.torch) for head in heads]
    for features, labels in train.training(parts, first.hp.seed, first.run.epoch):
        for head in heads:
            head.run.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16):
            together = linear(
                features,
                torch.cat([head.run.module.get_parameter("weight") for head in heads]),
                torch.cat([head.run.module.get_parameter("bias") for head in heads]),
            )
        logits = together.chunk(len(heads), dim=1)
        sums = [
            torch.stack(recipe.loss_sum(own, labels, weight, head.hp.label_smoothing))
            for own, weight, head in zip(logits, weights, heads, strict=True)
        ]
        torch.stack(sums)[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        totals = torch.stack(sums).detach()
        all_reduce.share(modules, totals, cluster, False)
        for head, own in zip(heads, totals, strict=True):
            loop.update(head.run, own)
