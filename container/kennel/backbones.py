"""From a backbone's name to a torch module without its head, its weights and the preprocessing they expect.

torchvision and timm hold the networks (`kennel.networks`), files their weights (`kennel.weights_files`); this module
chooses and says plainly what is missing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kennel import weights_files
from kennel.errors import UserError, cause, did_you_mean
from kennel.layout import WEIGHTS_SUFFIXES
from kennel.networks import architecture, timm_models, torchvision_models
from kennel.networks.architecture import Architecture
from kennel.photos.preprocessing import Preprocessing
from kennel.weights_files import Weights, WeightsFile


@dataclass(frozen=True)
class Backbone:
    """A headless network: `module` maps normalized float (N, 3, S, S) to features (N, `width`)."""

    name: str
    library: str
    module: nn.Module
    width: int
    preprocessing: Preprocessing
    weights: str  # where they came from, for the manifest


class Classifier(nn.Module):
    """Photos in, logits out: normalization, backbone and head in one module, the one that is saved and exported.

    `forward` maps uint8 (N, 3, S, S) to float (N, classes).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        row = backbone.preprocessing
        self.register_buffer("mean", 255.0 * torch.tensor(row.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255.0 * torch.tensor(row.std).view(1, 3, 1, 1))
        self.image_size = row.image_size
        self.backbone = backbone.module
        self.head = nn.Linear(backbone.width, classes)

    def normalized(self, photos: Tensor) -> Tensor:
        """uint8 (N, 3, S, S) -> what the backbone takes, float (N, 3, S, S)."""
        return (photos.float() - self.mean) / self.std

    def features(self, photos: Tensor) -> Tensor:
        """uint8 (N, 3, S, S) -> float (N, width)."""
        features: Tensor = self.backbone(self.normalized(photos))
        return features

    def forward(self, photos: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(photos))
        return logits


def own_size(name: str, channel: Path | None) -> int:
    """The image size that the weights of a backbone were made for, pixels.

    Args:
        channel: the folder of the `pretrained` channel, whose config.json knows better, or None.

    Raises:
        UserError: no such backbone, or the channel holds no weights of it.
    """
    return _architecture(name, weights_files.in_channel(channel) if channel else None).own_size


def load(name: str, image_size: int, pretrained: bool, channel: Path | None, baked: Path | None) -> Backbone:
    """A backbone with its weights: from the `pretrained` channel, else baked into the image, else downloaded.

    Args:
        image_size: pixels; the resize before it keeps the library's own ratio. Where the network depends on it, it is
            built for it, and its position embeddings are resampled.
        channel: the folder of the `pretrained` channel, or None.
        baked: a folder with `<name>.safetensors` or `<name>.pth`, or None.

    Raises:
        UserError: no such backbone, not for that size, no weights to be had, or weights of another network.
    """
    file = (weights_files.in_channel(channel) if channel else weights_files.baked(name, baked)) if pretrained else None
    found = _architecture(name, file)
    weights = None
    if file:
        weights = Weights(f"weights file {file.path.name}", weights_files.read(file.path))
    elif pretrained:
        weights = Weights(found.weights, _downloaded(found))
    try:
        module, width = architecture.pooled(found.build(image_size, weights), image_size)
    except UserError:
        raise
    except Exception as error:  # each architecture raises its own
        raise UserError(wrong_size(name, image_size, error)) from error
    source = file.path.name if file else found.weights if pretrained else "random"
    return Backbone(name, found.library, module, width, found.preprocessing(image_size), source)


def _architecture(name: str, file: WeightsFile | None) -> Architecture:
    """torchvision's of that name, else timm's.

    Raises:
        UserError: there is none, or the config.json beside the weights is another one's.
    """
    config = file.config if file else {}
    of_torchvision = name in torchvision_models.names()
    if config:
        _check(config, name, of_torchvision)
    if of_torchvision:
        return torchvision_models.find(name)
    if timm.is_model(name):
        return timm_models.find(name, config)
    known = {*torchvision_models.names(), *timm.list_models()}
    hint = did_you_mean(name, known, "for example resnet50 or tf_efficientnet_lite0", most=3, cutoff=0.6)
    raise UserError(f"hyperparameter backbone={name!r} is no torchvision or timm model: {hint}")


def _check(config: Mapping[str, Any], name: str, of_torchvision: bool) -> None:
    """Refuse a config.json of Hugging Face's that is not the backbone's."""
    where = f"channel 'pretrained': its {weights_files.CONFIG}"
    theirs = config.get("architecture")
    if theirs is None and (kinds := config.get("architectures")):
        raise UserError(
            f"{where} is of {kinds[0]}, a class of the transformers library, whose weights have other names: give the "
            "same model's weights as timm publishes them"
        )
    if isinstance(theirs, str) and theirs != name.partition(".")[0]:
        raise UserError(
            f"{where} says architecture {theirs!r}, the job backbone={name!r}: set backbone={theirs}, or give the "
            f"weights of {name}"
        )
    if theirs and of_torchvision:
        tag = getattr(timm.get_pretrained_cfg(name), "tag", "")
        raise UserError(
            f"{where} is timm's, and backbone={name!r} is torchvision's: set backbone={name}.{tag}, which is timm's"
        )


def _downloaded(found: Architecture) -> dict[str, Tensor]:
    try:
        return found.download()
    except Exception as error:  # each library has its own idea of "no network"
        raise UserError(_three_ways(found.name, error)) from error


def wrong_size(name: str, image_size: int, error: Exception) -> str:
    """The sentence for a backbone that cannot take photos of this size."""
    own, cure = own_size(name, None), "choose another backbone"
    if image_size != own:
        cure = f"set image_size={own}, or {cure}"
    return f"backbone {name!r} cannot take image_size={image_size} ({cause(error)}): {cure}"


def not_exportable(name: str, error: Exception) -> str:
    """The sentence for a backbone that torch cannot write as ONNX, with the exporter's own cause and no colours."""
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    found = re.search(r"<class '[\w.]+'>: ([^\n]+)", text)
    return (
        f"backbone {name!r} cannot be exported to ONNX, which endpoints run "
        f"({found[1][:160] if found else cause(RuntimeError(text))}): choose another backbone"
    )


def _three_ways(name: str, error: Exception) -> str:
    return (
        f"no pretrained weights for {name!r}: give them in a channel 'pretrained' (one file: "
        f"{', '.join(WEIGHTS_SUFFIXES)}), or bake them into the image (make build WEIGHTS=folder), or let the job "
        f"reach the internet for the library's download, which failed here ({cause(error)}); "
        f"pretrained=false trains from random weights"
    )
