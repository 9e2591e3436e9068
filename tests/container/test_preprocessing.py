"""What photos of every kind become: upright RGB, one square; and what bytes that are no photo are told."""

import io
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kennel import preprocessing
from kennel.errors import UserError
from kennel.preprocessing import Preprocessing

ROW = Preprocessing(image_size=32, resize=36, interpolation="bicubic")
PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos"


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def square(data: bytes) -> np.ndarray:
    return preprocessing.square(preprocessing.decode(data, ROW), ROW)


@pytest.mark.parametrize("kind", preprocessing.FORMATS)
def test_every_format_becomes_one_uint8_square(kind):
    got = square(encoded(Image.new("RGB", (50, 40), (200, 100, 50)), kind))
    assert (got.shape, got.dtype) == ((3, 32, 32), np.uint8)
    assert np.abs(got.astype(int) - np.array([200, 100, 50])[:, None, None]).max() <= 8


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (77, 255), (77, 77, 77)),
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("P", 0, (0, 0, 0)),
        ("I;16", 0x8000, (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, seen):
    got = square(encoded(Image.new(mode, (40, 40), colour)))
    assert np.abs(got[:, 16, 16].astype(int) - seen).max() <= 1


def test_cmyk_jpeg_and_animated_gif():
    cmyk = Image.new("RGB", (40, 40), (200, 30, 30)).convert("CMYK")
    assert np.abs(square(encoded(cmyk, "JPEG"))[:, 16, 16].astype(int) - (200, 30, 30)).max() <= 8
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert square(gif)[:, 16, 16].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation):
    upright = Image.new("RGB", (64, 48), "black")
    upright.paste("white", (0, 0, 32, 24))  # the upper left corner is white, and must stay there
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that a camera held so would have recorded
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = square(encoded(stored, "JPEG", exif=exif, quality=95))
    assert got[:, 6, 6].min() > 200
    assert max(got[:, 6, 26].max(), got[:, 26, 6].max(), got[:, 26, 26].max()) < 50


def test_the_middle_is_kept():
    wide = Image.new("RGB", (300, 40), "black")
    wide.paste("white", (130, 0, 170, 40))
    assert square(encoded(wide)).min() > 200


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same():
    grid = np.indices((1600, 2000)).sum(0) // 400 % 2 * 255
    image = Image.fromarray(grid.astype(np.uint8)).convert("RGB")
    data = encoded(image, "JPEG", quality=95)
    assert preprocessing.decode(data, ROW).width < 500
    exact = preprocessing.square(image, ROW).astype(int)
    assert np.abs(square(data).astype(int) - exact).mean() < 4


@pytest.mark.parametrize("photo", sorted(PHOTOS.glob("*.JPEG"))[:12], ids=lambda path: path.stem)
def test_real_photos(photo):
    row = Preprocessing()
    got = preprocessing.square(preprocessing.decode(photo, row), row)
    assert got.shape == (3, 224, 224)
    assert got.std() > 5


def test_bytes_that_are_no_photo_are_refused_in_one_sentence():
    whole = encoded(Image.effect_noise((80, 80), 50).convert("RGB"), "JPEG")
    for data in (b"", b"GIF89a", b"not a photo", whole[: len(whole) // 2], whole[:30]):
        with pytest.raises(UserError, match=r"not a readable photo .*send one of JPEG") as caught:
            preprocessing.decode(data, ROW)
        assert "0x" not in str(caught.value)


@pytest.mark.parametrize("side", [(20_000, 20_000), (10_001, 10_000)])
def test_a_photo_with_too_many_pixels_is_refused_before_decoding(side):
    bomb = encoded(Image.new("1", side))
    assert len(bomb) < 100_000
    with pytest.raises(
        UserError, match=f"the photo has {side[0]}x{side[1]} pixels, more than 100000000: make it smaller"
    ):
        preprocessing.decode(bomb, ROW)


def test_a_row_survives_the_manifest_and_a_strange_one_is_refused():
    assert Preprocessing.from_json(asdict(ROW)) == ROW
    for change in ({"interpolation": "magic"}, {"resize": 3}, {"unknown": 1}, {"mean": (0.5,)}):
        with pytest.raises(UserError, match="preprocessing"):
            Preprocessing.from_json({**asdict(ROW), **change})
