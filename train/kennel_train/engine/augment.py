"""TrivialAugmentWide on uint8 photos, on any device: one operation per photo, drawn by (seed, epoch, photo).

Müller and Hutter 2021, in torchvision's version (transforms.v2.TrivialAugmentWide): its operations, 31 strengths and
ranges. torchvision takes one strength per call; here the photos of a batch that drew one kind of operation are done
together, each with its own strength, because a GPU would wait for thousands of small calls. Everything is exact
integers or element by element, so that a photo is the same in any batch.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from kennel_train.data.randomness import OPERATION, SIGN, STRENGTH

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
)
BINS = 31
_SIGNED = 10  # operations before this one go either way


def choose(drawn: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each photo's operation, int64 (n,), and its strength, float64 (n,), in that operation's own unit.

    Shear is a tangent, translation pixels, rotation degrees, the four of colour a change of the factor 1, posterize
    bits that stay, solarize the smallest value that is inverted.
    """
    operation = np.floor(drawn[:, OPERATION].astype(np.float64) * len(OPERATIONS)).astype(np.int64)
    step = np.floor(drawn[:, STRENGTH].astype(np.float64) * BINS) / (BINS - 1)
    full = np.array([0, 0.99, 0.99, 32, 32, 135, 0.99, 0.99, 0.99, 0.99, 0, 0, 0, 0])
    strength = step * full[operation] * np.where((drawn[:, SIGN] < 0.5) & (operation < _SIGNED), -1, 1)
    strength = np.where((operation == 3) | (operation == 4), np.trunc(strength), strength)
    strength = np.where(operation == 10, 8 - np.rint(6 * step), strength)
    return operation, np.where(operation == 11, 255 * (1 - step), strength)


def trivial(photos: Tensor, drawn: NDArray[np.float32]) -> Tensor:
    """Photos, uint8 (n, 3, S, S), each changed by one operation; the memory format stays.

    Args:
        drawn: the photos' rows of `randomness.draws`, float32 (n, COLUMNS), on the CPU: nothing waits for the device.
    """
    operation, strength = choose(drawn)
    changed = photos.clone()
    for code, name in enumerate(OPERATIONS[1:], 1):
        picked = np.flatnonzero(operation == code)
        if len(picked):
            index = torch.from_numpy(picked).to(photos.device, non_blocking=True)
            level = torch.from_numpy(strength[picked].astype(np.float32)).to(photos.device, non_blocking=True)
            changed[index] = _OPERATORS[name](photos[index], level[:, None, None, None])
    return changed


def _warp(photos: Tensor, rows: tuple[Tensor | float, ...], centre: float = 0.0) -> Tensor:
    """Nearest pixels under an inverse affine map (a, b, c, d, e, f) of pixel centres about `centre`; black outside."""
    side = photos.shape[-1]
    at = torch.arange(side, device=photos.device, dtype=torch.float32) + (0.5 - centre)
    x, y = at[None, None, None, :], at[None, None, :, None]
    a, b, c, d, e, f = rows
    column = (a * x + b * y + c + (centre - 0.5)).round().long()
    row = (d * x + e * y + f + (centre - 0.5)).round().long()
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    flat = (row.clamp(0, side - 1) * side + column.clamp(0, side - 1)).flatten(2)
    found = photos.flatten(2).gather(2, flat.expand(-1, photos.shape[1], -1)).view(photos.shape)
    return found * inside


def _rotate(photos: Tensor, degrees: Tensor) -> Tensor:
    turn = degrees * (math.pi / 180)
    cos, sin = turn.cos(), turn.sin()
    return _warp(photos, (cos, -sin, 0.0, sin, cos, 0.0), photos.shape[-1] / 2)


def _blend(photos: Tensor, other: Tensor, change: Tensor) -> Tensor:
    """`photos` times 1 + change and `other` times the rest; where both are the same, exactly that."""
    return other.float().lerp(photos.float(), 1 + change).clamp_(0, 255).to(torch.uint8)


def _grey(photos: Tensor) -> Tensor:
    return (photos[:, :1] * 0.2989 + photos[:, 1:2] * 0.587 + photos[:, 2:] * 0.114).floor()


def _mean_grey(photos: Tensor) -> Tensor:
    return _grey(photos).mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).float()  # exact: sums of integers


def _smooth(photos: Tensor) -> Tensor:
    """Pillow's SMOOTH kernel, the centre five times, rounded; the edge stays."""
    whole = photos.int()
    rows = whole[..., :-2, :] + whole[..., 1:-1, :] + whole[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * whole[..., 1:-1, 1:-1]
    whole[..., 1:-1, 1:-1] = (2 * sums + 13) // 26
    return whole


_OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "shear_x": lambda photos, by: _warp(photos, (1.0, by, 0.0, 0.0, 1.0, 0.0)),
    "shear_y": lambda photos, by: _warp(photos, (1.0, 0.0, 0.0, by, 1.0, 0.0)),
    "translate_x": lambda photos, by: _warp(photos, (1.0, 0.0, -by, 0.0, 1.0, 0.0)),
    "translate_y": lambda photos, by: _warp(photos, (1.0, 0.0, 0.0, 0.0, 1.0, -by)),
    "rotate": _rotate,
    "brightness": lambda photos, by: _blend(photos, torch.zeros_like(photos), by),
    "color": lambda photos, by: _blend(photos, _grey(photos), by),
    "contrast": lambda photos, by: _blend(photos, _mean_grey(photos), by),
    "sharpness": lambda photos, by: _blend(photos, _smooth(photos), by),
    "posterize": lambda photos, bits: photos & (256 - 2 ** (8 - bits)).to(torch.uint8),
    "solarize": lambda photos, least: torch.where(photos >= least, 255 - photos, photos),
    "auto_contrast": lambda photos, _: tv.autocontrast(photos),
    "equalize": lambda photos, _: tv.equalize(photos),
}
