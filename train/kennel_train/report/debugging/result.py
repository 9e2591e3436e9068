"""What a report sees of findings and profile: report.json's `debug`, read with care. No sentences, no plot.

A job may have been stopped early: whatever is missing, null, not finite or of unequal length is taken as not measured.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kennel_train.measure.formatting import number
from kennel_train.measure.history import Machine

LARGEST = 1e300  # of a value: beyond it, it counts as infinite, since an axis needs room above it
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class FindingRow:
    """A rule that fired; `epoch` and `step` are None where they are not known."""

    rule: str
    stage: str
    epoch: int | None
    step: int | None
    what: str  # a clause
    fix: str  # a clause
    severity: str  # "error" or "warning"


@dataclass(frozen=True)
class Line:
    """Values at steps, in order; nan and inf are kept, for they are what one looks for; a null is nan."""

    steps: Numbers = field(default_factory=lambda: np.empty(0))  # float64 (n,)
    values: Numbers = field(default_factory=lambda: np.empty(0))  # float64 (n,)

    @property
    def finite(self) -> Numbers:
        """The values with nan for what is not finite."""
        with np.errstate(invalid="ignore"):
            return np.where(np.abs(self.values) < LARGEST, self.values, np.nan)

    @property
    def broken(self) -> NDArray[np.bool_]:
        """Where a value is not finite, bool (n,)."""
        return np.isnan(self.finite)

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Slow:
    """One of the slowest steps; `times` the stage's median (None: not known), `parts` in seconds, the longest first."""

    stage: str
    step: int | None
    epoch: int | None
    seconds: float
    times: float | None
    parts: list[tuple[str, float]]
    first: bool  # of its stage


@dataclass(frozen=True)
class Stage:
    """One stage of the training."""

    name: str
    steps: int
    per_epoch: int
    loss: Line  # nats
    evaluated: dict[str, Line]  # by "train_loss", "validation_loss", "error"
    gradients: dict[str, Line]  # norm by parameter, from input to output
    weights: dict[str, Line]
    seconds: dict[str, float]  # by part of a step, over all steps
    times: dict[str, Line]  # by part of a step, seconds
    slowest: list[Slow]


@dataclass(frozen=True)
class Debug:
    """All of it."""

    rules: list[str]
    findings: list[FindingRow]  # errors first
    stopped_by: str
    stages: list[Stage]
    machine: Machine
    trace: str
    tensors: str


def read(row: Mapping[str, Any]) -> Debug | None:
    """The report's `debug`, or None where there was none."""
    if not row:
        return None
    findings = [_found(given) for given in row.get("findings") or ()]
    return Debug(
        rules=[str(name) for name in row.get("rules") or ()],
        findings=sorted(findings, key=lambda found: found.severity != "error"),
        stopped_by=str(row.get("stopped_by") or ""),
        stages=[_stage(given) for given in row.get("stages") or ()],
        machine=_machine(row.get("machine") or {}),
        trace=str(row.get("trace") or ""),
        tensors=str(row.get("tensors") or ""),
    )


def _found(row: Mapping[str, Any]) -> FindingRow:
    texts = {key: " ".join(str(row.get(key) or "").split()) for key in ("rule", "stage", "what", "fix")}
    severity = "error" if row.get("severity") == "error" else "warning"
    return FindingRow(**texts, epoch=_count(row.get("epoch")), step=_count(row.get("step")), severity=severity)


def _stage(row: Mapping[str, Any]) -> Stage:
    name, times = str(row.get("stage") or ""), row.get("times") or {}
    evaluated = [given for given in row.get("evaluated") or () if number(given.get("step")) is not None]
    steps = [given["step"] for given in evaluated]
    lines = {part: _line(times.get("steps"), values) for part, values in times.items() if part != "steps"}
    return Stage(
        name=name,
        steps=_count(row.get("steps")) or 0,
        per_epoch=_count(row.get("steps_per_epoch")) or 0,
        loss=_curve(row.get("loss"), "values"),
        evaluated={
            key: _line(steps, [given.get(key) for given in evaluated])
            for key in ("train_loss", "validation_loss", "error")
        },
        gradients={layer: _curve(norms, "norm") for layer, norms in (row.get("gradients") or {}).items()},
        weights={layer: _curve(norms, "norm") for layer, norms in (row.get("weights") or {}).items()},
        seconds=_positive(row.get("seconds")),
        times=lines,
        slowest=_slowest(name, row, _median(lines)),
    )


def _slowest(name: str, row: Mapping[str, Any], median: float | None) -> list[Slow]:
    found = []
    for given in row.get("slowest") or ():
        seconds = number(given.get("seconds"))
        if seconds is not None:
            step, parts = _count(given.get("step")), _positive(given.get("parts"))
            ranked = sorted(parts.items(), key=lambda part: -part[1])
            times = seconds / median if median else None
            first = step is not None and step == _count(row.get("first"))
            found.append(Slow(name, step, _count(given.get("epoch")), seconds, times, ranked, first))
    return found


def _median(times: Mapping[str, Line]) -> float | None:
    """Of a step's whole time, seconds."""
    if not times:
        return None
    length = min(len(line) for line in times.values())
    whole = np.sum([np.nan_to_num(line.finite[:length]) for line in times.values()], axis=0)
    return float(np.median(whole)) if length else None


def _machine(row: Mapping[str, Any]) -> Machine:
    """Rows of equal length, as many as all have; a column that is not there is empty."""
    plain = {name: list(row.get(name) or ()) for name, _ in Machine().columns()}
    gpus = {name: [list(one or ()) for one in row.get(name) or ()] for name in ("gpu", "gpu_memory")}
    given = [column for column in (*plain.values(), *gpus["gpu"], *gpus["gpu_memory"]) if column]
    length = min(map(len, given), default=0) if plain["at"] else 0
    kept = [at for at, when in enumerate(plain["at"][:length]) if number(when) is not None]
    made = Machine(interval=number(row.get("interval")) or 1.0)
    for name, column in plain.items():
        cells = [column[at] for at in kept] if column else []
        setattr(made, name, [str(cell or "") for cell in cells] if name == "phase" else _numbers(cells))
    made.gpu, made.gpu_memory = ([_numbers(one[at] for at in kept) for one in gpus[key] if one] for key in gpus)
    return made


def _curve(row: Any, key: str) -> Line:
    return _line(row.get("steps"), row.get(key)) if row else Line()


def _line(steps: Any, values: Any) -> Line:
    pairs = [(step, value) for step, value in zip(steps or (), values or (), strict=False) if number(step) is not None]
    pairs.sort(key=lambda pair: pair[0])
    return Line(np.array([step for step, _ in pairs], float), np.array(_numbers(value for _, value in pairs), float))


def _numbers(values: Iterable[Any]) -> list[float]:
    """Floats, with nan for what is no number at all."""
    return [float(value) if isinstance(value, int | float | np.number) else float("nan") for value in values]


def _positive(row: Any) -> dict[str, float]:
    """The seconds of those parts that took any."""
    found = {str(part): number(value) or 0.0 for part, value in (row or {}).items()}
    return {part: seconds for part, seconds in found.items() if seconds > 0}


def _count(value: Any) -> int | None:
    given = number(value)
    return None if given is None else int(given)
