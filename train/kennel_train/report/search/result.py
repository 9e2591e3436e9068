"""A search as a report sees it: trials.json's trials in order, and what is derived from them. No sentences, no plot."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kennel.search.trials import TrialRow, TrialsTable
from kennel_train.measure.formatting import figure, number, percent

REASON = 240  # characters of a trial's reason in the page; report.json has it all


@dataclass(frozen=True)
class TrialResult:
    """One set of hyperparameters and what came of it."""

    number: int
    state: str
    value: float | None  # of the objective; of a trial that came out the same as another, the other's
    settings: dict[str, Any]  # in the order of the search's space
    reason: str
    row: TrialRow


@dataclass(frozen=True)
class SearchResult:
    """All trials of a job, and how they are compared."""

    objective: str
    maximize: bool
    trials: list[TrialResult]  # the best first, those without a result after them, the failed ones last
    best: TrialResult | None
    importances: list[tuple[str, float]]  # largest first
    photos: int | None  # of validation, where a result is an accuracy on them
    row: TrialsTable

    @property
    def space(self) -> dict[str, Any]:
        return dict(self.row.get("space") or {})

    @property
    def own(self) -> TrialResult | None:
        """The one with the job's own settings, where there is one."""
        return next((trial for trial in self.trials if trial.number == self.row.get("own")), None)

    @property
    def is_share(self) -> bool:
        return self.objective.endswith("accuracy")

    @property
    def words(self) -> str:
        """The objective, for people."""
        return self.objective.replace(":", " ")

    @property
    def ranked(self) -> list[TrialResult]:
        """All but the failed ones."""
        return [trial for trial in self.trials if trial.state != "failed"]

    @property
    def failed(self) -> list[TrialResult]:
        return [trial for trial in self.trials if trial.state == "failed"]

    @property
    def finished(self) -> list[TrialResult]:
        """Those with a result that can be compared, the best first."""
        return [t for t in self.trials if t.value is not None and (t.state == "complete" or t is self.best)]

    @property
    def flat(self) -> bool:
        """All results are equal, so that the best is best by chance."""
        return len({trial.value for trial in self.finished}) < 2

    @property
    def measured(self) -> list[str]:
        """The metrics of trials beside the objective."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.row.get("metrics") or ())
        return [name for name in names if name != self.objective]

    def said(self, value: Any) -> str:
        """A value of the objective, for people."""
        return _said(self.objective, value)

    def metric(self, trial: TrialResult, name: str) -> str:
        """Another figure of a trial, for people."""
        return _said(name, (trial.row.get("metrics") or {}).get(name))


def read(row: TrialsTable | None, photos: int | None = None) -> SearchResult | None:
    """The search of a trials.json, or None where there was none."""
    if not row:
        return None
    maximize, best = row.get("goal") != "Minimize", row.get("best")
    values = {trial["number"]: number(trial.get("value")) for trial in row.get("trials") or ()}
    trials = [_trial(trial, values, list(row.get("space") or ())) for trial in row.get("trials") or ()]

    def rank(trial: TrialResult) -> tuple[bool, bool, bool, float, int]:
        value = -(trial.value or 0.0) if maximize else trial.value or 0.0
        return trial.number != best, trial.state == "failed", trial.value is None, value, trial.number

    known = [(name, number(share) or 0.0) for name, share in (row.get("importances") or {}).items()]
    return SearchResult(
        objective=str(row.get("objective", "")),
        maximize=maximize,
        trials=sorted(trials, key=rank),
        best=next((trial for trial in trials if trial.number == best), None),
        importances=sorted(known, key=lambda pair: -pair[1]),
        photos=photos,
        row=row,
    )


def _trial(row: TrialRow, values: Mapping[Any, float | None], names: list[str]) -> TrialResult:
    state, twin = str(row.get("state", "")), row.get("same_as")
    value, settings = values[row["number"]], row.get("hyperparameters") or {}
    if state == "same" and value is None:
        value = values.get(twin)
    reason = " ".join(str(row.get("reason") or "").split())
    reason = reason if len(reason) <= REASON else reason[: REASON - 1] + "…"
    return TrialResult(row["number"], state, value, {name: settings.get(name) for name in names}, reason, row)


def _said(metric: str, value: Any) -> str:
    return percent(value) if metric.endswith("accuracy") else figure(value)
