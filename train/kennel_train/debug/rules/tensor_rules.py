"""Rules about gradients, weights, activations and predictions; those about losses: `loss_rules`.

Each is AWS's of the same name, with what it took to keep it silent on a healthy training; `table` has them all.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from kennel_train.debug.rules.findings import Fired
from kennel_train.debug.rules.parameters import OURS, Amount, Bounds, Count
from kennel_train.measure.formatting import figure, percent
from kennel_train.measure.history import Curve, Seen, StageHistory

_NAMED = 3  # of many layers or classes
_NOISE = 2.0  # standard errors by which the first losses must fall to have fallen
_CLASS = 20  # photos of each class, on average, before an epoch that is not over is judged
Share = Annotated[float, Bounds(high=1.0)]


def vanishing_gradient(
    series: StageHistory,
    *,
    threshold: Amount = 0.0000001,
    patience: Annotated[Count, OURS] = 2,
    min_loss: Annotated[Amount, OURS] = 0.01,
) -> Fired | None:
    """Gradients are so small that these layers learn nothing.

    AWS's: the mean of a gradient's absolute values is below `threshold`; here in `patience` measured steps one after
    the other, since residual branches that begin as zero have none in step 0. Not judged: a loss below `min_loss`
    nats, whose gradients are small because it has arrived; a bias beside a weight, since before a batch normalization
    it has no gradient by design.
    """
    if series.loss and series.loss.values[-1] < min_loss:
        return None
    found: dict[str, int] = {}
    for name, tensors in series.gradients.items():
        values = tensors.mean_abs.values
        if len(values) < patience or not all(value < threshold for value in values[-patience:]):
            continue
        if name.endswith(".bias") and f"{name.removesuffix('bias')}weight" in series.gradients:
            continue
        start = len(values) - patience
        while start and values[start - 1] < threshold:
            start -= 1
        found[name] = tensors.mean_abs.steps[start]
    if not found:
        return None
    largest = max(series.gradients[name].mean_abs.values[-1] for name in found)
    return Fired(
        min(found.values()),
        f"gradients of {len(found)} of {len(series.gradients)} parameters have vanished (mean of absolute values "
        f"{figure(largest)} at most): {_listed(list(found))} learn nothing",
        "where the loss had jumped before, lower learning_rate; where it stood still, start from pretrained=true or "
        "choose a backbone with normalization layers",
    )


def exploding_tensor(series: StageHistory, *, only_nan: bool = False) -> Fired | None:
    """The loss, a gradient or a weight is NaN or infinite.

    AWS's, on the losses and the means of absolute values of all gradients and weights, which are nan or infinite where
    an element is. `only_nan`: infinite ones are allowed.
    """
    curves = [("the loss", series.loss)]
    curves += [(f"the gradient of {name}", tensors.mean_abs) for name, tensors in series.gradients.items()]
    curves += [(f"the weight {name}", tensors.mean_abs) for name, tensors in series.weights.items()]
    judged = [(row.step, row.validation_loss) for row in series.evaluated]
    curves.append(("the validation loss", Curve([step for step, _ in judged], [loss for _, loss in judged])))
    found = {name: at for name, curve in curves if (at := _exploded(curve, only_nan)) is not None}
    if not found:
        return None
    first = min(found.values())
    names = sorted(found, key=lambda name: found[name])  # the sort is stable: the loss comes before its gradients
    return Fired(
        first,
        f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {'NaN' if only_nan else 'NaN or infinite'}",
        "lower learning_rate, set gradient_clip=1, or let the rate rise slowly with warmup_epochs=1",
        "error",
    )


def _exploded(curve: Curve, only_nan: bool) -> int | None:
    """The first such step."""
    if only_nan or curve.infinite is None:
        return curve.nan
    return curve.infinite if curve.nan is None else min(curve.nan, curve.infinite)


def poor_weight_initialization(
    series: StageHistory,
    *,
    threshold: Amount = 10.0,
    distribution_range: Amount = 0.001,
    patience: Count = 5,
    steps: Count = 10,
) -> Fired | None:
    """The loss does not fall in the first steps, and the spread of activations or gradients says why.

    AWS's, read so: of the first `steps` losses the last `patience` are not below the first `patience` (by two standard
    errors), and the variances of what activations take in differ by more than `threshold` times between layers, or
    gradients' 5th and 95th percentiles lie closer than `distribution_range` in every layer, or a layer is dead
    (variance 0, or no number). Pretrained weights differ in variance by design: only dead layers count. Not judged
    where the first step was not seen.
    """
    losses = np.array(series.loss.values[:steps], np.float64)
    if series.first or len(losses) < steps:
        return None
    patience = min(patience, max(1, steps // 2))
    early, late = losses[:patience], losses[-patience:]
    error = math.sqrt((early.var() + late.var()) / max(1, patience - 1))
    if early.mean() - late.mean() > _NOISE * error:
        return None
    reason = _spread(series, threshold, distribution_range)
    if not reason:
        return None
    return Fired(
        series.loss.steps[0],
        f"the loss did not fall in the first {steps} steps ({figure(early.mean())}, then {figure(late.mean())}), "
        f"and {reason}",
        "start from pretrained=true; for random weights lower learning_rate, or choose a backbone with normalization "
        "layers",
    )


def _spread(series: StageHistory, threshold: float, distribution_range: float) -> str:
    """What is wrong with the first step's activations or gradients; empty: nothing.

    The first step's alone are of the weights as they were initialized: a learning rate too high spoils the next.
    """
    variances = {name: curve.values[0] for name, curve in series.activation_variance.items() if curve}
    dead = [name for name, variance in variances.items() if not (math.isfinite(variance) and variance > 0)]
    if dead:
        return f"nothing that is alive reaches {_listed(dead)} (variance 0, or no number)"
    if series.pretrained:
        return ""
    if variances and max(variances.values()) > threshold * min(variances.values()):
        ratio = max(variances.values()) / min(variances.values())
        return f"what activations take in varies {figure(round(ratio))} times as much in some layers as in others"
    spreads = [curve.values[0] for curve in series.gradient_spread.values() if curve]
    if spreads and max(spreads) < distribution_range:
        return f"gradients of all layers lie within {figure(max(spreads))}"
    return ""


def class_imbalance(
    series: StageHistory,
    *,
    threshold_imbalance: Annotated[float, Bounds(low=1.0)] = 10.0,
    threshold_misprediction: Share = 0.7,
    samples: Count = 500,
) -> Fired | None:
    """Some classes have far fewer photos than others, or are hardly ever recognized for it.

    AWS's: the largest class has more than `threshold_imbalance` times the photos of the smallest, or of a class more
    than the share `threshold_misprediction` is taken for another. The latter is asked of classes with less than half
    the photos of the largest, from the second epoch on, where all photos together do twice as well: at first, every
    class is mistaken. Judged after `samples` photos and 20 a class, or after an epoch, which may have fewer.
    """
    seen = series.seen
    if seen is None or not len(seen.photos) or not _enough(series, seen, samples):
        return None
    photos, wrong = seen.photos.astype(np.float64), seen.wrong / np.maximum(seen.photos, 1)
    most, fewest = photos.max(), photos.min()
    skewed = most > threshold_imbalance * max(fewest, 1.0)
    rare = (photos > 0) & (photos < most / 2)
    learned = seen.wrong.sum() / photos.sum() <= threshold_misprediction / 2
    missed = rare & (wrong > threshold_misprediction) if len(series.evaluated) > 1 and learned else rare & False
    if not (skewed or missed.any()):
        return None
    parts = []
    if skewed:
        few = [
            _class(series, at) for at in np.argsort(photos, kind="stable") if most > threshold_imbalance * photos[at]
        ]
        often = f"{figure(most)} photos are of {_class(series, int(photos.argmax()))}"
        parts.append(f"{often}, only {figure(fewest)} of the smallest class (rare: {_listed(few)})")
    if missed.any():
        names = [f"{_class(series, at)} ({percent(wrong[at])})" for at in np.flatnonzero(missed)]
        parts.append(f"of rare classes most photos are taken for another: {_listed(names)}")
    return Fired(seen.step, "; ".join(parts), "set class_weights=balanced, or bring more photos of the rare classes")


def _enough(series: StageHistory, seen: Seen, samples: int) -> bool:
    over = series.ended or (bool(series.evaluated) and seen.step <= series.evaluated[-1].step)
    total = int(seen.photos.sum())
    return total > 0 and (over or total >= max(samples, _CLASS * len(seen.photos)))


def _class(series: StageHistory, at: int) -> str:
    return series.class_names[at] if at < len(series.class_names) else f"class {at}"


def _listed(names: Sequence[str]) -> str:
    """`a, b, c and 12 more`."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
