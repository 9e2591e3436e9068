"""TrivialAugmentWide: each operation against torchvision's, and that a photo is the same in any batch."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import TrivialAugmentWide

from kennel_train.data import randomness
from kennel_train.engine import augment

ORACLE = TrivialAugmentWide()
BASE = np.indices((96, 96)).sum(0)[None, :, :, None] + np.array([0, 40, 90])
NOISE = np.random.default_rng(0).normal(0, 25, (6, 96, 96, 3))
PHOTOS = torch.from_numpy((BASE * np.linspace(0.2, 0.8, 6)[:, None, None, None] + NOISE).clip(0, 255).astype(np.uint8))
PHOTOS = PHOTOS.permute(0, 3, 1, 2)  # channels_last, as crops come


def drawn(operation: float, step: int = 0, sign: float = 0.0, count: int = 6) -> np.ndarray:
    row = np.zeros((count, randomness.COLUMNS), dtype=np.float32)
    row[:, randomness.OPERATION] = (operation + 0.5) / len(augment.OPERATIONS)
    row[:, randomness.STRENGTH] = (step + 0.5) / augment.BINS
    row[:, randomness.SIGN] = sign
    return row


@pytest.mark.parametrize("sign", [0.2, 0.8])
@pytest.mark.parametrize("step", [0, 1, 13, 30])
@pytest.mark.parametrize("code", range(14))
def test_each_operation_is_torchvisions(code, step, sign):
    name, (strengths, signed) = list(ORACLE._AUGMENTATION_SPACE.items())[code]
    found = strengths(augment.BINS, 96, 96)
    strength = 0.0 if found is None else float(found[step]) * (-1 if signed and sign < 0.5 else 1)
    wanted = ORACLE._apply_image_or_video_transform(
        PHOTOS, name, strength, interpolation=ORACLE.interpolation, fill=ORACLE._fill
    )
    got = augment.trivial(PHOTOS, drawn(code, step, sign))
    apart = (got.int() - wanted.int()).abs()
    if name in ("Color", "Contrast"):  # rounding of a float on its way to uint8
        assert apart.max() <= 1
        assert (apart > 0).float().mean() < 0.05
    elif name in ("ShearX", "ShearY", "Rotate"):  # nearest pixel, where two are as near
        assert (apart > 0).float().mean() < 0.01
    else:
        assert apart.max() == 0
    assert got.dtype == torch.uint8
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_a_photo_is_the_same_in_any_batch():
    draws = randomness.draws(5, 2, 60)
    photos = PHOTOS.repeat(10, 1, 1, 1)
    whole = augment.trivial(photos, draws)
    order = randomness.order(0, 0, 60)
    assert torch.equal(augment.trivial(photos[order], draws[order]), whole[order])
    assert torch.equal(torch.cat([augment.trivial(photos[i : i + 1], draws[i : i + 1]) for i in range(60)]), whole)
    assert torch.equal(augment.trivial(photos.contiguous(), draws), whole)


def test_every_operation_is_drawn_alike_often_and_both_ways():
    operation, strength = augment.choose(randomness.draws(0, 0, 28_000))
    assert np.abs(np.bincount(operation, minlength=14) / 2000 - 1).max() < 0.1
    rotated = strength[operation == augment.OPERATIONS.index("rotate")]
    assert len(np.unique(np.abs(rotated))) == augment.BINS
    assert abs((rotated > 0).mean() / (rotated < 0).mean() - 1) < 0.2


def test_the_photos_given_are_left_alone_and_none_is_no_error():
    before = PHOTOS.clone()
    augment.trivial(PHOTOS, randomness.draws(0, 0, 6))
    assert torch.equal(PHOTOS, before)
    assert augment.trivial(PHOTOS[:0], randomness.draws(0, 0, 0)).shape == (0, 3, 96, 96)
