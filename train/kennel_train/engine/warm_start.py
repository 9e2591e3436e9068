"""Incremental training: a model that an earlier job wrote, in the channel `model`, as the start of this one."""

import dataclasses
import gzip
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from kennel import artifact, backbones, hyperparameters
from kennel.artifact import Manifest
from kennel.backbones import Backbone, Classifier
from kennel.errors import UserError
from kennel.hyperparameters import Hyperparameters
from kennel.layout import MANIFEST, WEIGHTS


@dataclass(frozen=True)
class SourceModel:
    manifest: Manifest
    state: dict[str, Tensor]  # the classifier's


def find(channel: Path, scratch: Path) -> SourceModel | None:
    """The model of a channel, a folder or one .tar.gz as SageMaker hands it over; None where there is no channel.

    Args:
        scratch: a folder to unpack into.

    Raises:
        UserError: no model of ours is in the channel, or the archive is damaged.
        OSError: the disk is full.
    """
    if not channel.is_dir():
        return None
    folder, shown = channel, "channel 'model'"
    archive = _archive(channel)
    if archive:
        folder, shown = scratch, f"channel 'model', {archive.name}"
        try:
            with tarfile.open(archive, "r:gz") as opened:
                opened.extractall(scratch, filter="data")  # refuses links and paths that lead outside
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise UserError(f"{shown}: it cannot be unpacked ({error}): give the job's model.tar.gz whole") from error
    try:
        manifest = artifact.read_manifest(folder)
    except UserError as error:
        raise UserError(f"{shown}: {error}") from error
    if WEIGHTS not in manifest.files:
        raise UserError(f"{shown}: {MANIFEST} names no {WEIGHTS}: give the whole model folder that a job wrote")
    return SourceModel(manifest, safetensors.torch.load_file(folder / WEIGHTS))


def _archive(channel: Path) -> Path | None:
    """The model's archive; a job's whole output folder in S3 has an output.tar.gz beside it."""
    if (channel / MANIFEST).exists():
        return None
    archives = sorted(channel.glob("*.tar.gz"))
    return next((path for path in archives if path.name == "model.tar.gz" or len(archives) == 1), None)


def settle(hp: Hyperparameters, raw: Mapping[str, Any], earlier: SourceModel) -> Hyperparameters:
    """The hyperparameters with the earlier model's backbone and image size.

    Raises:
        UserError: the job asks for others.
    """
    row = earlier.manifest
    theirs = {"backbone": row.backbone["name"], "image_size": row.preprocessing.image_size}
    for name in sorted(hyperparameters.given(raw) & set(theirs)):
        if getattr(hp, name) not in (theirs[name], 0):  # image_size=0 leaves it to the model
            raise UserError(
                f"hyperparameter {name}={getattr(hp, name)!r}: the model in channel 'model' has {theirs[name]!r}: "
                f"leave {name} out, or the channel"
            )
    return dataclasses.replace(hp, **theirs)  # type: ignore[arg-type]


def backbone(earlier: SourceModel) -> Backbone:
    """The earlier model's backbone with its weights and its preprocessing.

    Raises:
        UserError: its weights do not fit the backbone of that name as this version builds it.
    """
    row = earlier.manifest
    made = backbones.load(row.backbone["name"], row.preprocessing.image_size, False, None, None)
    own = {key.removeprefix("backbone."): value for key, value in earlier.state.items() if key.startswith("backbone.")}
    try:
        made.module.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(
            f"channel 'model': its weights do not fit backbone {made.name!r} of this version (it was trained with "
            f"{made.library} {row.versions.get(made.library, 'unknown')}): train it anew"
        ) from error
    weights = f"channel 'model', trained {row.created} from {row.backbone['weights']}"
    return dataclasses.replace(made, preprocessing=row.preprocessing, weights=weights)


def head(classifier: Classifier, class_names: tuple[str, ...], earlier: SourceModel) -> tuple[list[str], list[str]]:
    """Copy the head's rows of the classes that the earlier model knows; (classes taken over, new classes)."""
    known = {name: at for at, name in enumerate(earlier.manifest.class_names)}
    taken = [name for name in class_names if name in known]
    with torch.no_grad():
        for name in taken:
            at = class_names.index(name)
            classifier.head.weight[at] = earlier.state["head.weight"][known[name]]
            classifier.head.bias[at] = earlier.state["head.bias"][known[name]]
    return taken, [name for name in class_names if name not in known]
