"""trials.json: what a search writes after each trial; its table on a terminal and its report read the same rows."""

from typing import Any, TypedDict

FILE = "trials.json"  # in the job's output/data, beside
BEST = "best-hyperparameters.json"


class TrialRow(TypedDict):
    """One trial."""

    number: int
    hyperparameters: dict[str, Any]  # those that the search chose
    value: float | None  # of the objective, at its best epoch
    state: str  # complete, same, pruned, failed or running
    epoch: int | None  # the best
    metrics: dict[str, float]  # of that epoch, by name
    seconds: float
    curve: list[dict[str, Any]]  # every epoch's stage, number and metrics
    reason: str  # why it failed or was cut short
    same_as: int | None  # the trial whose settings came out equal


class TrialsTable(TypedDict):
    """A search, ended or not."""

    objective: str  # a metric's name
    goal: str  # "Maximize" or "Minimize"
    search: str  # the hyperparameter of that name
    space: dict[str, dict[str, Any]]  # by hyperparameter: values, or low, high and log
    trials: list[TrialRow]  # by number
    importances: dict[str, float]  # by hyperparameter; empty until the search has ended
    seconds: float  # so far
    best: int | None  # a trial's number
    own: int | None  # the trial with the job's own settings
