"""Bytes -> an upright RGB picture. Both sides use this, nothing else.

simplejpeg decodes JPEG (libjpeg-turbo at its best, and it reduces while it decodes); Pillow does the rest: every other
format (HEIC by pillow-heif), headers, and the verdict on whatever simplejpeg refuses.
"""

import io
import math
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kennel import cgroup
from kennel.errors import UserError
from kennel.photos import resizing, rgb
from kennel.photos.file_formats import HEAD, suffix
from kennel.photos.preprocessing import Preprocessing
from kennel.photos.resizing import Picture

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC")
_PILLOWS = FORMATS[:-1]
MAX_PIXELS = 100_000_000
MAX_BYTES = 1 << 30  # of a file: a photo of so many pixels, 16 bits a channel and not compressed, has 800 MB
Image.MAX_IMAGE_PIXELS = None  # the limit is ours, checked before decoding: Pillow's own would warn at another number
warnings.filterwarnings("ignore", module=r"PIL\.")  # of torn metadata: such a photo is either read or refused
MAX_SCANS = 100  # of a progressive JPEG; encoders write 10 or so, and each is a pass over the whole picture
# Bytes that decoding takes at its most for each pixel, by measurement on 24 megapixels; unknown formats as the worst.
_DECODING = {"JPEG": 4, "MPO": 4, "PNG": 6, "WEBP": 16, "GIF": 2, "BMP": 5, "TIFF": 7, "AVIF": 11}
_PROGRESSIVE, _WORST = 9, 16
_WHOLE = 21  # ... and more where a picture is too narrow to be converted band by band
_OTHERS = {".jp2": "JPEG 2000"}  # formats that are known and not read
_PNG, _EIGHT = b"\x89PNG\r\n\x1a\n", 8
_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")  # the chunks of a PNG that are read
_JPEG_END = b"\xff\xd9"
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height

# What undoes each orientation, as in Pillow's exif_transpose.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TooManyPixelsError(UserError):
    """A photo that is refused before it is decoded, for its size alone."""


@dataclass(frozen=True)
class Upright:
    """A decoded photo: RGB, the right way up, maybe at a reduced size; and its own size before that, in pixels."""

    image: Picture
    width: int
    height: int


def decode(photo: bytes | Path, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> Picture:
    """`read`'s image alone."""
    return read(photo, preprocessing, max_pixels).image


def read(
    photo: bytes | Path, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS, max_bytes: int | None = None
) -> Upright:
    """An upright RGB picture: EXIF orientation applied, alpha laid on white, the first frame of an animation.

    A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, the smallest that still has twice the pixels that
    `preprocessing` needs, so 1.42 times its side: other fractions take longer than they save. On 100 ImageNet photos
    lite0's answers differ no more from those of a full decode than with twice the side.

    Args:
        max_bytes: that decoding may take; None: this container's memory allows it on all of its CPUs at once.

    Raises:
        TooManyPixelsError: more than `max_pixels`, or than can be decoded in `max_bytes`.
        UserError: not a photo, truncated, or of an unknown format.
    """
    try:
        data = _picture(photo if isinstance(photo, bytes) else contents(photo))
        with opened(data) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise TooManyPixelsError(
                    f"the photo has {width}x{height} pixels, more than {max_pixels}: make it smaller"
                )
            wanted = _wanted(preprocessing)
            _check_bytes(image, wanted, _most_bytes() if max_bytes is None else max_bytes)
            picture = _jpeg(data, image, wanted)
            if picture is None:
                picture = rgb.reduced(image, wanted, preprocessing.white_level)
            orientation = _orientation(image)
            if orientation in _TURNS:
                picture = resizing.as_pillow(picture).transpose(_TURNS[orientation])
            if orientation in _ON_ITS_SIDE:
                width, height = height, width
            return Upright(picture, width, height)
    except (UserError, MemoryError):  # too many pixels; no fault of the photo's
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        cause = _OTHERS.get(suffix(data[:HEAD])) if isinstance(error, UnidentifiedImageError) else None
        raise UserError(f"not a readable photo ({cause or _short(error)}): send one of {', '.join(FORMATS)}") from error


def contents(path: Path) -> bytes:
    """A photo's file.

    Raises:
        UserError: it is larger than a photo can be; nothing of it is read then.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"the file has {size:,} bytes, more than {MAX_BYTES:,}: no photo that is read here is so large")
    return path.read_bytes()


def opened(data: bytes) -> Image.Image:
    """A photo of one of `FORMATS` of which only the head is read so far.

    Raises:
        Exception: nearly any, by Pillow, on bytes that are no photo.
    """
    if suffix(data[:HEAD]) != ".heic":
        return Image.open(io.BytesIO(data), formats=_PILLOWS)
    _register_heif()
    return Image.open(io.BytesIO(data), formats=(*_PILLOWS, "HEIF"))  # some AVIF have HEIF's general brand


@cache
def _register_heif() -> None:
    """Once, and only where such a photo comes: the import loads 26 MB of libraries.

    HEIC says itself how it is turned: libheif applies that, and pillow-heif takes EXIF's orientation away.
    """
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)  # photos are decoded side by side


def of_pixels(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> Picture:
    """What `decode` gives for a PNG of these pixels: uint8, (H, W, 3), RGB and upright."""
    return rgb.reduced(Image.fromarray(np.ascontiguousarray(pixels)), _wanted(preprocessing), 0.0)


def _wanted(preprocessing: Preprocessing) -> int:
    """Pixels of the short side that a reduced picture keeps at least."""
    return math.ceil(math.sqrt(2) * preprocessing.resize)


def _check_bytes(image: Image.Image, wanted: int, most: int) -> None:
    """By the head alone: a WebP of 4 kB may take 1.6 GB."""
    kind = image.format or ""
    each = _PROGRESSIVE if image.info.get("progressive") else _DECODING.get(kind, _WORST)
    by_pillow = kind not in ("JPEG", "MPO") or image.mode == "CMYK"
    if by_pillow and min(image.size) < 4 * wanted:
        each += _WHOLE
    needed = each * image.width * image.height
    if needed > most:
        raise TooManyPixelsError(
            f"the photo has {image.width}x{image.height} pixels, and to decode them as {kind} takes {needed >> 20} MB "
            f"of memory, more than {most >> 20} MB: make it smaller, or choose an instance with more memory"
        )


@cache
def _most_bytes() -> int:
    """Half of the memory, for as many photos at once as there are CPUs."""
    return cgroup.memory_bytes() // 2 // cgroup.cpus()


def _picture(data: bytes) -> bytes:
    """A file's bytes without what is none of the picture's and can spoil it.

    Of a PNG the texts, profiles and dates, which may be damaged or unpack to gigabytes; of a JPEG line ends before it.
    """
    if data[:1] in (b"\r", b"\n"):
        data = data.lstrip(b"\r\n")
    if not data.startswith(_PNG):
        return data
    view, at, parts = memoryview(data), _EIGHT, [memoryview(data)[:_EIGHT]]
    while at + _EIGHT <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4])
        kind = bytes(view[at + 4 : at + _EIGHT])
        torn = kind == b"eXIf" and bytes(view[at + _EIGHT : at + 12]) not in (b"II*\x00", b"MM\x00*")
        if kind in _PICTURE and not torn:
            parts.append(view[at:end])
        at = end
    return b"".join(parts)


def _orientation(image: Image.Image) -> int | None:
    """EXIF's, None where there is none or it is damaged; of a TIFF there is none any more, Pillow has turned it."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - the picture itself is whole
        return None


def _jpeg(data: bytes, image: Image.Image, wanted: int) -> Picture | None:
    """A grey or colour JPEG by simplejpeg, its short side at least `wanted` pixels where it had them.

    None where Pillow must look at it: another format, CMYK, or a stream that libjpeg warns of, such as stray bytes
    between markers. Only a cut is final: Pillow would fill the rest of some with grey.

    Raises:
        ValueError: cut short.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
        return None
    if not image.info.get("progressive"):
        # Some cameras put a trailer where the end marker should be. A cut in the picture is still seen: its rows end
        # too early. Not so of a progressive one, whose later scans only refine it.
        data = data if data.endswith(_JPEG_END) else data + _JPEG_END
    elif (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise UserError(f"the photo has {scans} scans, more than {MAX_SCANS}: save it again as a usual JPEG")
    width, height = image.size
    scale = next((scale for scale in (8, 4, 2) if min(width, height) // scale >= wanted), 1)
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            return None  # only the size that was held against the pixel limit is decoded
        least = {"min_height": -(-height // scale), "min_width": -(-width // scale)}
        array: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, **least)
    except ValueError as error:
        if "premature end" in str(error).lower():
            raise
        return None
    return array


def _short(error: Exception) -> str:
    """The error's first line, without the address of the buffer that Pillow names."""
    text = str(error).split("\n", 1)[0].split(" <_io", 1)[0]
    return text[:120] or type(error).__name__
