"""The middle square of real photos: the same by SIMD and by Pillow, as an array and as a Pillow image."""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kennel.photos import resizing

PHOTOS = sorted((Path(__file__).resolve().parents[4] / "shared" / "data" / "photos").glob("*.JPEG"))[:10]
NOISE = [
    np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    for seed, (height, width) in enumerate([(375, 500), (500, 333), (40, 41), (1, 1), (1, 300), (256, 256)])
]
needs_simd = pytest.mark.skipif(resizing.simd is None, reason="cykooz.resizer is built for x86-64 only")


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Within a grey level; two where a rounding of either pass meets the other's, once in a hundred thousand."""
    apart = np.abs(one.astype(int) - other)
    return bool(apart.max() <= 2 and (apart > 1).mean() < 1e-5)


@needs_simd
@pytest.mark.parametrize("interpolation", resizing.FILTERS)
def test_simd_is_pillow_on_real_photos(interpolation):
    if not PHOTOS:
        pytest.skip("shared/data/photos is not here")
    for path in PHOTOS:
        photo = np.asarray(Image.open(path).convert("RGB"))
        for side in (256, 232, 97):
            exact = resizing.by_pillow(photo, side, interpolation)
            assert close(resizing.by_simd(photo, side, interpolation), exact)


@needs_simd
@pytest.mark.parametrize("interpolation", resizing.FILTERS)
@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: "x".join(map(str, noise.shape[1::-1])))
def test_simd_is_pillow_on_any_shape(noise, interpolation):
    got = resizing.by_simd(noise, 64, interpolation)
    assert (got.shape, got.dtype) == ((64, 64, 3), np.uint8)
    assert close(got, resizing.by_pillow(noise, 64, interpolation))


@pytest.mark.parametrize("way", [resizing.middle, resizing.by_pillow])
@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: "x".join(map(str, noise.shape[1::-1])))
def test_arrays_and_pillow_images_give_the_same_bytes(noise, way):
    """A JPEG comes as one, its lossless copy as the other, and the audit must know them as one picture."""
    assert (way(noise, 64, "bicubic") == way(Image.fromarray(noise), 64, "bicubic")).all()


def test_threads_do_not_meet():
    alone = [resizing.middle(noise, 128, "bilinear") for noise in NOISE]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            together = pool.map(lambda noise: resizing.middle(noise, 128, "bilinear"), NOISE)
            assert all((one == other).all() for one, other in zip(alone, together, strict=True))


def test_pillow_stands_in_where_there_is_no_simd(monkeypatch):
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)  # an import of it raises ImportError
    monkeypatch.delitem(sys.modules, "kennel.photos.resizing")
    without = importlib.import_module("kennel.photos.resizing")
    monkeypatch.setattr("kennel.photos.resizing", resizing)
    assert without.simd is None
    exact = resizing.by_pillow(NOISE[0], 64, "bicubic")
    assert (without.middle(NOISE[0], 64, "bicubic") == exact).all()
    assert resizing.simd is None or (resizing.middle(NOISE[0], 64, "bicubic") != exact).any()
