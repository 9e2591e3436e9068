"""What a photo becomes before the model: bytes -> upright RGB -> a uint8 square. Both sides use this, nothing else.

Normalization is not here: it is the first layer of the exported model, so that it cannot be applied twice or
forgotten. simplejpeg decodes JPEG (libjpeg-turbo at its best, and it reduces while it decodes); Pillow does the rest:
every other format, headers, and the verdict on whatever simplejpeg refuses. Resizing is `kennel.resizing`'s.
"""

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from kennel import resizing
from kennel.errors import UserError
from kennel.resizing import Picture

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = None  # the limit is ours, checked before decoding: Pillow's own would warn at another number
warnings.filterwarnings("ignore", module=r"PIL\.")  # of torn metadata: such a photo is either read or refused
_BAND = 64  # rows of the reduced picture at a time
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
class Preprocessing:
    """One row, saved in the manifest: the short side becomes `resize` pixels, the middle `image_size` square is cut.

    `mean` and `std` are per RGB channel in units of 0–1; they are baked into the exported model and recorded here
    for readers of the manifest.
    """

    image_size: int = 224
    resize: int = 256
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Preprocessing":
        """The row of a manifest.

        Raises:
            UserError: a field is missing, unknown or impossible.
        """
        try:
            made = cls(**{**row, "mean": tuple(row["mean"]), "std": tuple(row["std"])})
            sizes = 0 < made.image_size <= made.resize
            if not sizes or made.interpolation not in resizing.FILTERS or len(made.mean) != 3 or len(made.std) != 3:
                raise ValueError(str(row))
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(f"the manifest's preprocessing is not one this version knows: {error}") from error
        return made


@dataclass(frozen=True)
class Upright:
    """A decoded photo: RGB, the right way up, maybe at a reduced size; and its own size before that, in pixels."""

    image: Picture
    width: int
    height: int


def decode(photo: bytes | Path, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> Picture:
    """`read`'s image alone."""
    return read(photo, preprocessing, max_pixels).image


def read(photo: bytes | Path, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> Upright:
    """An upright RGB picture: EXIF orientation applied, alpha laid on white, the first frame of an animation.

    A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, the smallest that still has twice the pixels that
    `preprocessing` needs, so 1.42 times its side: other fractions take longer than they save. On 100 ImageNet photos
    lite0's answers differ no more from those of a full decode than with twice the side.

    Raises:
        TooManyPixelsError: more than `max_pixels`.
        UserError: not a photo, truncated, or of an unknown format.
    """
    try:
        data = photo if isinstance(photo, bytes) else photo.read_bytes()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise TooManyPixelsError(
                    f"the photo has {width}x{height} pixels, more than {max_pixels}: make it smaller"
                )
            wanted = math.ceil(math.sqrt(2) * preprocessing.resize)
            picture = _jpeg(data, image, wanted)
            if picture is None:
                picture = _any(image, wanted)
            orientation = image.getexif().get(_ORIENTATION)  # of a TIFF: none any more, Pillow has turned it
            if orientation in _TURNS:
                picture = resizing.as_pillow(picture).transpose(_TURNS[orientation])
            if orientation in _ON_ITS_SIDE:
                width, height = height, width
            return Upright(picture, width, height)
    except (UserError, MemoryError):  # too many pixels; no fault of the photo's
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise UserError(f"not a readable photo ({_short(error)}): send one of {', '.join(FORMATS)}") from error


def square(image: Picture, preprocessing: Preprocessing, side: int | None = None) -> NDArray[np.uint8]:
    """The middle square of an RGB image after its short side became `resize` pixels, as models take it.

    Args:
        side: pixels of the square, `image_size` where None; training caches `resize` and crops again.

    Returns:
        uint8, (3, side, side).
    """
    return np.ascontiguousarray(pixels(image, preprocessing, side).transpose(2, 0, 1))


def pixels(image: Picture, preprocessing: Preprocessing, side: int | None = None) -> NDArray[np.uint8]:
    """`square`'s pixels as they lie in a photo: uint8, (side, side, 3)."""
    whole = resizing.middle(image, preprocessing.resize, preprocessing.interpolation)
    side = side or preprocessing.image_size
    edge = (preprocessing.resize - side) // 2
    return whole[edge : edge + side, edge : edge + side]


def _jpeg(data: bytes, image: Image.Image, wanted: int) -> Picture | None:
    """A grey or colour JPEG by simplejpeg, its short side at least `wanted` pixels where it had them.

    None where Pillow must look at it: another format, CMYK, or a stream that libjpeg warns of, such as stray bytes
    between markers. Only a cut is final: Pillow would fill the rest of some with grey.

    Raises:
        ValueError: cut short.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
        return None
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


def _any(image: Image.Image, wanted: int) -> Image.Image:
    """Any photo by Pillow, reduced by a whole number while its short side stays at least twice `wanted` pixels.

    A large one is converted band by band: as a whole, a hostile 100-megapixel drawing takes gigabytes.
    """
    image.draft(None, (wanted, wanted))
    image.load()
    by = max(1, min(image.size) // (2 * wanted))
    white = _white(image)
    if by == 1:
        return _rgb(image, white)
    width, height = image.size
    small = Image.new("RGB", (-(-width // by), -(-height // by)))
    for top in range(0, height, _BAND * by):
        band = image.crop((0, top, width, min(height, top + _BAND * by)))
        band.info = image.info  # where a palette's transparent colour is
        small.paste(_rgb(band, white).reduce(by), (0, top // by))
    return small


def _white(image: Image.Image) -> float:
    """What white is in a mode of more than 8 bits: Pillow's own conversion clips 16-bit grey instead of scaling it."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return 65535.0 if np.max(image.getextrema()) > 255.0 else 255.0
    return 0.0


def _rgb(image: Image.Image, white: float) -> Image.Image:
    """Any Pillow mode as RGB."""
    if white:
        grey = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((grey.clip(0.0, white) * (255.0 / white)).round().astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        paper = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(paper, clear).convert("RGB")
    return image.convert("RGB")


def _short(error: Exception) -> str:
    """The error's first line, without the address of the buffer that Pillow names."""
    text = str(error).split("\n", 1)[0].split(" <_io", 1)[0]
    return text[:120] or type(error).__name__
