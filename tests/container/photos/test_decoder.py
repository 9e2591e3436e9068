"""What photos of every kind become: upright RGB, one square; and the message for bytes that are no photo."""

import dataclasses
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from kennel.errors import UserError
from kennel.photos import decoder, preprocessing, resizing, rgb
from kennel.photos.preprocessing import Preprocessing

ROW = Preprocessing(image_size=32, resize=36, interpolation="bicubic")
PHOTOS = Path(__file__).resolve().parents[4] / "shared" / "data" / "photos"


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    if kind == "HEIC":
        pillow_heif.from_pillow(image).save(out, **options)
    else:
        image.save(out, kind, **options)
    return out.getvalue()


def size(picture: resizing.Picture) -> tuple[int, int]:
    return resizing.as_pillow(picture).size


def square(data: bytes) -> np.ndarray:
    return preprocessing.square(decoder.decode(data, ROW), ROW)


@pytest.mark.parametrize("kind", decoder.FORMATS)
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


def scene(mode: str = "RGB") -> Image.Image:
    """A smooth picture of 90x60 with every hue, which lossy formats keep."""
    y, x = np.indices((60, 90))
    return Image.fromarray(np.stack([x * 255 // 89, y * 255 // 59, 255 - x * 255 // 89], 2).astype(np.uint8)).convert(
        mode
    )


def close(data: bytes, picture: Image.Image, limit: float = 3.0) -> None:
    wanted = preprocessing.square(picture.convert("RGB"), ROW).astype(int)
    assert np.abs(square(data).astype(int) - wanted).mean() < limit


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {"quality": 95}),
        ("RGB", "JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("RGB", "JPEG", {"quality": 95, "keep_rgb": True}),
        ("L", "JPEG", {"quality": 95}),
        ("L", "PNG", {}),
        ("P", "PNG", {}),
        ("P", "GIF", {}),
        ("RGB", "WEBP", {"quality": 95}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("CMYK", "TIFF", {}),
        ("RGB", "BMP", {}),
    ],
)
def test_each_format_and_mode_shows_the_same_picture(mode, kind, options):
    picture = scene(mode)
    close(encoded(picture, kind, **options), picture)


def test_cmyk_jpeg_as_photoshop_inverts_it():
    """Pillow writes the Adobe marker that says so; without it the values mean ink, as they are."""
    picture = scene("CMYK")
    close(encoded(picture, "JPEG", quality=95, subsampling=0), picture, 6.0)
    assert b"Adobe" in encoded(picture, "JPEG")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    grey = np.asarray(scene("L"))
    close(encoded(Image.fromarray(grey.astype(np.uint16) * 257), kind), Image.fromarray(grey), 1.0)


def test_16_bit_colour_is_scaled():
    """Pillow writes none: a PNG by hand."""
    wide = np.asarray(scene()).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in wide)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 90, 60, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    close(png, scene(), 1.0)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_entry_lies_on_white(kind):
    image = Image.new("P", (40, 40), 1)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.paste(0, (0, 0, 40, 20))
    got = square(encoded(image, kind, transparency=0))
    assert (got[:, 2, 16].tolist(), got[:, 30, 16].tolist()) == ([255, 255, 255], [200, 0, 0])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    got = square(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))[:, 16, 16]
    assert np.abs(got.astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation, kind):
    upright = Image.new("RGB", (640, 480), "black")
    upright.paste("white", (0, 0, 320, 240))  # the upper left corner is white, and must stay there
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that a camera held so would have recorded
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif, quality=95)
    read = decoder.read(data, ROW)
    got = preprocessing.square(read.image, ROW)
    assert got[:, 6, 6].min() > 200
    assert max(got[:, 6, 26].max(), got[:, 26, 6].max(), got[:, 26, 26].max()) < 50
    assert (read.width, read.height) == (640, 480)
    assert size(read.image) == ((80, 60) if kind == "JPEG" else (160, 120))


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same():
    grid = np.indices((1600, 2000)).sum(0) // 400 % 2 * 255
    image = Image.fromarray(grid.astype(np.uint8)).convert("RGB")
    data = encoded(image, "JPEG", quality=95)
    read = decoder.read(data, ROW)
    assert (read.width, read.height, size(read.image)) == (2000, 1600, (250, 200))
    exact = preprocessing.square(image, ROW).astype(int)
    assert np.abs(square(data).astype(int) - exact).mean() < 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_large_drawing_is_reduced_in_bands_and_looks_the_same(mode):
    whole = scene().resize((901, 1203))
    grey = np.asarray(whole.convert("L"))
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else whole.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(grey))
    data = encoded(image)
    read = decoder.read(data, ROW)
    assert (read.width, read.height, size(read.image)) == (901, 1203, (113, 151))
    exact = preprocessing.square(rgb.reduced(image, min(image.size), 0.0), ROW).astype(int)
    assert np.abs(square(data).astype(int) - exact).mean() < 3


@pytest.mark.parametrize(("side", "decoded"), [(101, 101), (102, 51), (203, 102), (204, 51), (408, 51), (409, 52)])
def test_a_jpeg_keeps_twice_the_pixels_that_are_needed(side, decoded):
    picture = decoder.decode(encoded(Image.new("RGB", (side, side)), "JPEG"), ROW)
    assert size(picture) == (decoded, decoded)


def test_a_jpeg_that_libjpeg_only_warns_of_is_read():
    whole = encoded(scene(), "JPEG", quality=95)
    tables, version = whole.index(b"\xff\xdb"), whole.index(b"JFIF") + 5
    close(whole[:tables] + b"stray" + whole[tables:], scene())
    close(whole[:version] + b"\x09" + whole[version + 1 :], scene())
    close(whole + b"and a tail", scene())


def test_a_whole_jpeg_without_its_end_marker_is_read():
    whole = encoded(scene(), "JPEG", quality=95)
    for data in (whole[:-2], whole[:-2] + b"SEFT a trailer", b"\r\n" + whole):
        close(data, scene())


def test_the_scans_of_a_progressive_jpeg_are_counted():
    slow = encoded(scene(), "JPEG", quality=95, progressive=True)
    last = slow.rindex(b"\xff\xda")
    with pytest.raises(UserError, match=r"the photo has 5.. scans, more than 100: save it again"):
        decoder.decode(slow[:-2] + slow[last:-2] * 500 + slow[-2:], ROW)


def chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    right = zlib.crc32(kind + content) if crc is None else crc
    return len(content).to_bytes(4) + kind + content + right.to_bytes(4)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"eXIf", b"no TIFF at all"),
        chunk(b"tEXt", b"Comment\0text", crc=1),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000))),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"gAMA", b"\0"),
    ],
    ids=["exif", "sum", "text", "profile", "short"],
)
def test_what_is_not_the_picture_does_not_spoil_a_png(extra):
    whole = encoded(scene(), "PNG")
    close(whole[:33] + extra + whole[33:], scene())


def test_a_png_that_is_cut_is_refused():
    whole = encoded(scene(), "PNG")
    for data in (whole[: len(whole) // 2], whole[:30], whole[:8]):
        with pytest.raises(UserError, match="not a readable photo"):
            decoder.decode(data, ROW)


def test_avif_is_read_and_other_formats_are_named():
    close(encoded(scene(), "AVIF", quality=95), scene())
    with pytest.raises(UserError, match=r"not a readable photo \(JPEG 2000\): send one of JPEG"):
        decoder.decode(encoded(scene(), "JPEG2000"), ROW)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_heic_is_turned_once(orientation):
    """A phone writes the turn twice: as HEIC's own property, which counts, and as EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), "HEIC", quality=95, exif=exif.tobytes())
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(scene(), "PNG", exif=exif))))
    close(data, upright)
    read = decoder.read(data, ROW)
    assert (read.width, read.height) == upright.size


def test_heic_that_is_cut_or_larger_than_it_says_is_refused():
    whole = encoded(scene(), "HEIC")
    hostile = re.sub(rb"(?s)ispe.{12}", struct.pack(">4sIII", b"ispe", 0, 9, 6), whole)
    assert hostile != whole
    for data in (whole[: len(whole) // 2], whole[:-1], whole[:16], b"\0\0\0\x18ftypheic" + bytes(100), hostile):
        with pytest.raises(UserError, match="not a readable photo"):
            decoder.decode(data, ROW)
    with pytest.raises(decoder.TooManyPixelsError):
        decoder.decode(whole, ROW, max_pixels=5000)


@pytest.mark.parametrize(
    ("dtype", "format", "white"),
    [(np.uint16, "PNG", 65535), (np.uint16, "TIFF", 65535), (np.int32, "TIFF", 65535), (np.float32, "TIFF", 1.0)],
)
def test_white_is_what_the_type_says_for_dark_photos_too(dtype, format, white):
    """A photo taken in 1/100 of the light stays dark, whatever one pixel of it holds."""
    dark = np.full((80, 80), white / 100).astype(dtype)
    spoilt = dark.copy()
    spoilt[0, 0] = white
    for values in (dark, spoilt):
        assert abs(int(square(encoded(Image.fromarray(values), format)).mean()) - 2) <= 1
    level = dataclasses.replace(ROW, white_level=white / 100)
    assert preprocessing.square(decoder.decode(encoded(Image.fromarray(dark), format), level), level).min() > 250


def test_a_photo_that_its_type_would_make_white_is_refused_unless_white_level_says_what_white_is():
    values = np.linspace(0, 255, 6400, dtype=np.float32).reshape(80, 80)
    photo, level = encoded(Image.fromarray(values), "TIFF"), dataclasses.replace(ROW, white_level=255.0)
    with pytest.raises(UserError, match=r"values go up to 25\d.* white is 1 in .*: train with white_level"):
        decoder.decode(photo, ROW)
    assert 120 < preprocessing.square(decoder.decode(photo, level), level).mean() < 135
    glare = np.full((80, 80), 0.5, np.float32)
    glare[:30] = 40.0  # the sun in a photo of high dynamic range
    assert 100 < square(encoded(Image.fromarray(glare), "TIFF")).mean() < 200


def test_a_cut_jpeg_is_refused_even_where_its_end_was_repaired():
    whole, end = encoded(scene(), "JPEG", quality=95), b"\xff\xd9"
    slow = encoded(scene(), "JPEG", quality=95, progressive=True)
    for data in (whole[:-40], whole[:-40] + end, whole[: len(whole) // 2] + end, slow[:-2], slow[:-40]):
        with pytest.raises(UserError, match=r"not a readable photo \(.*[Pp]remature end .*send one of JPEG"):
            decoder.decode(data, ROW)


def test_a_second_header_does_not_lift_the_pixel_limit():
    small, large = (encoded(Image.new("RGB", (side, side)), "JPEG") for side in (64, 12_000))

    def header(data: bytes) -> bytes:
        at = data.index(b"\xff\xc0")
        return data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4])]

    for first, second in ((small, large), (large, small)):
        at = first.index(header(first)) + len(header(first))
        with pytest.raises(UserError):
            decoder.decode(first[:at] + header(second) + first[at:], ROW)


@pytest.mark.parametrize("photo", sorted(PHOTOS.glob("*.JPEG"))[:12], ids=lambda path: path.stem)
def test_real_photos(photo):
    row = Preprocessing()
    got = preprocessing.square(decoder.decode(photo, row), row)
    assert got.shape == (3, 224, 224)
    assert got.std() > 5


def test_bytes_that_are_no_photo_are_refused_in_one_sentence():
    whole = encoded(Image.effect_noise((80, 80), 50).convert("RGB"), "JPEG")
    for data in (b"", b"GIF89a", b"not a photo", whole[: len(whole) // 2], whole[:30]):
        with pytest.raises(UserError, match=r"not a readable photo .*send one of JPEG") as caught:
            decoder.decode(data, ROW)
        assert "0x" not in str(caught.value)


@pytest.mark.parametrize("side", [(20_000, 20_000), (10_001, 10_000)])
def test_a_photo_with_too_many_pixels_is_refused_before_decoding(side):
    bomb = encoded(Image.new("1", side))
    assert len(bomb) < 100_000
    with pytest.raises(
        UserError, match=f"the photo has {side[0]}x{side[1]} pixels, more than 100000000: make it smaller"
    ):
        decoder.decode(bomb, ROW)


@pytest.mark.parametrize(
    ("kind", "options", "fits"),
    [
        ("WEBP", {"lossless": True}, False),
        ("PNG", {}, True),
        ("JPEG", {}, True),
        ("JPEG", {"progressive": True}, False),
    ],
)
def test_memory_of_a_decode_is_bounded_by_format_before_it_begins(kind, options, fits):
    photo = encoded(Image.new("RGB", (1000, 1000), "red"), kind, **options)
    most = 8_000_000
    if fits:
        assert decoder.read(photo, ROW, max_bytes=most).width == 1000
    else:
        with pytest.raises(decoder.TooManyPixelsError, match=rf"1000x1000 pixels.* as {kind} takes \d+ MB"):
            decoder.read(photo, ROW, max_bytes=most)
