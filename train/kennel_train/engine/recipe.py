"""What a training step is made of, each part by its hyperparameters: optimizer, schedule, loss, moving average.

The parts are torch's own; only the schedules' formulas are written out, so that a step's rate depends on nothing else.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kennel.hyperparameters import Hyperparameters

_RISE, _START, _END = 0.3, 1 / 25, 1e-5  # of a one-cycle: share of steps that rise, first and last share of the peak


def optimizer(module: nn.Module, hp: Hyperparameters, device: torch.device) -> torch.optim.Optimizer:
    """SGD or AdamW; the backbone has its own rate, biases and normalization layers no weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            scale = hp.backbone_learning_rate_scale if name.startswith("backbone.") else 1.0
            decay = hp.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((hp.learning_rate * scale, decay), []).append(parameter)
    rows = [{"params": members, "lr": lr, "weight_decay": decay} for (lr, decay), members in groups.items()]
    fused = device.type == "cuda"
    if hp.optimizer == "adamw":
        return torch.optim.AdamW(rows, lr=hp.learning_rate, fused=fused)
    return torch.optim.SGD(rows, lr=hp.learning_rate, momentum=hp.momentum, nesterov=hp.momentum > 0, fused=fused)


def schedule(
    optimizer: torch.optim.Optimizer, hp: Hyperparameters, epochs: int, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The rate of every step; `steps` an epoch."""
    total, warmup = epochs * steps, hp.warmup_epochs * steps
    if hp.schedule == "one-cycle":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, total))
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, total, warmup))


def cosine(step: int, total: int, warmup: float) -> float:
    """Share of the peak rate: linear over `warmup` steps, then half a cosine to 0 (Loshchilov & Hutter, 2017)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup)))) / 2


def one_cycle(step: int, total: int) -> float:
    """Share of the peak rate: a cosine up, a cosine down (Smith & Topin, 2018, with torch's OneCycleLR's numbers)."""
    rise = _RISE * total
    low, at = (_START, 1 - step / rise) if step < rise else (_END, min(1.0, (step - rise) / (total - rise)))
    return low + (1 - low) * (1 + math.cos(math.pi * at)) / 2


def class_weights(labels: Sequence[int], classes: int, hp: Hyperparameters) -> Tensor:
    """float32 (classes,): ones, or N / (classes x photos of the class), which keeps the mean photo's weight at 1."""
    counts = Counter(labels)
    if hp.class_weights == "none":
        return torch.ones(classes)
    return torch.tensor([len(labels) / (classes * max(1, counts[label])) for label in range(classes)])


def loss_sum(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """(weighted sum of cross-entropies, sum of weights): divided, after all parts were added, they are torch's mean."""
    loss = cross_entropy(logits.float(), labels, weight=weights, label_smoothing=smoothing, reduction="sum")
    return loss, weights[labels].sum()


def average(module: nn.Module, hp: Hyperparameters) -> AveragedModel | None:
    """The exponential moving average of weights and buffers, or None where it is off."""
    if not hp.ema_decay:
        return None
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(hp.ema_decay), use_buffers=True)  # type: ignore[no-untyped-call]
