"""What a report says first: sentences, rankings and shares drawn from a job's figures. Knows no HTML and no plot."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kennel_train.measure.formatting import number

WAITED_LITTLE, WAITED_MUCH = 0.05, 0.2  # shares of an epoch: below the one the device is the limit, above not
Matrix = NDArray[np.int64]
_SIGMA = 1.959964  # of a normal distribution: 95% lie within


@dataclass(frozen=True)
class Pair:
    """Photos of `truth` that were taken for `predicted`; `share` of all of `truth`'s."""

    truth: str
    predicted: str
    photos: int
    share: float


@dataclass(frozen=True)
class ClassRow:
    """One class of a split; `number` is its place in the confusion matrix, from 1."""

    number: int
    name: str
    photos: int
    recall: float | None
    precision: float | None
    taken_for: list[Pair]  # at most three, most photos first


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix that is not 0; `share` of its row."""

    truth: int
    predicted: int
    photos: int
    share: float


@dataclass(frozen=True)
class Wait:
    """One stage: what part of its time the device waited for input (None: not known), and its speed."""

    stage: str
    waited: float | None
    seconds: float
    photos_per_second: float


def chief(evaluation: Mapping[str, Any]) -> str | None:
    """The split that a model is judged by: test, which chose nothing, before validation, which chose the epoch."""
    return next((split for split in ("test", "validation", *evaluation) if split in evaluation), None)


def interval(share: float, photos: int) -> tuple[float, float]:
    """Where the true share lies in 95 of 100 cases (Wilson 1927): what `photos` photos can tell at all."""
    z = _SIGMA**2 / photos
    middle, half = share + z / 2, _SIGMA * math.sqrt(share * (1 - share) / photos + z / 4 / photos)
    return max(0.0, (middle - half) / (1 + z)), min(1.0, (middle + half) / (1 + z))


def matrix(row: Mapping[str, Any]) -> Matrix:
    """A split's confusion matrix (classes, classes), rows truth; (0, 0) where there is none."""
    given = row.get("confusion")
    return np.empty((0, 0), np.int64) if given is None else np.asarray(given, dtype=np.int64)


def cells(confusion: Matrix, limit: int) -> list[Cell]:
    """The diagonal, then the `limit` cells off it with most photos, largest last, so that they are drawn on top."""
    totals = confusion.sum(1)
    truths, predictions = np.nonzero(confusion)
    wrong = np.flatnonzero(truths != predictions)
    order = wrong[np.argsort(confusion[truths[wrong], predictions[wrong]], kind="stable")]
    kept = np.concatenate([np.flatnonzero(truths == predictions), order[max(0, len(order) - limit) :]])
    places = zip(truths[kept].tolist(), predictions[kept].tolist(), strict=True)
    return [Cell(t, p, int(confusion[t, p]), float(confusion[t, p] / totals[t])) for t, p in places]


def confused(names: Sequence[str], confusion: Matrix, limit: int) -> list[Pair]:
    """The pairs (truth, predicted) that were mixed up most often."""
    ranked = reversed([cell for cell in cells(confusion, limit) if cell.truth != cell.predicted])
    return [Pair(names[cell.truth], names[cell.predicted], cell.photos, cell.share) for cell in ranked]


def classes(row: Mapping[str, Any]) -> list[ClassRow]:
    """A split's classes, the least recall first, those without photos last."""
    confusion, entries = matrix(row), row.get("classes") or {}
    names = list(entries)
    found = []
    for at, (name, entry) in enumerate(entries.items()):
        line = confusion[at] if at < len(confusion) else np.empty(0, np.int64)
        others = [other for other in np.argsort(-line, kind="stable")[:4].tolist() if other != at and line[other]]
        taken = [Pair(name, names[other], int(line[other]), float(line[other] / line.sum())) for other in others[:3]]
        recall, precision = number(entry.get("recall")), number(entry.get("precision"))
        found.append(ClassRow(at + 1, name, int(entry.get("photos") or 0), recall, precision, taken))
    return sorted(found, key=lambda c: (c.recall is None, c.recall or 0.0, -c.photos))


def waits(epochs: Sequence[Mapping[str, Any]]) -> list[Wait]:
    """Each stage's wait, weighted by the epochs' seconds."""
    found = []
    for stage in dict.fromkeys(str(epoch.get("stage", "")) for epoch in epochs):
        rows = [epoch for epoch in epochs if str(epoch.get("stage", "")) == stage]
        seconds = [number(row.get("seconds")) or 0.0 for row in rows]
        speeds = [number(row.get("photos_per_second")) or 0.0 for row in rows]
        known = [(number(row.get("waited")), s) for row, s in zip(rows, seconds, strict=True)]
        timed = [(share, s) for share, s in known if share is not None and s > 0]
        total = sum(s for _, s in timed)
        waited = sum(share * s for share, s in timed) / total if total else None
        all_seconds = sum(seconds)
        speed = sum(p * s for p, s in zip(speeds, seconds, strict=True)) / all_seconds if all_seconds else 0.0
        found.append(Wait(stage, waited, all_seconds, speed))
    return found


def waiting(wait: Wait) -> str:
    """A stage's wait as a sentence."""
    if wait.waited is None:
        return f"{wait.stage}: how long the device waited for photos is not known."
    said = f"{wait.stage}: the device waited {wait.waited:.0%} of the time for photos"
    if wait.waited < WAITED_LITTLE:
        return f"{said}; it was itself the limit, as it should be."
    if wait.waited < WAITED_MUCH:
        return f"{said}; more CPU cores would help a little."
    return f"{said}: reading them was the limit, so an instance with more CPU cores would train faster."


def calibration(row: Mapping[str, Any], temperature: float, *, fitted: bool) -> str:
    """What the temperature did to a split's probabilities, in words; empty where nothing was measured.

    Args:
        fitted: the temperature was chosen on this very split.
    """
    before, after = number(row.get("calibration_error")), number(row.get("calibration_error_scaled"))
    if before is None or after is None:
        return ""
    habit = "too sure of itself" if temperature > 1 else "not sure enough of itself"
    if abs(temperature - 1) < 0.02:
        habit = "about as sure as it should be"
    said = (
        f"As trained, the model was {habit}: what it said and how often it was right differed by "
        f"{100 * before:.1f} points on average. Its logits are now divided by a temperature of {temperature:.3g}, "
        f"and the difference is {100 * after:.1f} points."
    )
    return (
        f"{said} The temperature was chosen on these photos, so new ones may fare a little worse." if fitted else said
    )


def look_at(evaluation: Mapping[str, Any], audit: Mapping[str, Any], waits: Sequence[Wait]) -> Iterator[str]:
    """What deserves a look, most important first; a sentence each."""
    findings = audit.get("findings") or []
    for severity in ("error", "warning"):
        rows = [str(finding.get("what", "")) for finding in findings if finding.get("severity") == severity]
        if rows:
            more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
            yield f"The data audit has {len(rows)} {severity}{'s' * (len(rows) > 1)}: {rows[0]}{more}."
    split = chief(evaluation)
    if split:
        yield from _weaknesses(evaluation[split])
    for wait in waits:
        if wait.waited is not None and wait.waited >= WAITED_MUCH:
            yield f"In {waiting(wait)}"


def _weaknesses(row: Mapping[str, Any]) -> Iterator[str]:
    ranked = [entry for entry in classes(row) if entry.recall is not None]
    pairs = confused(list(row.get("classes") or {}), matrix(row), 1)
    for pair in pairs:
        yield (
            f"“{pair.truth}” is taken for “{pair.predicted}” most often: {pair.photos} "
            f"photo{'s' * (pair.photos > 1)}, {pair.share:.0%} of all “{pair.truth}”."
        )
    if len(ranked) > 2 and (worst := ranked[0]).recall is not None and worst.recall < 1:
        yield f"The weakest class is “{worst.name}”: {worst.recall:.0%} of its {worst.photos} photos are recognized."
    absent = sum(entry.recall is None for entry in classes(row))
    if absent:
        yield f"{absent} class{'es have' if absent > 1 else ' has'} no photo to be judged by."
