"""A photo that is larger than an endpoint takes becomes a smaller JPEG. Needs Pillow, and only then."""

import io
import warnings
from dataclasses import dataclass

from kennel.errors import UserError

_QUALITY = 90  # of JPEG: far above what a network notices
_STEP = 0.9  # the longest side is cut by at least so much, where the estimate was too high
_LEAST_SIDE = 32  # pixels


@dataclass(frozen=True)
class Shrunk:
    """A JPEG file, and its size in pixels."""

    body: bytes
    width: int
    height: int


def fit(body: bytes, largest: int) -> Shrunk:
    """The photo as a JPEG of at most `largest` bytes: as large in pixels as that allows, turned as its EXIF says.

    Raises:
        UserError: it is no photo that Pillow can read, or Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise UserError("it is too large, and making it smaller needs Pillow: pip install Pillow") from error
    try:
        with warnings.catch_warnings():  # about its pixels, of which it is to have fewer
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(body)) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # Pillow raises nearly anything on bytes that are no photo
        raise UserError(f"it is too large, and cannot be read to make it smaller ({error})") from error
    scale = 1.0
    while True:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        made = io.BytesIO()
        (image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)).save(made, "JPEG", quality=_QUALITY)
        if made.tell() <= largest:
            return Shrunk(made.getvalue(), *size)
        if max(size) <= _LEAST_SIDE:
            raise UserError(f"it does not fit into {largest} bytes")
        scale *= min(_STEP, (largest / made.tell()) ** 0.5)  # bytes grow about with the area
