"""The strategies: a probe on features, a fine-tune on crops, one after the other, from wherever a checkpoint stands."""

import copy
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from kennel import metrics
from kennel.backbones import Classifier
from kennel.hyperparameters import Hyperparameters
from kennel.metrics import Metric
from kennel_train.context import Context
from kennel_train.contract.stop import grace
from kennel_train.data.splits import Split, Splits
from kennel_train.debug.debugger import Debugger
from kennel_train.engine import features, logistic_regression, loop, micro_batch_size, progress, recipe
from kennel_train.engine.batches import CropDataset, Dataset, FeatureDataset
from kennel_train.engine.checkpoint import Checkpoints
from kennel_train.engine.logistic_regression import Solution
from kennel_train.engine.progress import Best, LoopCallbacks, StagePlan
from kennel_train.measure.callbacks import NO_CALLBACK, Callback
from kennel_train.measure.history import EpochRow

log = logging.getLogger("kennel")
_STAGES = {"probe": ["probe"], "finetune": ["finetune"], "probe-then-finetune": ["probe", "finetune"]}


@dataclass(frozen=True)
class Training:
    """What every stage needs."""

    classifier: Classifier
    splits: Splits
    context: Context
    checkpoints: Checkpoints
    features_key: str
    pretrained: bool  # the backbone does not start from random weights
    on_epoch_end: Callable[[EpochRow, dict[Metric, float]], None]
    extracted: dict[str, FeatureDataset] = field(default_factory=dict)  # by split: trials share them
    debugger: Debugger | None = None  # watches the training; of a search, the model's and no trial's

    def over(self) -> bool:
        """Whether this process wants the training to end: the job was asked to, or a rule fired that ends it."""
        return self.context.stop() or (self.debugger is not None and self.debugger.stop())


@dataclass
class Trained:
    """The best epoch, every epoch's row, and the splits as the last stage saw them."""

    best: Best = field(default_factory=Best)
    rows: list[EpochRow] = field(default_factory=list)
    head: dict[str, torch.Tensor] = field(default_factory=dict)  # as it was before the first stage
    solved: Solution | None = None  # of a probe by L-BFGS, in this start of the job
    inputs: dict[str, Dataset] = field(default_factory=dict)


def train(job: Training) -> Trained:
    """Run the stages of `job.context.hp.strategy`; the classifier ends as the best epoch of them all."""
    resumed = job.context.cluster.broadcast(job.checkpoints.load() if job.context.cluster.is_rank_zero else None)
    done = Trained(rows=list(resumed["rows_before"]) if resumed else [])
    done.head = {key: value.clone() for key, value in job.classifier.head.state_dict().items()}
    if resumed:
        at = resumed["run"]["position"]
        log.info("resumed from a checkpoint: %s, epoch %d, step %d", resumed["stage"], at["epoch"], at["step"])
    stages = _STAGES[job.context.hp.strategy]
    for stage in stages[stages.index(resumed["stage"]) if resumed else 0 :]:
        state = resumed if resumed and resumed["stage"] == stage else None
        best, rows = (_probe if stage == "probe" else _finetune)(job, done, state)
        done.rows += rows
        done.best = best
        if stage == "probe":
            job.classifier.head.load_state_dict(best.state)
            whole = {key: value.cpu().clone() for key, value in job.classifier.state_dict().items()}
            done.best = Best(stage, best.epoch, best.values, whole)
        if job.context.cluster.any(job.over()):
            break
    job.classifier.load_state_dict(done.best.state)
    return done


def _probe(job: Training, done: Trained, state: dict[str, Any] | None) -> tuple[Best, list[EpochRow]]:
    done.inputs = dict(extract(job))
    if job.context.hp.solver == "lbfgs":
        best, row, done.solved = solve(job)
        job.on_epoch_end(row, best.values)
        return best, [row]
    epochs = probe_epochs(job.context.hp)
    size = max(1, len(done.inputs["train"].index))  # features are small: a batch is never cut
    return _fit(job, job.classifier.head, done, "probe", epochs, size, state)


def probe_epochs(hp: Hyperparameters) -> int:
    """Of a probe by SGD: those of the job where it is all of it."""
    return hp.epochs if hp.strategy == "probe" else hp.probe_epochs


def solve(job: Training) -> tuple[Best, EpochRow, Solution]:
    """The head of the training photos at its optimum: one epoch, as the log and the report have it."""
    context, inputs, weights = job.context, extract(job), class_weights(job)
    started, hp = time.monotonic(), context.hp
    with context.timing("probe"):
        found = logistic_regression.solve(
            inputs["train"], weights, hp.label_smoothing, hp.l2, hp.seed, context.cluster, job.over
        )
        head = copy.deepcopy(job.classifier.head)
        head.load_state_dict(found.state)
        loss, accuracy = loop.evaluate(head, inputs["validation"], context)
    values = {
        metrics.TRAIN_LOSS: found.loss,
        metrics.VALIDATION_LOSS: loss,
        metrics.VALIDATION_ACCURACY: accuracy,
    }
    seconds = max(time.monotonic() - started, 1e-9)
    row: dict[str, Any] = {"stage": "probe", "epoch": 1, "stage_epoch": 1, "l2": found.l2, "seconds": seconds}
    row |= {"photos_per_second": inputs["train"].total / seconds, "waited": 0.0}
    row |= {metric.name: value for metric, value in values.items()}
    return Best("probe", 1, values, found.state), cast(EpochRow, row), found


def extract(job: Training) -> dict[str, FeatureDataset]:
    """The features of training and validation, computed once a job."""
    if not job.extracted:
        with job.context.timing("features"):
            parts = {name: part for name, part in job.splits.parts.items() if name != "test"}
            job.extracted.update({name: _features(job, name, part) for name, part in parts.items()})
            job.context.cluster.gather(None)  # hosts of a sharded channel may differ by more than a step's patience
    return job.extracted


def _finetune(job: Training, done: Trained, state: dict[str, Any] | None) -> tuple[Best, list[EpochRow]]:
    done.inputs = {
        n: CropDataset.of(part, job.context.hp, job.context.device)
        for n, part in job.splits.parts.items()
        if n != "test"
    }
    share = -(-min(job.context.hp.batch_size, done.inputs["train"].total) // job.context.cluster.world)
    if state:  # what was found is kept, so that a restart is exact, but where a smaller GPU took the place of the first
        share = min(share, state["micro_batch"])
    fits = micro_batch_size.micro_batch(
        job.classifier, job.context.hp.image_size, share, job.context.device, job.context.cluster.local_world
    )
    size = min(job.context.cluster.gather(fits))
    return _fit(job, job.classifier, done, "finetune", job.context.hp.epochs, size, state)


def _features(job: Training, name: str, part: Split) -> FeatureDataset:
    given = CropDataset.of(part, job.context.hp, job.context.device)
    rank, cache = job.context.cluster.rank, job.context.cache
    key = f"{job.features_key}-{name.encode().hex()}"
    if found := features.kept(job.checkpoints.folder, key, rank, given):
        return found
    found = features.kept(cache, key, rank, given) if cache else None
    if found:
        log.info("features of %s: an earlier job's, from the warm pool's %s", name, cache)
    else:
        found = features.extract(job.classifier, given, job.context.device, grace(job.context.stop))
        if len(found.index) < len(given.index) or job.splits.unread:
            return found
        if cache:
            features.offer(cache, key, rank, found)
    features.keep(job.checkpoints.folder, key, rank, found)
    return found


def _fit(
    job: Training,
    module: torch.nn.Module,
    done: Trained,
    stage: str,
    epochs: int,
    micro_batch: int,
    state: dict[str, Any] | None,
) -> tuple[Best, list[EpochRow]]:
    before = list(done.rows)

    def save(run: dict[str, Any]) -> None:
        if job.context.cluster.is_rank_zero:
            with job.context.timing("checkpoints"):
                job.checkpoints.save({"stage": stage, "rows_before": before, "micro_batch": micro_batch, "run": run})

    plan = StagePlan(stage, epochs, len(before), micro_batch, class_weights(job), job.pretrained, done.best)
    train = done.inputs["train"]
    with job.context.timing(stage), _watched(job, stage, module, train) as callback:
        callbacks = LoopCallbacks(job.over, grace(job.context.stop), save, job.on_epoch_end, callback)
        run = loop.fit(
            module,
            train,
            done.inputs["validation"],
            job.context,
            plan,
            callbacks,
            state["run"] if state else None,
        )
    return run.best, run.rows


@contextmanager
def _watched(job: Training, stage: str, module: torch.nn.Module, train: Dataset) -> Iterator[Callback]:
    """The callback of this stage.

    Raises:
        DivergedError: the stage's own, with what a rule had found before.
    """
    if not job.debugger:
        yield NO_CALLBACK
        return
    steps = progress.even_batches(train.total, job.context.hp.batch_size)
    loaders = train.threads if isinstance(train, CropDataset) else 0
    try:
        with job.debugger.stage(
            stage, module, train.device, lambda: train.waited, steps, pretrained=job.pretrained, loaders=loaders
        ) as callback:
            yield callback
    except loop.DivergedError as error:
        raise loop.DivergedError(f"{error}; {job.debugger.reason}" if job.debugger.reason else str(error)) from None


def class_weights(job: Training, *splits: str) -> torch.Tensor:
    """Of the training photos, or of those of other splits, by `job.context.hp`."""
    labels = [photo.label for name in splits or ("train",) for photo in job.splits.parts[name].photos]
    return recipe.class_weights(labels, job.classifier.head.out_features, job.context.hp)
