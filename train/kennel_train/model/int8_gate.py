"""Whether a job keeps an int8 copy of its network: only when it answers as the float one does on the job's own photos.

How the copy is made is `int8`'s. Of the float network only the logits are needed, so that it need not run again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kennel_train.contract import failure
from kennel_train.model import int8

CALIBRATION = 32  # training photos that set the activations' ranges; 16 to 244 made no difference on lite0
JUDGED = 10_000  # training photos at most that the gate looks at
BATCH = 8  # photos a run: more gains nothing on a CPU and costs memory

Index = NDArray[np.int64]


@dataclass(frozen=True)
class GateSplit:
    """One split: its photos as the network sees them, and what float32 says of them."""

    photos: Callable[[Index], NDArray[np.uint8]]  # items (n,) -> uint8 (n, 3, S, S)
    logits: NDArray[np.float32]  # (N, classes)
    labels: NDArray[np.int64]  # (N,)


@dataclass(frozen=True)
class Gate:
    """What an int8 copy is calibrated on and judged by."""

    train: GateSplit
    validation: GateSplit
    stop: Callable[[], bool] = lambda: False  # whether the job was asked to end: int8 is then dropped at once
    # `weight` and `bias` of the head whose logits these are, None for the model's own: one that has learned from the
    # validation photos would be right on all of them.
    head: Mapping[str, NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether int8 is kept, and the figures behind that, where it came so far. Shares are of 1."""

    kept: bool
    reason: str
    photos: int = 0  # judged, of training and validation
    fp32_accuracy: float | None = None  # on validation
    int8_accuracy: float | None = None
    agreement: float | None = None  # of the two networks' first choices, on training and validation


class _StoppedError(Exception): ...


def attempt(model: Path, target: Path, gate: Gate) -> Verdict:
    """Make an int8 copy of `model` and judge it; `target` is there afterwards only if it is kept.

    Whatever goes wrong drops int8 and never the job.

    Raises:
        Exception: out of memory, or the disk is full: what comes after would fail as well.
    """
    try:
        some = spread(len(gate.train.labels), CALIBRATION)
        int8.write(model, target, _batches(gate.train, some, gate.stop))
        verdict = judge(target, gate)
    except _StoppedError:
        verdict = Verdict(False, "the job was asked to end before int8 was judged")
    except Exception as error:
        if failure.disk_full(error) or isinstance(error, MemoryError):
            raise
        line = str(error).strip().split("\n", 1)[0][:300]
        verdict = Verdict(False, f"int8 could not be made or run ({type(error).__name__}: {line})")
    if not verdict.kept:
        target.unlink(missing_ok=True)
    return verdict


def judge(model: Path, gate: Gate) -> Verdict:
    """Compare a network with the float32 one, of which only the logits are needed.

    Kept when accuracy on validation falls by no more than the larger of 0.5 points and one photo, and the first
    choices agree on at least 98% of training photos (`JUDGED` at most, evenly spaced) and validation photos.
    """
    session = int8.session(int8.with_head(model, gate.head) if gate.head else model)
    some = spread(len(gate.train.labels), JUDGED)
    every = np.arange(len(gate.validation.labels))
    on_validation = _first_choices(session, gate.validation, every, gate.stop)
    on_train = _first_choices(session, gate.train, some, gate.stop)
    wanted = gate.validation.logits.argmax(axis=1)
    photos = len(some) + len(every)
    agreed = int((on_validation == wanted).sum() + (on_train == gate.train.logits[some].argmax(axis=1)).sum())
    before, after = (int((choices == gate.validation.labels).sum()) for choices in (wanted, on_validation))
    reasons = []
    if 1000 * (before - after) > max(5 * len(every), 1000):  # whole numbers: 0.005 * 600 need not be 3
        reasons.append(f"it is right on {after} of {len(every)} validation photos, float32 on {before}")
    if 100 * agreed < 98 * photos:
        reasons.append(f"it agrees with float32 on {agreed} of {photos} photos, 98% are needed")
    kept = (
        f"it agrees with float32 on {agreed} of {photos} photos and is right on {after} of {len(every)}, not {before}"
    )
    return Verdict(
        kept=not reasons,
        reason=f"int8 was dropped: {' and '.join(reasons)}" if reasons else f"int8 was kept: {kept}",
        photos=photos,
        fp32_accuracy=before / len(every),
        int8_accuracy=after / len(every),
        agreement=agreed / photos,
    )


def spread(total: int, at_most: int) -> Index:
    """Item numbers, evenly spaced over `total`: int64, all of them where they are no more than `at_most`."""
    return np.arange(min(total, at_most)) * total // max(min(total, at_most), 1)


def _first_choices(
    session: onnxruntime.InferenceSession, part: GateSplit, items: Index, stop: Callable[[], bool]
) -> NDArray[np.int64]:
    """The class of each item, (n,); -1, which is never right, where a logit is not finite."""
    found: list[Index] = [np.empty(0, np.int64)]
    for photos in _batches(part, items, stop):
        logits = np.asarray(session.run(["logits"], {"photos": photos})[0])
        if logits.shape != (len(photos), part.logits.shape[1]):
            raise ValueError(f"it gives logits of shape {logits.shape} for {len(photos)} photos")
        found.append(np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1))
    return np.concatenate(found)


def _batches(part: GateSplit, items: Index, stop: Callable[[], bool]) -> Iterator[NDArray[np.uint8]]:
    for at in range(0, len(items), BATCH):
        if stop():
            raise _StoppedError
        yield np.ascontiguousarray(part.photos(items[at : at + BATCH]))
