"""One training job from top to bottom: channels and hyperparameters in, the best epoch's model folder out."""

import dataclasses
import json
import logging
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from kennel import backbones, hyperparameters, metrics
from kennel.backbones import Backbone, Classifier
from kennel.errors import UserError
from kennel.files import printable
from kennel.hyperparameters import Hyperparameters, Tuning
from kennel.metrics import Metric
from kennel.photos.photo_folders import SPLITS
from kennel.search.trials import TrialsTable
from kennel_train import finish, reporting
from kennel_train.context import Context, JobEnvironment
from kennel_train.contract import user_hook
from kennel_train.contract.stop import Stop
from kennel_train.data import audit, image_folder
from kennel_train.data.image_folder import Channels
from kennel_train.data.splits import Splits
from kennel_train.debug.observers import observing, wants_steps
from kennel_train.distributed import device
from kennel_train.distributed.cluster import Cluster
from kennel_train.distributed.device import Device
from kennel_train.engine import checkpoint, features, sanity_check, strategies, warm_start
from kennel_train.engine.checkpoint import Checkpoints
from kennel_train.engine.strategies import Trained, Training
from kennel_train.engine.warm_start import SourceModel
from kennel_train.measure.history import EpochRow
from kennel_train.measure.timing import Timing
from kennel_train.model import export
from kennel_train.reporting import Ending
from kennel_train.tracking.tracker import Tracker, tracking

log = logging.getLogger("kennel")


def run(environment: JobEnvironment, cluster: Cluster, stop: Stop) -> None:
    """The whole job.

    Args:
        stop: whether the job was asked to end; it then ends with the best epoch so far.

    Raises:
        UserError: whatever the user can fix.
    """
    timing, config, layout = Timing(), environment.config, environment.layout
    chosen = device.choose(environment.cuda_compat, cluster.local, cluster.local_world, environment.visible)
    log.info(chosen.description)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kennel-")))
        source = warm_start.find(layout.data / "model", scratch / "model")
        weights = layout.data / "pretrained" if (layout.data / "pretrained").is_dir() else None
        if source and weights:
            raise UserError("channels 'model' and 'pretrained' both bring weights: keep one")
        hp = _settled(environment, chosen, source, weights)
        log.info("hyperparameters: %s", " ".join(f"{k}={v}" for k, v in dataclasses.asdict(hp).items()))
        context = Context(hp, chosen, cluster, stop, timing, layout, environment.root, environment.cache)
        hook = user_hook.load(config.raw, layout)
        tracker = stack.enter_context(tracking(environment.tracked if cluster.is_rank_zero else None, layout, stop))

        def give_up(reason: str) -> None:
            tracker.end("FAILED", reason)
            environment.give_up(reason)

        observers = stack.enter_context(observing(context, give_up, environment.visible))
        with timing("find photos"):
            channels, sharded = _channels(config.sharded, context)
        torch.manual_seed(hp.seed)
        backbone = _backbone(environment, hp, source, weights)
        log.info("backbone: %s (%s), weights: %s", backbone.name, backbone.library, backbone.weights)
        classifier = Classifier(backbone, len(channels.class_names))
        pretrained = backbone.weights != "random"
        smallest = min(2, hp.batch_size) if hp.strategy != "probe" else 0
        sanity_check.check(classifier, backbone.name, hp.image_size, smallest, pretrained)
        program = None  # a job that goes on has seen it work, and traces at its end
        if cluster.is_rank_zero and not checkpoint.exists(layout.checkpoints):
            with timing("trace network"):
                program = export.trace(classifier, backbone.name)
        with timing("decode"):
            splits = Splits.decode(channels, sharded, backbone.preprocessing, context, log.info)
        audited = _audit(splits, channels, context)
        context = _clamped(context, len(splits.parts["train"].photos))
        tracker.parameters(context.hp)
        if source:
            taken, new = warm_start.head(classifier, channels.class_names, source)
            log.info("head: %d classes of the earlier model, %d new ones", len(taken), len(new))
        classifier.to(chosen.torch)
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs forgot it

        def on_epoch_end(row: EpochRow, values: dict[Metric, float]) -> None:
            log.info(metrics.line(values, epoch=row["epoch"], stage=row["stage"]))
            observers.epoch(row)
            tracker.epoch(row)
            if hook and cluster.is_rank_zero:
                hook(row["epoch"], {metric.name: value for metric, value in values.items()})

        identity, key = _identity(classifier, backbone, channels, splits, context)
        if cluster.is_rank_zero:
            stack.enter_context(checkpoint.claimed(layout.checkpoints))
        checkpoints = Checkpoints(layout.checkpoints, identity)
        debugger = observers.debugger and observers.debugger.of(channels.class_names)
        job = Training(classifier, splits, context, checkpoints, key, pretrained, on_epoch_end, debugger=debugger)
        ending = Ending(environment.name, backbone, channels.class_names, audited, observers.record)
        try:
            job, trained, tried = _train(job, config.space, identity, scratch, tracker)
        except Exception as error:
            reporting.write_failed(job, observers.rows, ending, error)
            raise
        for row in trained.rows:  # those of before a restart, too, that the server may not have
            tracker.epoch(row)
        if manifest := finish.finish(job, trained, dataclasses.replace(ending, search=tried), program):
            tracker.model(manifest.metrics)


def _train(
    job: Training, space: Mapping[str, Tuning], identity: Mapping[str, str], scratch: Path, tracker: Tracker
) -> tuple[Training, Trained, TrialsTable | None]:
    """The job's one setting, or a search of many: the job as the model had it, what it became, the table of trials."""
    if job.context.hp.trials == 1:
        return job, strategies.train(job), None
    from kennel_train.search.search import Search  # here: Optuna takes a moment that other jobs need not wait for

    return Search(job, space, identity, scratch, job.context.layout.output_data, tracker).run()


def _settled(
    environment: JobEnvironment, chosen: Device, source: SourceModel | None, weights: Path | None
) -> Hyperparameters:
    """The hyperparameters with what the device, an earlier model and the backbone decide."""
    hp = environment.config.hp
    if hp.strategy == "auto":
        hp = dataclasses.replace(hp, strategy="probe-then-finetune" if chosen.torch.type == "cuda" else "probe")
    hp = dataclasses.replace(hp, solver=_solver(environment, hp, source))
    if source:
        return warm_start.settle(hp, environment.config.raw, source)
    if hp.image_size == 0:
        own = backbones.own_size(hp.backbone, weights if hp.pretrained else None)
        hp = dataclasses.replace(hp, image_size=own)
    return hp


def _solver(environment: JobEnvironment, hp: Hyperparameters, source: SourceModel | None) -> str:
    """L-BFGS for a probe where nothing asks for SGD: its hyperparameters, its steps, or a head to go on from."""
    config = environment.config
    searched = config.space if hp.trials > 1 else {}
    asked = (hyperparameters.given(config.raw) | set(searched)) & set(hyperparameters.OF_SGD)
    if hp.solver == "lbfgs" and hp.strategy == "probe" and asked and "solver" not in searched:
        log.warning("warning: solver=lbfgs has no use for %s", ", ".join(sorted(asked)))
    if hp.solver != "auto":
        return hp.solver
    return "sgd" if hp.strategy != "probe" or asked or source or wants_steps(hp, environment.layout) else "lbfgs"


def _clamped(context: Context, photos: int) -> Context:
    size = context.hp.batch_size
    if size <= photos:
        return context
    log.warning("warning: batch_size=%d is more than the %d training photos and becomes that", size, photos)
    return dataclasses.replace(context, hp=dataclasses.replace(context.hp, batch_size=photos))


def _channels(sharded_channels: frozenset[str], context: Context) -> tuple[Channels, frozenset[str]]:
    """The labelled photos of this host, and the splits whose photos differ from host to host.

    A sharded channel's classes are those of all hosts; all splits inside it are sharded.

    Raises:
        UserError: hosts that should hold the same photos do not.
    """
    root, cluster = context.root, context.cluster
    found = image_folder.find(root, sharded_channels, cluster.gather)
    for note in found.notes:
        log.info("%s", note)
    for path in found.left_out:
        log.info("left out, not a photo: %s", printable(path.relative_to(root)))
    counts = {s: {c: len(p) for c, p in classes.items()} for s, classes in found.folders.items()}
    gathered = cluster.gather((counts, found.shown, found.empty))
    everyones = [row for row, _, _ in gathered]
    if not any("train" in row for row in everyones):
        raise UserError("no host of this job has training photos: expected train/<class>/*.jpg")
    splits = [split for split in SPLITS if any(split in row for row in everyones)]
    shown = {split: where for _, theirs, _ in gathered for split, where in theirs.items()}
    sharded = frozenset(split for split, where in shown.items() if Path(where).parts[0] in sharded_channels)
    for split in splits:
        if split not in sharded and any(row.get(split) != everyones[0].get(split) for row in everyones):
            raise UserError(
                f"the hosts of this job hold different {split} photos "
                f"({', '.join(str(sum(row.get(split, {}).values())) for row in everyones)}, by process): "
                f"give all the same, or set the channel's S3DistributionType=ShardedByS3Key"
            )
    for split in splits:
        found.folders.setdefault(split, {})
        found.shown.setdefault(split, shown[split])
    names = {split: {c for row in everyones for c in row.get(split, {})} for split in splits}
    for name in sorted(
        {name for _, _, empty in gathered for name in empty.get("train", [])} - names.get("train", set())
    ):
        if name not in found.empty.setdefault("train", []):
            found.empty["train"].append(name)
        log.warning("warning: class folder '%s' of train holds no photo", name)
    return image_folder.label(found, names, context.hp.allow_missing_classes), sharded


def _backbone(
    environment: JobEnvironment, hp: Hyperparameters, source: SourceModel | None, weights: Path | None
) -> Backbone:
    """That of an earlier model, else a pretrained or a new one."""
    if source:
        return warm_start.backbone(source)  # its photos were taken by its own white level
    backbone = backbones.load(hp.backbone, hp.image_size, hp.pretrained, weights, baked=environment.weights)
    if not hp.white_level:
        return backbone
    preprocessing = dataclasses.replace(backbone.preprocessing, white_level=hp.white_level)
    return dataclasses.replace(backbone, preprocessing=preprocessing)


def _audit(splits: Splits, channels: Channels, context: Context) -> dict[str, Any]:
    """Log and write the audit; a job that was stopped while it decoded is not held to what it has not seen.

    Raises:
        UserError: the data can only end in a model, or a figure, that is wrong.
    """
    found = audit.audit(
        {name: part.photos for name, part in splits.parts.items()},
        splits.bad,
        channels.left_out,
        channels.class_names,
        context.root,
        context.hp.image_size,
        context.hp.allow_missing_classes,
        held_out=splits.held_out,
    )
    for line in found.table():
        log.info(line)
    if context.cluster.is_rank_zero:
        folder = context.layout.output_data
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "audit.json").write_text(json.dumps(found.as_json(), indent=2))
        except OSError as error:  # the model is what counts
            log.warning("warning: audit.json could not be written: %s", error)
    if not splits.unread:
        found.refuse()
    return found.as_json()


def _identity(
    classifier: Classifier, backbone: Backbone, channels: Channels, splits: Splits, context: Context
) -> tuple[dict[str, str], str]:
    """What a checkpoint must agree on with the job that takes it up, and the key of the features."""
    hp, cluster, chosen = context.hp, context.cluster, context.device
    weights = features.weights_digest(classifier.backbone)
    seen = (backbone.name, backbone.preprocessing, chosen.torch.type, chosen.bf16, cluster.world, torch.__version__)
    known = {
        **{name: str(value) for name, value in dataclasses.asdict(hp).items()},
        "class names": " ".join(channels.class_names),
        "data fingerprint": splits.fingerprint,
        "weights": weights + features.weights_digest(classifier.head),
        "number of processes": str(cluster.world),
    }
    for name in ("checkpoint_minutes", *hyperparameters.OF_WATCHING):  # they change no weight
        del known[name]
    return known, features.key(weights, seen, splits.order)
