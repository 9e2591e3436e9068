"""What a training was seen to do, as plain numbers: the rules judge it, the report draws it. Needs no torch.

A `StageHistory` is a stage of a job, or a folder that smdebug wrote; a `Machine` is the host, once a second, all job
long.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

PARTS = ("data wait", "host to device", "forward", "backward", "optimizer", "other")  # of a step's time
LIMIT = 4096  # points of a curve: a longer one is thinned to every second


# One finished epoch, as the loop leaves it to checkpoints, the report, TensorBoard and trials.json.
EpochRow = TypedDict(
    "EpochRow",
    {
        "stage": str,
        "epoch": int,  # of the job
        "stage_epoch": int,
        "learning_rate": NotRequired[float],  # of the head, of SGD
        "l2": NotRequired[float],  # of L-BFGS
        "seconds": float,
        "photos_per_second": float,
        "waited": float,  # share of the seconds in which the device waited for batches
        "train:loss": NotRequired[float],
        "validation:loss": float,
        "validation:accuracy": float,
    },
)


@dataclass
class Curve:
    """A number at some steps, in order; at `LIMIT` points every second one goes, and from then on is left out."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    limit: int = LIMIT
    nan: int | None = field(default=None, repr=False)  # the first step with such a value, be it kept or not
    infinite: int | None = field(default=None, repr=False)
    _every: int = field(default=1, repr=False)
    _seen: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        for step, value in zip(self.steps, self.values, strict=True):
            self._note(step, value)

    def add(self, step: int, value: float) -> None:
        self._note(step, value)
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) >= self.limit:
            del self.steps[1::2], self.values[1::2]
            self._every *= 2

    def _note(self, step: int, value: float) -> None:
        if self.nan is None and math.isnan(value):
            self.nan = step
        if self.infinite is None and math.isinf(value):
            self.infinite = step

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(steps (n,), values (n,))."""
        return np.array(self.steps, np.int64), np.array(self.values, np.float64)

    def __bool__(self) -> bool:
        return bool(self.steps)


@dataclass
class Tensors:
    """One parameter's gradient, or the parameter itself, over the steps at which it was measured."""

    mean_abs: Curve = field(default_factory=Curve)  # mean of absolute values; nan or inf where an element is
    norm: Curve = field(default_factory=Curve)  # Euclidean


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found, after `step`."""

    step: int
    train_loss: float  # mean since the evaluation before, nats
    validation_loss: float  # mean over the split, nats
    error: float = 0.0  # standard error of that mean; 0 where it is not known
    seconds: float = 0.0  # of training so far, this stage


@dataclass
class Seen:
    """Training photos and those of them that were taken for another class, int64 (classes,), of the epoch or so."""

    photos: NDArray[np.int64]
    wrong: NDArray[np.int64]
    step: int = 0  # the last one that is counted in


@dataclass
class StageHistory:
    """One stage of a training; what was not measured is empty."""

    stage: str = ""
    first: int = 0  # the step at which the measuring began; later than 0 in a job that was taken up again
    pretrained: bool = False  # weights come from elsewhere: their spread is no fault of an initialization
    class_names: tuple[str, ...] = ()
    device: str = "cpu"  # or "cuda"
    cores: int = 0  # that the container may use
    loaders: int = 0  # threads that make batches
    loss: Curve = field(default_factory=Curve)  # of each training step, mean over its photos, nats
    evaluated: list[Evaluated] = field(default_factory=list)
    gradients: dict[str, Tensors] = field(default_factory=dict)  # by parameter, as the optimizer gets them
    weights: dict[str, Tensors] = field(default_factory=dict)
    gradient_spread: dict[str, Curve] = field(default_factory=dict)  # 95th less 5th percentile, in the first steps
    activation_variance: dict[str, Curve] = field(default_factory=dict)  # of what activations take in, first steps
    seen: Seen | None = None
    times: dict[str, Curve] = field(default_factory=dict)  # by part of `PARTS`, seconds of each step
    seconds: dict[str, float] = field(default_factory=dict)  # by part of `PARTS`, sum over all steps
    slowest: list[tuple[float, int, dict[str, float]]] = field(default_factory=list)  # (seconds, step, by part), a few
    idle: float = 0.0  # seconds since the last step ended
    ended: bool = False  # the stage is over: what waits for more may judge by what there is
    machine: "Machine" = field(default_factory=lambda: Machine())  # while this stage ran

    def lost(self) -> float:
        """The share of all steps' time in which the device waited for a batch, 0–1."""
        return self.seconds.get("data wait", 0.0) / (sum(self.seconds.values()) or 1.0)


@dataclass
class Machine:
    """The container, sampled about once a second: rows of equal length, in order. Percentages are 0–100."""

    at: list[float] = field(default_factory=list)  # seconds since the job's start
    phase: list[str] = field(default_factory=list)  # of the job
    cpu: list[float] = field(default_factory=list)  # % of all cores that the container may use
    memory: list[float] = field(default_factory=list)  # MB, of this job's processes
    read: list[float] = field(default_factory=list)  # MB/s from disk
    written: list[float] = field(default_factory=list)  # MB/s to disk
    received: list[float] = field(default_factory=list)  # MB/s from the network
    sent: list[float] = field(default_factory=list)  # MB/s to the network
    gpu: list[list[float]] = field(default_factory=list)  # % busy, one list for each GPU
    gpu_memory: list[list[float]] = field(default_factory=list)  # % of its memory in use, one list for each GPU
    interval: float = 1.0  # seconds between two samples

    def during(self, phase: str) -> "Machine":
        """The samples of one phase."""
        kept = [at for at, name in enumerate(self.phase) if name == phase]
        made = Machine(interval=self.interval)
        for name, column in self.columns():
            setattr(made, name, [column[at] for at in kept])
        made.gpu, made.gpu_memory = ([[c[at] for at in kept] for c in cs] for cs in (self.gpu, self.gpu_memory))
        return made

    def columns(self) -> Iterator[tuple[str, list[Any]]]:
        """(name, values) of all but the GPUs'."""
        for name in ("at", "phase", "cpu", "memory", "read", "written", "received", "sent"):
            yield name, getattr(self, name)
