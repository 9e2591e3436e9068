"""Many trials in one job: they share the decoded photos and the features, and the best is trained to the end.

Probes of one batch size are trained side by side (`stacked_heads`), fine-tunes one after the other, cut short by
successive halving. `study` keeps what was tried, and says what is tried next.
"""

import copy
import dataclasses
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kennel import metrics
from kennel.errors import UserError
from kennel.hyperparameters import OF_A_SEARCH, OF_SGD, Hyperparameters, Tuning
from kennel.metrics import Metric
from kennel.search.trials import TrialsTable
from kennel_train.contract import failure
from kennel_train.contract.stop import GracePeriod, TrialPruner
from kennel_train.engine import loop, micro_batch_size, strategies
from kennel_train.engine.checkpoint import Checkpoints
from kennel_train.engine.progress import Best, Run, StagePlan
from kennel_train.engine.strategies import Trained, Training
from kennel_train.measure.history import EpochRow
from kennel_train.search import stacked_heads, trials
from kennel_train.search.stacked_heads import Head
from kennel_train.search.study import Study
from kennel_train.search.trials import Result
from kennel_train.tracking.tracker import Tracker

log = logging.getLogger("kennel")

Settings = dict[int, dict[str, Any]]  # number of a trial -> hyperparameters that are its own


class Search:
    """One job's search; all ranks run it alike, rank 0 asks and writes."""

    def __init__(
        self,
        job: Training,
        space: Mapping[str, Tuning],
        identity: Mapping[str, str],
        scratch: Path,
        output: Path,
        tracker: Tracker,
    ) -> None:
        """
        Args:
            identity: what a trial's checkpoint must agree on besides its own settings.
            scratch: a folder of this process's own.
            output: where the table of trials is written.
        """
        self._job, self._debugger = dataclasses.replace(job, debugger=None), job.debugger  # it watches the model only
        self._space, self._identity, self._output, self._tracker = space, dict(identity), output, tracker
        self._initial = {key: value.cpu().clone() for key, value in job.classifier.state_dict().items()}
        self._photos = len(job.splits.parts["train"].photos)
        self._judges = len(job.splits.parts["validation"].photos)
        self._best: tuple[float, int, Hyperparameters] | None = None
        self._seen: dict[Hyperparameters, int] = {}
        self._study: Study | None = None
        if job.context.cluster.is_rank_zero:
            asked = ("time_budget",) if job.context.hp.search == "grid" else ("time_budget", "trials")  # may change
            known = {key: value for key, value in identity.items() if key not in asked}
            self._study = Study(job.checkpoints.folder, scratch, job.context.hp, space, known)

    def run(self) -> tuple[Training, Trained, TrialsTable | None]:
        """All trials, then the best.

        Returns:
            the job with the best trial's hyperparameters, what it trained, and the table of trials.

        Raises:
            UserError: no trial came to an end.
        """
        self._restore()
        if self._job.context.hp.strategy != "finetune":
            strategies.extract(self._job)
        with self._job.context.timing("search"):
            while not self._is_over() and (asked := self._ask()):
                self._run_batch(asked)
        if self._best is None and not self._job.context.cluster.any(self._job.context.stop()):
            raise UserError(self._no_result())
        number, hp, stop = None, self._with_settings({}), self._job.context.stop
        if self._best:
            (_, number, hp), stop = self._best, GracePeriod(stop)
            settings = " ".join(f"{name}={value}" for name, value in self._shown(hp).items())
            self._log("best trial: %d of %d, %s", number, self._job.context.hp.trials, settings)
        self._job.classifier.load_state_dict(self._initial)
        checkpoints = self._checkpoints(number, hp)
        context = dataclasses.replace(self._job.context, hp=hp)
        job = dataclasses.replace(self._job, context=context, checkpoints=checkpoints, debugger=self._debugger)
        trained = strategies.train(dataclasses.replace(job, context=dataclasses.replace(context, stop=stop)))
        table = self._write(ended=True)
        if self._study:
            trials.write_best(self._output, hp)
        return job, trained, table

    def _restore(self) -> None:
        """What an earlier start of the job has found."""
        finished = self._study.finished() if self._study else {}
        for number, (settings, result) in sorted(self._job.context.cluster.broadcast(finished).items()):
            self._add_result(number, self._with_settings(settings), result)
            self._track(number, settings, result)
        if finished:
            log.info("resumed a search: %d of %d trials are done", len(finished), self._job.context.hp.trials)

    def _ask(self) -> Settings:
        """The next trials; those that come out equal to another are closed at once."""
        while asked := self._job.context.cluster.broadcast(self._study.ask() if self._study else {}):
            mine: Settings = {}
            twins: dict[int, int] = {}
            own: dict[Hyperparameters, int] = {}
            for number, settings in asked.items():
                hp = self._with_settings(settings)
                if hp in self._seen:
                    twins[number] = self._seen[hp]
                elif hp in own:
                    continue  # asked again when the other one is known
                else:
                    own[hp], mine[number] = number, settings
            for number, other in twins.items():
                self._copy_result(number, other)
            if mine:
                return mine
        return {}

    def _run_batch(self, asked: Settings) -> None:
        chosen = {number: self._with_settings(settings) for number, settings in asked.items()}
        self._write()
        if self._job.context.hp.strategy != "probe":
            for number, hp in chosen.items():
                if not self._is_over():
                    self._finetune_one(number, hp)
            return
        stacks: dict[tuple[int, int], list[int]] = {}
        for number, hp in chosen.items():
            if hp.solver == "lbfgs":
                if not self._is_over():
                    self._solve_one(number, hp)
                continue
            stacks.setdefault((hp.batch_size, hp.epochs), []).append(number)
        many = micro_batch_size.heads_at_once(
            self._job.classifier.head, self._job.context.device, self._job.context.cluster.local_world
        )
        many = min(self._job.context.cluster.gather(many))
        for numbers in stacks.values():
            for at in range(0, len(numbers), many):
                if not self._is_over():
                    self._train_heads([self._head(number, chosen[number]) for number in numbers[at : at + many]])

    def _solve_one(self, number: int, hp: Hyperparameters) -> None:
        job = dataclasses.replace(self._job, context=dataclasses.replace(self._job.context, hp=hp))
        best, row, _ = strategies.solve(job)
        self._close(number, hp, self._result(best, [row], row["seconds"]))
        self._write()

    def _train_heads(self, heads: list[Head]) -> None:
        inputs = self._job.extracted
        whole = stacked_heads.fit(heads, inputs["train"], inputs["validation"], self._must_end)
        for head in heads:
            result = self._result(head.run.best, head.run.rows, head.seconds)
            if head.failed:
                result = Result("failed", reason=head.failed, seconds=head.seconds, curve=result.curve)
            elif not whole and head.going:
                result = dataclasses.replace(result, state="pruned", reason=self._cut_short())
            self._close(head.number, head.hp, result)
        self._write()

    def _finetune_one(self, number: int, hp: Hyperparameters) -> None:
        job, cut = self._job, TrialPruner(self._job.context.stop)

        def on_epoch_end(row: EpochRow, values: dict[Metric, float]) -> None:
            log.info(metrics.line(values, trial=number, epoch=row["epoch"], stage=row["stage"]))
            if row["stage"] != "finetune":
                return
            epoch = row["stage_epoch"]
            worth = self._study.judge(number, trials.score(values, self._judges), epoch) if self._study else True
            worth, spent = job.context.cluster.broadcast((worth, self._budget_spent()))
            if not worth and epoch < hp.epochs:
                cut.reason = f"successive halving: not among the best after {epoch} epochs"
            elif spent:
                cut.reason = self._cut_short()

        job.classifier.load_state_dict(self._initial)
        checkpoints = self._checkpoints(number, hp)
        context = dataclasses.replace(job.context, hp=hp, stop=cut)
        trial = dataclasses.replace(job, context=context, checkpoints=checkpoints, on_epoch_end=on_epoch_end)
        result = Result("failed")
        try:
            trained = strategies.train(trial)
            result = self._result(trained.best, trained.rows, sum(row["seconds"] for row in trained.rows))
        except (loop.DivergedError, MemoryError, RuntimeError) as error:
            diverged = isinstance(error, loop.DivergedError)
            if not diverged and (job.context.cluster.world > 1 or not failure.out_of_memory(error)):
                raise
            result.reason = str(error) if diverged else failure.describe(error).splitlines()[0]
        if cut.reason or (job.context.cluster.any(job.context.stop()) and result.state == "complete"):
            result = dataclasses.replace(result, state="pruned", reason=cut.reason or self._cut_short())
        self._close(number, hp, result)
        self._write()
        if self._study and not job.context.stop():  # a stopped one goes on there
            self._keep_best()

    def _close(self, number: int, hp: Hyperparameters, result: Result) -> None:
        """Note how a trial did; one that a stopped job cut short is left for its next start."""
        stopped = self._job.context.cluster.any(self._job.context.stop()) and result.state == "pruned"
        self._add_result(number, hp, result)
        if self._study and not stopped:
            self._study.tell(number, result)
            self._track(number, {name: getattr(hp, name) for name in self._space}, result)
        values = {metric: result.metrics[metric.name] for metric in metrics.METRICS if metric.name in result.metrics}
        about = {"trial": number, "state": result.state, "best_epoch": result.epoch, **self._shown(hp)}
        self._log("%s%s", metrics.line(values, **about), f" ({result.reason})" if result.reason else "")

    def _copy_result(self, number: int, other: int) -> None:
        if self._study:
            _, result = self._study.finished()[other]
            state = "same" if result.score is not None else "failed"
            twin = dataclasses.replace(result, state=state, same_as=other, seconds=0.0, curve=[])
            self._study.tell(number, twin)
            self._track(number, self._study.finished()[number][0], twin)
        self._log("trial=%d state=same: its settings come out equal to trial %d's", number, other)

    def _add_result(self, number: int, hp: Hyperparameters, result: Result) -> None:
        if result.same_as is None:
            self._seen[hp] = number
        if result.score is not None and (self._best is None or result.score > self._best[0]):
            self._best = (result.score, number, hp)

    def _result(self, best: Best, rows: list[EpochRow], seconds: float) -> Result:
        if not best.values:
            return Result("pruned", reason=self._cut_short(), seconds=seconds)
        return Result.of(best, rows, seconds, self._judges)

    def _head(self, number: int, hp: Hyperparameters) -> Head:
        context, inputs = dataclasses.replace(self._job.context, hp=hp), self._job.extracted["train"]
        job = dataclasses.replace(self._job, context=context)
        weights = strategies.class_weights(job)
        plan = StagePlan("probe", hp.epochs, 0, max(1, len(inputs.index)), weights, job.pretrained)
        module = copy.deepcopy(job.classifier.head)
        return Head(number, Run(module, inputs, context, plan))

    def _with_settings(self, settings: Mapping[str, Any]) -> Hyperparameters:
        """A trial's hyperparameters, as a job of one trial would have them."""
        defaults = {name: getattr(Hyperparameters, name) for name in OF_A_SEARCH}
        hp = dataclasses.replace(self._job.context.hp, **defaults, **settings)
        if hp.solver == "lbfgs":  # trials that differ in what SGD alone has a use for are one
            hp = dataclasses.replace(hp, **{name: getattr(Hyperparameters, name) for name in OF_SGD})
        return dataclasses.replace(hp, batch_size=min(hp.batch_size, self._photos))

    def _shown(self, hp: Hyperparameters) -> dict[str, str]:
        """A trial's own settings for the log; trials.json has all digits."""
        rows = {name: getattr(hp, name) for name in self._space}
        return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in rows.items()}

    def _folder(self, number: int | None) -> Path:
        """Of a trial's checkpoints; None stands for the job's own settings, where no trial has come to an end."""
        return self._job.checkpoints.folder / ("trial-own" if number is None else f"trial-{number:04d}")

    def _keep_best(self) -> None:
        """Remove the weights of all trials but the best's."""
        for path in self._job.checkpoints.folder.glob("trial-*"):
            if not self._best or path != self._folder(self._best[1]):
                shutil.rmtree(path, ignore_errors=True)

    def _checkpoints(self, number: int | None, hp: Hyperparameters) -> Checkpoints:
        own = {key: str(value) for key, value in dataclasses.asdict(hp).items()}
        return Checkpoints(self._folder(number), {key: own.get(key, value) for key, value in self._identity.items()})

    def _budget_spent(self) -> bool:
        """Whether the time budget is, by the clock of rank 0."""
        budget = 60 * self._job.context.hp.time_budget
        return bool(budget and self._study and self._study.seconds > budget)

    def _must_end(self) -> bool:
        """Whether the job was stopped or the budget is spent, on any rank."""
        return self._job.context.cluster.any(self._job.context.stop() or self._budget_spent())

    def _is_over(self) -> bool:
        """The same between trials; without any result the search goes on, whatever its budget."""
        return self._job.context.cluster.any(self._job.context.stop()) or (self._best is not None and self._must_end())

    def _cut_short(self) -> str:
        return (
            "the job was stopped"
            if self._job.context.stop()
            else f"time_budget={self._job.context.hp.time_budget:g} is over"
        )

    def _no_result(self) -> str:
        finished = self._study.finished() if self._study else {}
        first = next((result.reason for _, result in finished.values() if result.reason), "none was begun")
        return f"none of {len(finished)} trials came to an end, the first because {first}: narrow search_space"

    def _track(self, number: int, settings: Mapping[str, Any], result: Result) -> None:
        self._tracker.trial(trials.rows({number: (settings, result)})[0])

    def _write(self, *, ended: bool = False) -> TrialsTable | None:
        if not self._study:
            return None
        table = self._study.table(self._best[1] if self._best else None, ended=ended)
        trials.write(self._output, table)
        return table

    def _log(self, text: str, *args: object) -> None:
        if self._job.context.cluster.is_rank_zero:
            log.info(text, *args)
