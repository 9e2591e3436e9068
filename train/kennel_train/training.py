"""One training job from top to bottom: channels and hyperparameters in, the best epoch's model folder out."""

import dataclasses
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from kennel import backbones, hyperparameters, metrics
from kennel.artifact import Manifest
from kennel.backbones import Classifier
from kennel.hyperparameters import Hyperparameters
from kennel.layout import Layout
from kennel.metrics import Metric
from kennel_train import data, device, export, features, hooks, loop
from kennel_train.decoding import Decoded
from kennel_train.device import Device
from kennel_train.loop import Best, Split
from kennel_train.splits import Splits

log = logging.getLogger("kennel")


def run(layout: Layout, stop: Callable[[], bool], weights: Path | None, compat: str) -> None:
    """The whole job.

    Args:
        stop: whether the job was asked to end; it then ends with the best epoch so far.
        weights: a folder of pretrained weights that the image carries, or None.
        compat: the entry point's CUDA compatibility choice in words, for the log.

    Raises:
        UserError: whatever the user can mend.
    """
    chosen = device.choose(compat)
    log.info(chosen.description)
    raw = hyperparameters.load(layout.hyperparameters)
    hp = hyperparameters.parse(raw)
    log.info("hyperparameters: %s", " ".join(f"{k}={v}" for k, v in dataclasses.asdict(hp).items()))
    hook = hooks.load(raw, layout.code)
    channels = data.find(layout.data)
    for path in channels.left_out:
        log.info("left out, not a photo: %s", path.relative_to(layout.data))
    torch.manual_seed(hp.seed)
    channel = layout.data / "pretrained"
    backbone = backbones.load(
        hp.backbone, hp.image_size, hp.pretrained, channel if channel.is_dir() else None, baked=weights
    )
    log.info("backbone: %s (%s), weights: %s", backbone.name, backbone.library, backbone.weights)
    splits = Splits.decode(channels, backbone.preprocessing, hp, log.info)
    classifier = Classifier(backbone, len(channels.class_names)).to(chosen.torch)
    classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs forgot it

    def on_epoch_end(epoch: int, values: dict[Metric, float]) -> None:
        log.info(metrics.line(values, epoch=epoch))
        if hook:
            hook(epoch, {metric.name: value for metric, value in values.items()})

    best = _train(classifier, splits, hp, chosen, stop, on_epoch_end)
    if splits.test:
        loss, accuracy = loop.evaluate(classifier, _photos(splits.test), chosen, hp.image_size)
        tested = {metrics.TEST_LOSS: loss, metrics.TEST_ACCURACY: accuracy}
        log.info(metrics.line(tested, best_epoch=best.epoch))
        best.values |= tested
    manifest = Manifest(
        class_names=channels.class_names,
        preprocessing=backbone.preprocessing,
        backbone={"name": backbone.name, "library": backbone.library, "weights": backbone.weights},
        metrics={"epoch": best.epoch, **{metric.name: value for metric, value in best.values.items()}},
        data=splits.provenance(layout.data),
        hyperparameters=dataclasses.asdict(hp),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    sample = _photos(splits.validation).batch(torch.arange(min(4, len(splits.validation.rows))), torch.device("cpu"))[0]
    export.export(classifier, loop.middle(sample, hp.image_size), manifest, layout.model)
    log.info("model: %s (epoch %d of %d)", layout.model, best.epoch, hp.epochs)


def _photos(decoded: Decoded) -> Split:
    return Split(*map(torch.from_numpy, (decoded.images, decoded.rows, decoded.labels)))


def _train(
    classifier: Classifier,
    splits: Splits,
    hp: Hyperparameters,
    chosen: Device,
    stop: Callable[[], bool],
    on_epoch_end: Callable[[int, dict[Metric, float]], None],
) -> Best:
    """Fit by the chosen strategy; `classifier` ends as the best epoch."""
    if hp.batch_size > len(splits.train.labels):
        log.warning(
            "warning: batch_size=%d is more than the %d training photos and becomes that",
            hp.batch_size,
            len(splits.train.labels),
        )
    train, validation = _photos(splits.train), _photos(splits.validation)
    size = hp.image_size
    if hp.strategy == "finetune":
        best = loop.fit(classifier, train, validation, hp, chosen, crop=size, stop=stop, on_epoch_end=on_epoch_end)
        classifier.load_state_dict(best.state)
        return best
    train = features.extract(classifier, train, size, chosen, stop, log.info)
    validation = features.extract(classifier, validation, size, chosen, stop, log.info)
    best = loop.fit(classifier.head, train, validation, hp, chosen, crop=None, stop=stop, on_epoch_end=on_epoch_end)
    classifier.head.load_state_dict(best.state)
    return best
