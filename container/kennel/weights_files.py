"""Files of weights: which one of a folder is taken, what is read out of it, how it is made to fit a network.

Knows no names of backbones; a file's layout of another library is translated by `kennel.networks`.
"""

import argparse
import json
import math
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.layers.pos_embed import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from torch import Tensor, nn

from kennel.errors import UserError, cause
from kennel.layout import WEIGHTS_SUFFIXES

CONFIG = "config.json"  # Hugging Face's, beside the weights that it describes
MISSING = "is missing"  # how a fault ends
_HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")  # the same weights twice, the better format first
_INSIDE = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
)  # of a checkpoint; the average is better
_WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.")  # torch.compile's and DataParallel's, in either order


@dataclass(frozen=True)
class WeightsFile:
    path: Path
    config: dict[str, Any] = field(default_factory=dict)  # Hugging Face's, empty without one


@dataclass(frozen=True)
class Weights:
    name: str  # as a sentence calls them
    state: dict[str, Tensor]


def in_channel(channel: Path) -> WeightsFile:
    """The one file of the channel `pretrained`; of a folder in Hugging Face's layout the safetensors.

    Raises:
        UserError: there is none, there are several, or the config.json beside it cannot be read.
    """
    found = sorted(p for p in channel.rglob("*") if p.suffix.lower() in WEIGHTS_SUFFIXES and not p.name.startswith("."))
    configured = [path for path in found if (path.parent / CONFIG).is_file()]
    published = [path for name in _HUGGING_FACE for path in configured if path.name == name]
    if published and len({path.parent for path in published}) == 1:
        found = published[:1]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        wanted = ", ".join("*" + suffix for suffix in WEIGHTS_SUFFIXES)
        raise UserError(f"channel 'pretrained' must hold one weights file ({wanted}), found: {names}")
    config = found[0].parent / CONFIG
    return WeightsFile(found[0], _config(config) if config.is_file() else {})


def baked(name: str, folder: Path | None) -> WeightsFile | None:
    """The file of a backbone that was built into the image, if any."""
    candidates = [folder / (name + suffix) for suffix in WEIGHTS_SUFFIXES] if folder else []
    return next((WeightsFile(path) for path in candidates if path.is_file()), None)


def _config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}")
    except (ValueError, OSError) as error:
        raise UserError(
            f"channel 'pretrained': {CONFIG} cannot be read ({error}): give it whole, or leave it out"
        ) from error
    return config


def read(file: Path) -> dict[str, Tensor]:
    """The state dict in a file, out of a training's checkpoint and without the prefixes of wrappers.

    Raises:
        UserError: it holds none, or more than tensors.
    """
    try:
        if file.suffix.lower() == ".safetensors":
            content: Any = safetensors.torch.load_file(file)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # timm's checkpoints keep their flags in one
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file or a pickle that weights_only refuses
        raise UserError(
            f"weights file {file.name} cannot be read as a state dict ({_unreadable(error)}): save "
            "model.state_dict() with torch.save or safetensors"
        ) from error
    if isinstance(content, dict):
        content = next((content[key] for key in _INSIDE if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"weights file {file.name} holds no state dict: save model.state_dict() in it")
    return {_unwrapped(key): value for key, value in content.items()}


def _unwrapped(key: str) -> str:
    for prefix in _WRAPPERS:
        key = key.removeprefix(prefix)
    return key


def _unreadable(error: Exception) -> str:
    """What is wrong with a file of weights; torch's own message is advice to load any pickle, which runs code."""
    if found := re.search(r"\bGLOBAL (\S+)", str(error)):
        return f"it holds an object of {found[1]}, and tensors alone are loaded"
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of torch.save"
    return "it is empty" if isinstance(error, EOFError) else cause(error)


def fitting(state: dict[str, Tensor], module: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """A state dict with the module's keys and shapes, and what is wrong with it.

    Tensors that the module has no place for, such as the file's own head, are left out. Position embeddings of another
    image size are resampled. Counters and indices, which are no weights, may be missing.

    Returns:
        the state dict, and a line for each tensor that is missing or has another shape.
    """
    made: dict[str, Tensor] = {}
    faults: list[str] = []
    for key, own in module.state_dict().items():
        value = state.get(key)
        if value is not None and value.shape != own.shape and own.is_floating_point():
            value = _resampled(key, value, own.shape)
        if value is not None and value.shape == own.shape:
            made[key] = value
        elif not own.is_floating_point():
            made[key] = own
        else:
            faults.append(f"{key} {MISSING}" if value is None else f"{key} is {tuple(value.shape)}")
    return made, faults


def _resampled(key: str, value: Tensor, shape: torch.Size) -> Tensor:
    """An embedding or bias of positions at another grid's size; anything else, or another network's, as it is."""
    if value.dim() != len(shape):
        return value
    name = key.rpartition(".")[2]
    if name.startswith("pos_embed"):  # timm's and torchvision's, which calls it pos_embedding
        if value.dim() == 3 and value.shape[::2] == shape[::2]:
            return _grid(value, shape[1])
        if value.dim() == 4 and value.shape[3] == shape[3]:  # (1, H, W, C)
            nhwc: Tensor = resample_abs_pos_embed_nhwc(value, [shape[1], shape[2]])
            return nhwc
        if value.dim() == 4 and value.shape[1] == shape[1]:  # (1, C, H, W)
            nhwc = resample_abs_pos_embed_nhwc(value.permute(0, 2, 3, 1), [shape[2], shape[3]])
            return nhwc.permute(0, 3, 1, 2)
    if name.startswith("attention_biases") and value.dim() == 2 and value.shape[0] == shape[0]:  # (heads, positions)
        return _grid(value.T[None], shape[1])[0].T.contiguous()
    if name.startswith("relative_position_bias_table") and value.dim() == 2 and value.shape[1] == shape[1]:
        return _grid(value[None], shape[0])[0]
    return value


def _grid(value: Tensor, wanted: int) -> Tensor:
    """(1, N, C) -> (1, wanted, C), where both are a square grid behind the same few tokens of no place."""
    for tokens in range(6):  # a class token, one of distillation, registers
        old, new = math.isqrt(max(value.shape[1] - tokens, 0)), math.isqrt(max(wanted - tokens, 0))
        if old * old + tokens == value.shape[1] and new * new + tokens == wanted:
            made: Tensor = resample_abs_pos_embed(value, [new, new], [old, old], num_prefix_tokens=tokens)
            return made
    return value
