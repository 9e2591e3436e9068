"""What the trials of a search did, and how that is written: trials.json, trials.csv, best-hyperparameters.json."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kennel import files, metrics
from kennel.hyperparameters import OF_A_SEARCH, Hyperparameters, Tuning, text
from kennel.metrics import Metric
from kennel.search.trials import BEST, FILE, TrialRow, TrialsTable
from kennel_train.engine.progress import Best
from kennel_train.measure.history import EpochRow

CSV = "trials.csv"
_MEASURED = tuple(metric.name for metric in (metrics.TRAIN_LOSS, metrics.VALIDATION_LOSS, metrics.VALIDATION_ACCURACY))


@dataclass
class Result:
    """How one trial did."""

    state: str = "complete"  # or "pruned", "failed", "same"
    score: float | None = None  # what the search maximizes
    epoch: int | None = None  # the best
    metrics: dict[str, float] = field(default_factory=dict)  # of that epoch, by name
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)  # every epoch's stage, number and metrics
    reason: str = ""  # why it failed or was cut short
    same_as: int | None = None  # the trial whose settings came out equal

    @classmethod
    def of(cls, best: Best, rows: list[EpochRow], seconds: float, photos: int) -> "Result":
        """A trial that was not cut short.

        Args:
            photos: of validation.
        """
        kept = ("epoch", "stage", *_MEASURED)
        curve = [{key: row[key] for key in kept if key in row} for row in map(dict[str, Any], rows)]
        values = {metric.name: value for metric, value in best.values.items()}
        return cls("complete", score(best.values, photos), best.epoch, values, seconds, curve)


def score(values: Mapping[Metric, float], photos: int) -> float:
    """Accuracy, and among equals the less loss the better, which never counts for as much as one photo."""
    loss = values[metrics.VALIDATION_LOSS]
    return values[metrics.VALIDATION_ACCURACY] - 0.5 / photos * loss / (1 + loss)


def rows(results: Mapping[int, tuple[Mapping[str, Any], Result]]) -> list[TrialRow]:
    """The rows of trials.json, by number."""
    made: list[TrialRow] = []
    for number, (settings, result) in sorted(results.items()):
        row = TrialRow(
            number=number,
            hyperparameters=dict(settings),
            value=result.metrics.get(metrics.OBJECTIVE.name),
            state=result.state,
            epoch=result.epoch,
            metrics=result.metrics,
            seconds=result.seconds,
            curve=result.curve,
            reason=result.reason,
            same_as=result.same_as,
        )
        made.append(row)
    return made


def space_rows(space: Mapping[str, Tuning]) -> dict[str, dict[str, Any]]:
    """The space of trials.json."""
    return {name: _range(row) for name, row in space.items()}


def write(folder: Path, made: TrialsTable) -> None:
    """trials.json and trials.csv.

    Raises:
        OSError: the disk is full.
    """
    files.put(folder / FILE, json.dumps(made, indent=1))
    lines = io.StringIO()
    names = list(made["space"])
    sheet = csv.writer(lines)
    sheet.writerow(["trial", "state", *names, "epoch", *_MEASURED, "seconds", "same_as", "reason"])
    for row in made["trials"]:
        settings = [row["hyperparameters"].get(name, "") for name in names]
        found = [row["metrics"].get(name, "") for name in _MEASURED]
        about = [row["seconds"], row["same_as"], row["reason"]]
        sheet.writerow([row["number"], row["state"], *settings, row["epoch"], *found, *about])
    files.put(folder / CSV, lines.getvalue())


def write_best(folder: Path, hp: Hyperparameters) -> None:
    """best-hyperparameters.json: a hyperparameters.json that trains one model as the best trial did.

    Raises:
        OSError: the disk is full.
    """
    rows = {name: text(value) for name, value in asdict(hp).items() if name not in OF_A_SEARCH}
    files.put(folder / BEST, json.dumps(rows, indent=1))


def _range(row: Tuning) -> dict[str, Any]:
    return {"values": list(row.values)} if row.values else {"low": row.low, "high": row.high, "log": row.log}
