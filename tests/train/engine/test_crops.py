"""Random and middle squares: which part of a photo is cut, and that threads change nothing."""

import cv2
import numpy as np
import pytest
from PIL import Image

from kennel.photos import preprocessing
from kennel.photos.preprocessing import Preprocessing
from kennel_train.data import randomness
from kennel_train.engine import crops

RANDOM = np.random.default_rng(0)
IMAGES = np.stack([cv2.GaussianBlur(RANDOM.integers(0, 256, (64, 64, 3), np.uint8), (5, 5), 0) for _ in range(70)])
ROWS = np.arange(70)


def test_boxes_lie_inside_and_have_the_shapes_of_random_resized_crop():
    top, left, height, width = crops.boxes(randomness.draws(0, 0, 20_000), 256).T
    assert min(top.min(), left.min()) == 0
    assert max((top + height).max(), (left + width).max()) == 256
    share, ratio = height * width / 256**2, width / height
    assert crops.MIN_AREA - 0.01 < share.min() < crops.MIN_AREA + 0.01
    assert share.max() > 0.99
    assert abs(share.mean() - (1 + crops.MIN_AREA) / 2) < 0.01
    assert 0.74 < ratio.min() < 0.76 < 1.32 < ratio.max() < 1.35
    assert abs(np.log(ratio).mean()) < 0.01
    room = (256 - height) > 50
    assert abs((top / (256 - height).clip(1))[room].mean() - 0.5) < 0.01


@pytest.mark.parametrize("side", [16, 48, 64, 100])
def test_a_crop_is_the_resized_box_mirrored_half_of_the_time(side):
    draws = randomness.draws(3, 1, 70)
    cut = crops.random_resized(IMAGES, ROWS, draws, side)
    assert (cut.shape, cut.dtype) == ((70, side, side, 3), np.uint8)
    mirrored = 0
    for image, row, (top, left, height, width), got in zip(IMAGES, draws, crops.boxes(draws, 64), cut, strict=True):
        box = Image.fromarray(image[top : top + height, left : left + width])
        exact = np.asarray(box.resize((side, side), Image.Resampling.BILINEAR)).astype(int)
        flip = row[randomness.MIRROR] < 0.5
        mirrored += flip
        assert np.abs((exact[:, ::-1] if flip else exact) - got).mean() < 6
    assert 20 < mirrored < 50


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_batches_order_and_threads_change_nothing(threads):
    draws = randomness.draws(3, 1, 70)
    whole = crops.random_resized(IMAGES, ROWS, draws, 40)
    shuffled = randomness.order(0, 0, 70)
    assert (crops.random_resized(IMAGES, ROWS[shuffled], draws[shuffled], 40, threads) == whole[shuffled]).all()
    single = [crops.random_resized(IMAGES, ROWS[i : i + 1], draws[i : i + 1], 40, threads)[0] for i in range(70)]
    assert (np.stack(single) == whole).all()
    assert (crops.random_resized(IMAGES[::-1], 69 - ROWS, draws, 40, threads) == whole).all()


def test_photos_on_disk_give_the_same(tmp_path):
    on_disk = np.memmap(tmp_path / "photos", dtype=np.uint8, mode="w+", shape=IMAGES.shape)
    on_disk[:] = IMAGES
    draws = randomness.draws(3, 1, 70)
    got = crops.random_resized(on_disk, ROWS, draws, 40)
    assert (got == crops.random_resized(IMAGES, ROWS, draws, 40)).all()
    assert type(got) is type(crops.middle(on_disk, ROWS, 40)) is np.ndarray


@pytest.mark.parametrize("side", [23, 24, 64])
def test_the_middle_is_what_serving_cuts(side):
    row = Preprocessing(image_size=side, resize=64)
    photo = Image.fromarray(RANDOM.integers(0, 256, (90, 130, 3), np.uint8))
    cache = np.stack([preprocessing.pixels(photo, row, 64)] * 2)
    got = crops.middle(cache, np.array([1]), side)
    assert (got[0].transpose(2, 0, 1) == preprocessing.square(photo, row)).all()


def test_no_photos_are_no_error():
    none = np.arange(0)
    assert crops.random_resized(IMAGES, none, randomness.draws(0, 0, 0), 8, 2).shape == (0, 8, 8, 3)
    assert crops.middle(IMAGES, none, 8).shape == (0, 8, 8, 3)
