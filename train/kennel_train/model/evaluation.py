"""What a split's logits say: accuracy, precision and recall by class, confusion, and how far confidence can be trusted.

Arrays in, plain data out: no torch, no files. scipy's bounded scalar minimizer finds the temperature: no step size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

COLDEST, HOTTEST = 0.05, 20.0  # temperatures beyond these are a sign of broken logits, not of calibration
BINS = 15  # of confidence, as in Guo et al. 2017
DENSE = 100  # classes up to which the confusion matrix goes into the JSON; 1,000 would make it 10 MB

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class SplitLogits:
    """A split's logits float32 (N, classes) and labels int64 (N,), by photo number; of all ranks, or of this one."""

    logits: Logits
    labels: Labels


@dataclass(frozen=True)
class ClassReport:
    """One class: how many photos it has, and the shares that are right; None where nothing was there to count."""

    name: str
    photos: int
    precision: float | None  # of the photos that were called this
    recall: float | None  # of the photos that are this


@dataclass(frozen=True)
class Evaluation:
    """One split, judged once. Shares are of 1; `loss` is the mean cross-entropy in nats before the temperature."""

    photos: int
    loss: float
    top1: float
    top5: float | None  # None with five classes or fewer, where it is always 1
    classes: tuple[ClassReport, ...]
    confusion: NDArray[np.int64]  # (classes, classes), rows are the truth, columns the prediction
    temperature: float
    calibration_error: float  # expected, before the temperature
    calibration_error_scaled: float  # and after it

    def as_json(self) -> dict[str, Any]:
        """Plain data without NaN: `confusion` is a list of rows, or None with more than `DENSE` classes."""
        numbers = ("loss", "top1", "top5", "temperature", "calibration_error", "calibration_error_scaled")
        dense = len(self.classes) <= DENSE
        return {
            "photos": self.photos,
            **{name: _plain(getattr(self, name)) for name in numbers},
            "classes": {
                c.name: {"photos": c.photos, "precision": c.precision, "recall": c.recall} for c in self.classes
            },
            "confusion": self.confusion.tolist() if dense else None,
        }


def calibrate(logits: Logits, labels: Labels) -> float:
    """The temperature to divide logits by, so that a confidence of 0.8 is right 80% of the time.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599): least cross-entropy on held-out photos. Where every photo
    is right, that has no minimum, the colder the better; so the truth is taken for 1 - 1/(N + 2) as Platt (1999) does:
    N photos never prove more certainty than that. A single photo can thus sharpen to 2/3 and no further.

    Args:
        logits: float32 (N, classes), of validation photos.
        labels: int64 (N,).

    Returns:
        Within `COLDEST` to `HOTTEST`; 1.0 when no temperature lessens the cross-entropy, or with logits not finite.
    """
    if not len(labels) or not np.isfinite(logits).all():
        return 1.0
    wide = logits.astype(np.float64)
    doubt = 1.0 / (len(labels) + 2)

    def smoothed(log_temperature: float) -> float:
        shares = log_softmax(wide / math.exp(log_temperature), axis=1)
        right = shares[np.arange(len(labels)), labels]
        wrong = (shares.sum(axis=1) - right) / max(shares.shape[1] - 1, 1)
        return float(-((1 - doubt) * right + doubt * wrong).mean())

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found = math.exp(minimize_scalar(smoothed, bounds=bounds, method="bounded").x)
    return found if _cross_entropy(wide / found, labels) < _cross_entropy(wide, labels) else 1.0


def evaluate(logits: Logits, labels: Labels, class_names: Sequence[str], temperature: float) -> Evaluation:
    """Judge a split.

    Args:
        logits: float32 (N, classes), N at least 1, before the temperature.
        labels: int64 (N,).
    """
    count = len(class_names)
    predicted = logits.argmax(axis=1)
    right = predicted == labels
    confusion = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    wide = logits.astype(np.float64)
    return Evaluation(
        photos=len(labels),
        loss=_cross_entropy(wide, labels),
        top1=float(right.mean()),
        top5=float((_rank(logits, labels) < 5).mean()) if count > 5 else None,
        classes=_classes(confusion, class_names),
        confusion=confusion,
        temperature=temperature,
        calibration_error=_calibration_error(wide, right),
        calibration_error_scaled=_calibration_error(wide / temperature, right),
    )


def _classes(confusion: NDArray[np.int64], names: Sequence[str]) -> tuple[ClassReport, ...]:
    columns = zip(names, confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0), strict=True)
    return tuple(
        ClassReport(name, int(truly), _share(int(hits), int(called)), _share(int(hits), int(truly)))
        for name, hits, truly, called in columns
    )


def _rank(logits: Logits, labels: Labels) -> NDArray[np.int64]:
    """The place of each label among the classes, 0 is the best; the earlier of two equal classes comes first."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    before: NDArray[np.int64] = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return before


def _cross_entropy(logits: NDArray[np.float64], labels: Labels) -> float:
    with np.errstate(invalid="ignore"):  # of a training that diverged: the loss is then NaN, which says so
        return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def _calibration_error(logits: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error: |accuracy - confidence| of equally wide bins of confidence, weighted by photos."""
    with np.errstate(invalid="ignore"):
        confidence = np.exp(log_softmax(logits, axis=1).max(axis=1))
    if not np.isfinite(confidence).all():
        return math.nan
    place = np.ceil(confidence * BINS).astype(np.int64).clip(1, BINS) - 1  # (low, high], as in the paper
    gaps = np.bincount(place, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _plain(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
