"""Rules about losses: one that does not fall, one that rises on validation, epochs that brought nothing.

Each is AWS's of the same name, with what it took to keep it silent on a healthy training; `table` has them all.
"""

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from kennel_train.debug.rules.findings import Fired
from kennel_train.debug.rules.parameters import OURS, Amount, Bounds, Count, Percent, Whole
from kennel_train.measure.formatting import duration, figure, percent
from kennel_train.measure.history import StageHistory

_BLOCKS = 4  # the fewest on each side of a comparison: a spread of fewer is a guess
_LONG = 100  # blocks, beyond which less is asked of each
Mode = Annotated[str, Bounds(choices=("", "TRAIN", "EVAL", "GLOBAL"))]
Floats = NDArray[np.float64]


def loss_not_decreasing(
    series: StageHistory,
    *,
    num_steps: Count = 10,
    diff_percent: Percent = 0.1,
    mode: Mode = "",
    floor: Annotated[Percent, OURS] = 50.0,
    noise: Annotated[Amount, OURS] = 3.0,
    worse: Annotated[Amount, OURS] = 10.0,
) -> Fired | None:
    """The loss falls by less than `diff_percent` each `num_steps` steps, and has not yet fallen by `floor` percent.

    A batch's loss is noisy, so that means over blocks of `num_steps` measured steps are compared, over whole epochs
    where there are enough of them (the same photos each time); the last half of all blocks with the half before, and
    the last quarter with the quarter before. It fires where the fall is too small even with `noise` standard errors
    (Welch, 1947: of the difference of two means) added to it. Long trainings fall slowly: beyond 100 blocks, so
    much less is asked of each.

    A loss that has fallen by `floor` percent of its first block, or of what guessing costs (ln classes), has arrived;
    one that two blocks running is above `worse` times what guessing costs has left for good, and needs no more.
    `mode=EVAL` judges the validation loss instead, `num_steps` evaluations a block.
    """
    blocks, steps = _blocks(series, num_steps, mode)
    guess = math.log(len(series.class_names)) if len(series.class_names) > 1 else 0.0
    if guess and len(blocks) > 1 and blocks[-2:].min() > worse * guess:
        left = np.flatnonzero(~(blocks > worse * guess)).max(initial=-1) + 1
        return Fired(
            int(steps[left]),
            f"the loss is {figure(blocks[-1])} on average, {figure(round(blocks[-1] / guess))} times that of guessing",
            "lower learning_rate, to a tenth for a start, or set gradient_clip=1",
        )
    if len(blocks) < 2 * _BLOCKS:
        return None
    if blocks[-1] <= (1 - floor / 100) * max(blocks[0], guess):
        return None
    wanted = diff_percent / 100 * min(1.0, _LONG / len(blocks))
    for width in (len(blocks) // 2, len(blocks) // 4):
        before, after = blocks[-2 * width : -width], blocks[-width:]
        fall = before.mean() - after.mean()
        error = math.sqrt((before.var(ddof=1) + after.var(ddof=1)) / width) if width >= _BLOCKS else math.inf
        if fall + noise * error < wanted * width * abs(before.mean()):
            means = f"{figure(before.mean())} before and {figure(after.mean())} now"
            return Fired(
                int(steps[-2 * width]),
                f"the {'validation' if mode == 'EVAL' else 'training'} loss does not fall: {means}, on average",
                "try another learning_rate, a tenth and ten times as much; a loss that never fell at all can mean "
                "labels that do not fit the photos",
            )
    return None


def _blocks(series: StageHistory, num_steps: int, mode: str) -> tuple[Floats, NDArray[np.int64]]:
    """(mean loss of each full block, float64 (n,); its first step, int64 (n,))."""
    if mode == "EVAL":
        steps = np.array([row.step for row in series.evaluated], np.int64)
        values = np.array([row.validation_loss for row in series.evaluated], np.float64)
    else:
        steps, values = series.loss.arrays()
    if len(steps) < 2:
        return np.empty(0), steps[:0]
    apart = max(1, round((int(steps[-1]) - int(steps[0])) / (len(steps) - 1)))  # several, in a thinned curve
    size = num_steps * apart
    epochs = [row.step for row in series.evaluated]
    epoch = max(1, epochs[-1] - epochs[-2]) if len(epochs) > 1 and mode != "EVAL" else 1
    whole = epoch * math.ceil(size / epoch)
    if len(epochs) > 1 and (steps[-1] - steps[0]) // whole >= 2 * _BLOCKS:
        size = whole
    places = (steps - steps[0]) // size
    full = (int(steps[-1]) - int(steps[0]) + apart) // size
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    counts = np.diff(np.append(starts, len(values)))
    means = np.add.reduceat(values, starts) / counts
    kept = places[starts] < full
    return means[kept], steps[starts][kept]


def overfit(
    series: StageHistory,
    *,
    start_step: Whole = 0,
    patience: Whole = 1,
    ratio_threshold: Amount = 0.1,
    noise: Annotated[Amount, OURS] = 2.0,
) -> Fired | None:
    """The validation loss rises while the training loss stays below it: the model overfits.

    AWS's: (validation - training) / training is above `ratio_threshold` for more than `patience` evaluations.
    A small training loss alone is no fault, so the validation loss must also stand above its own minimum by more than
    `noise` standard errors; where those are not known, any rise counts.
    """
    if not series.evaluated:
        return None
    table = [(row.train_loss, row.validation_loss, row.error, row.step) for row in series.evaluated]
    train, validation, error, steps = np.array(table, np.float64).T
    lowest = np.fmin.accumulate(validation)
    held = (steps >= start_step) & (validation - train > ratio_threshold * train)
    held &= validation - lowest > noise * np.where(np.isfinite(error), error, 0.0)
    run = len(held) if held.all() else int(np.argmin(held[::-1]))
    if run <= patience:
        return None
    return Fired(
        int(steps[-run]),
        f"the validation loss has risen from {figure(lowest[-1])} to {figure(validation[-1])} "
        f"while the training loss is {figure(train[-1])}: the model overfits",
        "set trivial_augment=true, label_smoothing=0.1 or more weight_decay, train for fewer epochs, or bring more "
        "photos (the best epoch is kept in any case)",
    )


def overtraining(
    series: StageHistory,
    *,
    patience_train: Count = 5,
    patience_validation: Count = 10,
    delta: Amount = 0.1,
    min_seconds: Annotated[Amount, OURS] = 60.0,
) -> Fired | None:
    """Training goes on though neither loss improves any more: time that brings nothing.

    AWS's: no new optimum, better by `delta` nats, of the training loss for `patience_train` evaluations and of the
    validation loss for `patience_validation`. What falls by less still falls, so the lowest validation loss of all
    must also be `patience_train` evaluations old, and `min_seconds` of training where times are known: a plateau that
    cost nothing is no fault.
    """
    rows = series.evaluated
    best_train = _optimum([row.train_loss for row in rows], delta)
    best = _optimum([row.validation_loss for row in rows], delta)
    lowest = _optimum([row.validation_loss for row in rows], 0.0)
    if best is None or lowest is None:
        return None
    since = max(best_train + patience_train if best_train is not None else 0, best + patience_validation)
    since = max(since, lowest + patience_train)
    timed, began = any(row.seconds for row in rows), rows[lowest].seconds
    held = [row for row in rows[since:] if not timed or row.seconds - began >= min_seconds]
    if not held:
        return None
    total, spent = rows[-1].seconds, rows[-1].seconds - began
    cost = f", {percent(spent / total)} of the time ({duration(spent)})," if total else ""
    return Fired(
        held[0].step,
        f"the validation loss was lowest ({figure(rows[lowest].validation_loss)}) at evaluation {lowest + 1} of "
        f"{len(rows)}: the {len(rows) - 1 - lowest} since{cost} brought nothing",
        f"set patience={patience_train}, which ends training early, or fewer epochs",
    )


def _optimum(losses: list[float], delta: float) -> int | None:
    """Where the last loss stands that was below the optimum before it by more than `delta`; nan is none."""
    best, at = math.inf, None
    for place, loss in enumerate(losses):
        if loss < best - delta:
            best, at = loss, place
    return at
