"""One training job from top to bottom: channels and hyperparameters in, the best epoch's model folder out."""

import dataclasses
import functools
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from kennel import backbones, config, hyperparameters, metrics, search_space
from kennel.backbones import Backbone, Classifier
from kennel.errors import UserError
from kennel.hyperparameters import Hyperparameters, Tuning
from kennel.layout import Layout
from kennel.metrics import Metric
from kennel.photos import SPLITS, printable
from kennel_train import finish, post_mortem
from kennel_train.contract import user_hook
from kennel_train.contract.stop import Stop, grace
from kennel_train.data import audit, image_folder
from kennel_train.data.image_folder import Channels
from kennel_train.data.splits import Splits
from kennel_train.debug import observers
from kennel_train.debug.observers import observing
from kennel_train.distributed import device
from kennel_train.distributed.cluster import Cluster
from kennel_train.distributed.device import Device
from kennel_train.engine import checkpoint, features, sanity_check, strategies, warm_start
from kennel_train.engine.checkpoint import Checkpoints
from kennel_train.engine.strategies import Trained, TrainingContext
from kennel_train.engine.warm_start import SourceModel
from kennel_train.finish import Ending
from kennel_train.measure.timing import Timing

log = logging.getLogger("kennel")


def run(
    layout: Layout,
    root: Path,
    stop: Stop,
    weights: Path | None,
    compat: str,
    name: str,
    cluster: Cluster,
    give_up: Callable[[str], None],
    visible: str | None,
) -> None:
    """The whole job.

    Args:
        root: the folder of the channels' folders; /opt/ml/input/data, or where a stream was unpacked.
        stop: whether the job was asked to end; it then ends with the best epoch so far.
        weights: a folder of pretrained weights that the image carries, or None.
        compat: the entry point's CUDA compatibility choice in words, for the log.
        name: the job's, for the report.
        give_up: ends this process for a reason: a training that stands still cannot be asked to.
        visible: the GPUs that the job may use, as CUDA_VISIBLE_DEVICES names them, or None for all.

    Raises:
        UserError: whatever the user can fix.
    """
    phases = Timing()
    chosen = device.choose(compat, cluster.local, cluster.local_world, visible)
    log.info(chosen.description)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kennel-")))
        raw = hyperparameters.load(layout.hyperparameters)
        hp = hyperparameters.parse(raw)
        space = search_space.space(hp.search_space)
        before = warm_start.find(layout.data / "model", scratch / "model")
        if before and (layout.data / "pretrained").is_dir():
            raise UserError("channels 'model' and 'pretrained' both bring weights: keep one")
        hp = _settled(hp, raw, chosen, before)
        log.info("hyperparameters: %s", " ".join(f"{k}={v}" for k, v in dataclasses.asdict(hp).items()))
        hook = user_hook.load(raw, layout.code)
        watching = stack.enter_context(observing(observers.wanted(hp, layout), cluster, phases, give_up, visible))
        with phases("find photos"):
            channels, sharded = _channels(root, _sharded(layout), cluster, hp.allow_missing_classes)
        torch.manual_seed(hp.seed)
        backbone = warm_start.backbone(before) if before else _backbone(hp, layout, weights)
        if hp.white_level and not before:  # an earlier model's photos were taken by its own
            preprocessing = dataclasses.replace(backbone.preprocessing, white_level=hp.white_level)
            backbone = dataclasses.replace(backbone, preprocessing=preprocessing)
        log.info("backbone: %s (%s), weights: %s", backbone.name, backbone.library, backbone.weights)
        classifier = Classifier(backbone, len(channels.class_names))
        learned = backbone.weights != "random"
        smallest = min(2, hp.batch_size) if hp.strategy != "probe" else 0
        sanity_check.check(classifier, backbone.name, hp.image_size, smallest, learned)
        with phases("decode"):
            seen = (channels, root, sharded, backbone.preprocessing, hp, cluster, chosen.threads)
            splits = Splits.decode(*seen, functools.partial(grace, stop), log.info)
        audited = _audit(splits, channels, root, layout, hp, cluster)
        hp = _clamped(hp, len(splits.parts["train"].photos))
        if before:
            taken, new = warm_start.head(classifier, channels.class_names, before)
            log.info("head: %d classes of the earlier model, %d new ones", len(taken), len(new))
        classifier.to(chosen.torch)
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs forgot it

        def on_epoch_end(row: dict[str, Any], values: dict[Metric, float]) -> None:
            log.info(metrics.line(values, epoch=row["epoch"], stage=row["stage"]))
            watching.epoch(row)
            if hook and cluster.is_rank_zero:
                hook(row["epoch"], {metric.name: value for metric, value in values.items()})

        identity, key = _identity(classifier, backbone, channels, splits, hp, cluster, chosen)
        if cluster.is_rank_zero:
            stack.enter_context(checkpoint.claimed(layout.checkpoints))
        checkpoints = Checkpoints(layout.checkpoints, identity)
        about = (splits, hp, chosen, cluster, checkpoints, key, learned, stop, phases, on_epoch_end)
        job = TrainingContext(
            classifier, *about, debugger=watching.debugger and watching.debugger.of(channels.class_names)
        )
        ending = Ending(name, backbone, channels.class_names, audited, root, layout, watching.record)
        try:
            job, trained, tried = _train(job, space, identity, scratch, layout)
        except Exception as error:
            post_mortem.write(job, watching.rows, ending, error)
            raise
        finish.finish(job, trained, dataclasses.replace(ending, search=tried))


def _train(
    job: TrainingContext, space: Mapping[str, Tuning], identity: Mapping[str, str], scratch: Path, layout: Layout
) -> tuple[TrainingContext, Trained, dict[str, Any]]:
    """The job's one setting, or a search of many: the job as the model had it, what it became, the table of trials."""
    if job.hp.trials == 1:
        return job, strategies.train(job), {}
    from kennel_train.search.search import Search  # here: Optuna takes a moment that other jobs need not wait for

    return Search(job, space, identity, scratch, layout.output_data).run()


def _settled(
    hp: Hyperparameters, raw: Mapping[str, Any], chosen: Device, before: SourceModel | None
) -> Hyperparameters:
    """The hyperparameters with what the device and an earlier model decide."""
    if hp.strategy == "auto":
        hp = dataclasses.replace(hp, strategy="probe-then-finetune" if chosen.torch.type == "cuda" else "probe")
    return warm_start.settle(hp, raw, before) if before else hp


def _clamped(hp: Hyperparameters, photos: int) -> Hyperparameters:
    if hp.batch_size <= photos:
        return hp
    log.warning("warning: batch_size=%d is more than the %d training photos and becomes that", hp.batch_size, photos)
    return dataclasses.replace(hp, batch_size=photos)


def _channels(
    root: Path, sharded_channels: frozenset[str], cluster: Cluster, allow_missing: bool
) -> tuple[Channels, frozenset[str]]:
    """The labelled photos of this host, and the splits whose photos differ from host to host.

    A sharded channel's classes are those of all hosts; all splits inside it are sharded.

    Raises:
        UserError: hosts that should hold the same photos do not.
    """
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
    return image_folder.label(found, names, allow_missing), sharded


def _sharded(layout: Layout) -> frozenset[str]:
    """The channels of which each host has a part of its own, by inputdataconfig.json."""
    row = config.channels(layout.config / "inputdataconfig.json")
    return frozenset(name for name, channel in row.items() if channel.get("S3DistributionType") == "ShardedByS3Key")


def _backbone(hp: Hyperparameters, layout: Layout, weights: Path | None) -> Backbone:
    channel = layout.data / "pretrained"
    given = channel if channel.is_dir() else None
    return backbones.load(hp.backbone, hp.image_size, hp.pretrained, given, baked=weights)


def _audit(
    splits: Splits, channels: Channels, root: Path, layout: Layout, hp: Hyperparameters, cluster: Cluster
) -> dict[str, Any]:
    """Log and write the audit; a job that was stopped while it decoded is not held to what it has not seen.

    Raises:
        UserError: the data can only end in a model, or a figure, that is wrong.
    """
    photos = {name: part.photos for name, part in splits.parts.items()}
    args = (channels.left_out, channels.class_names, root, hp.image_size, hp.allow_missing_classes)
    found = audit.audit(photos, splits.bad, *args, held_out=splits.held_out)
    for line in found.table():
        log.info(line)
    if cluster.is_rank_zero:
        try:
            layout.output_data.mkdir(parents=True, exist_ok=True)
            (layout.output_data / "audit.json").write_text(json.dumps(found.as_json(), indent=2))
        except OSError as error:  # the model is what counts
            log.warning("warning: audit.json could not be written: %s", error)
    if not splits.unread:
        found.refuse()
    return found.as_json()


def _identity(
    classifier: Classifier,
    backbone: Backbone,
    channels: Channels,
    splits: Splits,
    hp: Hyperparameters,
    cluster: Cluster,
    chosen: Device,
) -> tuple[dict[str, str], str]:
    """What a checkpoint must agree on with the job that takes it up, and the key of the features."""
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
