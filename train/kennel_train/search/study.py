"""A search's record: which settings were tried and how they did, kept by Optuna in a file that outlives the job.

Optuna, because its samplers and pruners are well tried: no search algorithm is ours. What it chooses is a function of
(seed, number of the trial, earlier results), so that a search that was killed goes on as if it never was.
"""

import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import Trial, TrialState

from kennel import metrics
from kennel.hyperparameters import TYPES, Hyperparameters, Tuning
from kennel.search import search_space
from kennel.search.trials import TrialsTable
from kennel_train.engine import checkpoint
from kennel_train.search import trials
from kennel_train.search.trials import Result

FILE = "trials.journal"
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_STARTUP, _LEARNING = 10, 4  # random trials before TPE has anything to learn from; then so many at once
_REDUCTION = 3  # one trial of three passes a rung (successive halving: Li et al., 2018, take 3 or 4)
_RUNGS = 9  # the first rung is at so small a part of the epochs

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """Optuna's study of one job; only rank 0 has one."""

    def __init__(
        self, folder: Path, scratch: Path, hp: Hyperparameters, space: Mapping[str, Tuning], identity: Mapping[str, str]
    ) -> None:
        """
        Args:
            folder: of the checkpoints; the record is taken up there.
            scratch: a folder of this process's own.

        Raises:
            UserError: the folder's record is another job's.
        """
        self._hp, self._space = hp, dict(space)
        self._own = {name: getattr(hp, name) for name in space}
        folder.mkdir(parents=True, exist_ok=True)
        _repair(folder / FILE)
        lock = JournalFileSymlinkLock(str(scratch / "trials"))  # not beside the file: a killed job would leave it
        storage = JournalStorage(JournalFileBackend(str(folder / FILE), lock_obj=lock))
        halving = optuna.pruners.SuccessiveHalvingPruner(max(1, hp.epochs // _RUNGS), _REDUCTION)
        self._study = optuna.create_study(
            storage=storage, study_name="kennel", direction="maximize", pruner=halving, load_if_exists=True
        )
        theirs = self._study.user_attrs.get("identity")
        if theirs:
            checkpoint.agree(folder, theirs, identity)
        else:
            self._study.set_user_attr("identity", dict(identity))
        self._open = {row.number: Trial(self._study, row._trial_id) for row in self._rows(TrialState.RUNNING)}
        self._began = time.monotonic() - sum(result.seconds for _, result in self.finished().values())

    @property
    def seconds(self) -> float:
        """Since the search began, less the time between its starts."""
        return time.monotonic() - self._began

    def ask(self) -> dict[int, dict[str, Any]]:
        """Number -> settings of the next trials, those that a killed job had begun first; empty at the end.

        Probes are trained side by side: as many as can be chosen without waiting for a result.
        """
        if self._open:
            return {number: dict(trial.params) for number, trial in self._open.items()}
        known = len(self._study.get_trials(deepcopy=False))
        count = self._total() - known
        if self._hp.strategy != "probe":
            count = min(count, 1)
        elif self._hp.search == "tpe":
            count = min(count, _STARTUP - known if known < _STARTUP else _LEARNING)
        if known == 0 and self._hp.search != "grid":
            self._begin_with_own()
        for number in range(known, known + max(0, count)):
            self._study.sampler = self._sampler(number)
            trial = self._study.ask({name: _distribution(name, row) for name, row in self._space.items()})
            self._open[trial.number] = trial
        self._study.sampler = (
            RandomSampler()
        )  # the grid's would stop, at its last point, an `optimize` that is not ours
        return {number: dict(trial.params) for number, trial in self._open.items()}

    def judge(self, number: int, score: float, epoch: int) -> bool:
        """Note a running trial's score after an epoch; whether it is worth going on."""
        trial = self._open[number]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an epoch that a killed job had reported and now has trained again
            trial.report(score, epoch)
        return not trial.should_prune()

    def tell(self, number: int, result: Result) -> None:
        """Close a trial."""
        trial = self._open.pop(number)
        trial.set_user_attr("result", asdict(result))
        if result.state in ("complete", "same"):
            assert result.score is not None
            self._study.tell(trial, result.score)
        else:
            self._study.tell(trial, state=TrialState.PRUNED if result.state == "pruned" else TrialState.FAIL)

    def finished(self) -> dict[int, tuple[dict[str, Any], Result]]:
        """Number -> (settings, result) of every closed trial."""
        rows = self._rows(*_STATES)
        return {row.number: (row.params, Result(**row.user_attrs["result"])) for row in rows}

    def table(self, best: int | None, *, ended: bool) -> TrialsTable:
        """What trials.json and the report say; of trials that are under way only until the search has ended."""
        running = {} if ended else {number: (dict(t.params), Result("running")) for number, t in self._open.items()}
        return TrialsTable(
            objective=metrics.OBJECTIVE.name,
            goal=metrics.OBJECTIVE.goal,
            search=self._hp.search,
            space=trials.space_rows(self._space),
            trials=trials.rows({**self.finished(), **running}),
            importances=self._importances() if ended else {},
            seconds=self.seconds,
            best=best,
            own=self._own_trial(),
        )

    def _rows(self, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _total(self) -> int:
        if self._hp.search != "grid":
            return self._hp.trials
        points = 1
        for values in search_space.grid(self._space, self._hp.trials).values():
            points *= len(values)
        return min(points, self._hp.trials)

    def _begin_with_own(self) -> None:
        """The job's own settings are the first trial, where the space has them: no search then ends below them."""
        if all(_within(self._own[name], row) for name, row in self._space.items()):
            self._study.enqueue_trial(self._own)

    def _own_trial(self) -> int | None:
        """The trial that has the job's own settings."""
        rows = self._study.get_trials(deepcopy=False)
        return next((row.number for row in rows if row.params == self._own), None)

    def _sampler(self, number: int) -> BaseSampler:
        seed = hash((self._hp.seed, number)) % 2**32
        if self._hp.search == "grid":
            return GridSampler(search_space.grid(self._space, self._hp.trials), seed=self._hp.seed)
        if self._hp.search == "tpe":
            return TPESampler(seed=seed, n_startup_trials=_STARTUP)
        return RandomSampler(seed=seed)

    def _importances(self) -> dict[str, float]:
        """Share of the score's variation by hyperparameter (PED-ANOVA: Watanabe et al., 2023); {} if unknown."""
        evaluator = optuna.importance.PedAnovaImportanceEvaluator
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = optuna.importance.get_param_importances(self._study, evaluator=evaluator())
            except (ValueError, RuntimeError, ZeroDivisionError):  # too few trials, or all alike
                return {}
        return {name: float(share) for name, share in found.items() if share == share}


def _repair(path: Path) -> None:
    """Cut off a line that was being written when the job was killed; Optuna would refuse the file."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))


def _distribution(name: str, row: Tuning) -> BaseDistribution:
    if row.values:
        return CategoricalDistribution(row.values)
    if TYPES[name] is int:
        return IntDistribution(int(row.low), int(row.high), log=row.log)
    return FloatDistribution(row.low, row.high, log=row.log)


def _within(value: Any, row: Tuning) -> bool:
    return value in row.values if row.values else row.low <= value <= row.high
