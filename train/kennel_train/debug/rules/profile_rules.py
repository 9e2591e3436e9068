"""Rules about time and the machine: waiting for batches, idle GPUs, growing memory, a training that stands still.

Each is AWS's of the same name, with what it took to keep it silent on a healthy training; `table` has them all.
"""

import math
from typing import Annotated

import numpy as np

from kennel_train.debug.rules.findings import Fired
from kennel_train.debug.rules.parameters import OURS, Amount, Count, Percent
from kennel_train.measure.formatting import duration, percent
from kennel_train.measure.history import StageHistory

_STEPS = 20  # the first of them are slow everywhere
_AWS_INTERVAL = 0.5  # seconds between AWS's samples, by which `patience` and `window` are counted
_SHORT = 60.0  # seconds of samples that are enough to judge a stage that is over


def dataloader(
    series: StageHistory,
    *,
    min_threshold: Amount = 70.0,
    max_threshold: Amount = 200.0,
    min_lost: Annotated[Percent, OURS] = 10.0,
) -> Fired | None:
    """The device waits for batches.

    AWS's: threads that load photos are fewer than `min_threshold` percent of the cores, or more than `max_threshold`.
    Here only where it hurts: waiting has taken more than `min_lost` percent of all steps' time, 20 steps at least;
    and then, too, where threads are as many as cores: those are too slow.
    """
    steps = series.times["data wait"].steps if "data wait" in series.times else series.loss.steps
    lost = 100 * series.lost()
    if len(steps) < _STEPS or not lost > min_lost:
        return None
    what = f"the device waited {percent(lost / 100)} of the time for batches"
    slow = (
        "choose an instance with more CPU cores for each GPU, or smaller photo files (resized to what image_size needs)"
    )
    share = 100 * series.loaders / series.cores if series.cores else math.nan
    counts = f"threads that load photos: {series.loaders}, CPU cores: {series.cores}"
    fix = f"they are as many as the cores and too slow: {slow}"
    if math.isnan(share) or not series.loaders:
        counts, fix = "", slow
    elif share < min_threshold:
        fix = f"use a thread for each core, since fewer leave cores idle, or {slow}"
    elif share > max_threshold:
        fix = f"use a thread for each core, since more get into each other's way, or {slow}"
    return Fired(_lost_since(series, min_lost, steps[_STEPS - 1]), what + (f" ({counts})" if counts else ""), fix)


def _lost_since(series: StageHistory, min_lost: float, step: int) -> int:
    """The step since which so much of all time so far was lost, by the curves; `step` where they do not tell."""
    curves = [curve for curve in series.times.values() if curve]
    count = min((len(curve.values) for curve in curves), default=0)
    if "data wait" not in series.times or count < _STEPS:
        return step
    total = np.cumsum(np.sum([curve.values[:count] for curve in curves], axis=0))
    waited = np.cumsum(series.times["data wait"].values[:count])
    below = np.flatnonzero(~(100 * waited > min_lost * total))
    at = max(_STEPS - 1, int(below[-1]) + 1 if len(below) else 0)
    return series.times["data wait"].steps[min(at, count - 1)]


def batch_size(
    series: StageHistory,
    *,
    cpu_threshold_p95: Percent = 70.0,
    gpu_threshold_p95: Percent = 70.0,
    gpu_memory_threshold_p95: Percent = 70.0,
    patience: Count = 1000,
    window: Count = 500,
) -> Fired | None:
    """GPUs, their memory and the CPU all have room: batches are too small for this instance.

    AWS's: over the last `window` samples the 95th percentiles of all three are below their thresholds, after
    `patience` samples, two a second. A stage that is over is judged by a minute of samples, too.
    """
    machine = series.machine
    kept = _window(series, patience, window)
    if not kept or not machine.gpu:
        return None
    rows = [machine.cpu, *machine.gpu, *machine.gpu_memory]
    high = np.percentile([row[-kept:] for row in rows], 95, axis=1)
    gpus = len(machine.gpu)
    cpu, busy, memory = high[0], high[1 : gpus + 1].max(), high[gpus + 1 :].max(initial=0.0)
    if not (cpu < cpu_threshold_p95 and busy < gpu_threshold_p95 and memory < gpu_memory_threshold_p95):
        return None
    return Fired(
        _step(series, len(machine.at) - kept),
        f"the instance has room: 95% of the time at most {busy:.0f}% of the GPU, {memory:.0f}% of its memory and "
        f"{cpu:.0f}% of the CPU were in use",
        "raise batch_size (and learning_rate with it), or choose a smaller instance",
    )


def low_gpu_utilization(
    series: StageHistory,
    *,
    threshold_p95: Percent = 70.0,
    threshold_p5: Percent = 10.0,
    window: Count = 500,
    patience: Count = 1000,
) -> Fired | None:
    """A GPU is idle most of the time, or works by fits and starts.

    AWS's: over the last `window` samples of a GPU the 95th percentile is below `threshold_p95` (idle), or it is not
    and the 5th is below `threshold_p5` (fluctuates), after `patience` samples, two a second. A stage that is over is
    judged by a minute of samples, too.
    """
    kept = _window(series, patience, window)
    if not kept or not series.machine.gpu:
        return None
    found = []
    lows, highs = np.percentile([gpu[-kept:] for gpu in series.machine.gpu], (5, 95), axis=1)
    for number, (low, high) in enumerate(zip(lows, highs, strict=True)):
        if high < threshold_p95:
            found.append(f"GPU {number} is hardly used: 95% of the time at most {high:.0f}%")
        elif low < threshold_p5:
            found.append(f"GPU {number} works by fits and starts: {low:.0f}% to {high:.0f}%")
    if not found:
        return None
    lost = f"; the device waited {percent(series.lost())} of the steps' time for batches" if series.seconds else ""
    return Fired(
        _step(series, len(series.machine.at) - kept),
        "; ".join(found) + lost,
        "where it waits for batches, choose an instance with more CPU cores; else raise batch_size, or choose a "
        "smaller GPU",
    )


def gpu_memory_increase(
    series: StageHistory,
    *,
    increase: Percent = 5.0,
    patience: Count = 1000,
    window: Count = 10,
) -> Fired | None:
    """A GPU's memory fills up while training goes on.

    AWS's: the mean of the last `window` samples is above the mean of those before by more than `increase` points of
    percent; or above the mean of the first ones judged, since a leak is slow. The first `patience` samples, two a
    second, are not judged: memory fills in a stage's first steps. Of a stage that is over, and was shorter, the second
    half is judged where it has a minute of samples.
    """
    machine, width = series.machine, _samples(series, window)
    skipped = _samples(series, patience)
    if series.ended and len(machine.at) < skipped + 2 * width and len(machine.at) * machine.interval >= _SHORT:
        skipped = len(machine.at) // 2
    if len(machine.at) < skipped + 2 * width:
        return None
    for number, memory in enumerate(machine.gpu_memory):
        first, last = sum(memory[skipped : skipped + width]) / width, sum(memory[-width:]) / width
        base = min(first, sum(memory[-2 * width : -width]) / width)
        if last - base > increase:
            means = np.convolve(memory[skipped:], np.ones(width) / width, "valid")
            at = skipped + int(np.argmax(means - base > increase)) + width - 1
            return Fired(
                _step(series, at),
                f"the memory of GPU {number} fills up: from {base:.0f}% to {last:.0f}% while training went on",
                "lower batch_size or image_size before it is full; in a script of your own, keep no tensors "
                "from step to step",
            )
    return None


def stalled_training(series: StageHistory, *, threshold: Amount = 1800.0) -> Fired | None:
    """No step has ended for `threshold` seconds."""
    if not series.idle > threshold:
        return None
    return Fired(
        series.loss.steps[-1] if series.loss else series.first,
        f"no step has ended for {duration(series.idle)}",
        "stop the job and look at the log's last lines: a channel that no longer delivers, a full disk, or a host that "
        "waits for another",
        "error",
    )


def _samples(series: StageHistory, count: int) -> int:
    """So many of AWS's samples, in ours."""
    return max(1, math.ceil(count * _AWS_INTERVAL / series.machine.interval))


def _window(series: StageHistory, patience: int, window: int) -> int:
    """How many of the newest samples are judged; 0: there are too few yet."""
    count = len(series.machine.at)
    short = series.ended and count * series.machine.interval >= _SHORT
    return min(count, _samples(series, window)) if short or count >= _samples(series, patience) else 0


def _step(series: StageHistory, sample: int) -> int:
    """About the step at which a sample was taken, as if all steps had taken as long."""
    last = series.loss.steps[-1] if series.loss else series.first
    return series.first + (last - series.first) * sample // max(1, len(series.machine.at))
