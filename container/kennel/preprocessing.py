"""What a photo becomes before the model: bytes -> upright RGB -> a uint8 square. Both sides use this, nothing else.

Normalization is not here: it is the first layer of the exported model, so that it cannot be applied twice or
forgotten. Pillow decodes (it knows every format that people send), draft mode cuts large JPEGs' cost.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kennel.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = None  # the limit is ours, checked before decoding: Pillow's own would warn at another number
warnings.filterwarnings("ignore", module=r"PIL\.")  # of torn metadata: such a photo is either read or refused
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


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
            if not sizes or made.interpolation not in _FILTERS or len(made.mean) != 3 or len(made.std) != 3:
                raise ValueError(str(row))
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(f"the manifest's preprocessing is not one this version knows: {error}") from error
        return made


def decode(photo: bytes | Path, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright RGB image: EXIF orientation applied, alpha laid on white, the first frame of an animation.

    A large JPEG is decoded at the smallest scale that still has twice the pixels that `preprocessing` needs.

    Raises:
        TooManyPixelsError: more than `max_pixels`.
        UserError: not a photo, truncated, or of an unknown format.
    """
    source = io.BytesIO(photo) if isinstance(photo, bytes) else photo
    try:
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise TooManyPixelsError(
                    f"the photo has {width}x{height} pixels, more than {max_pixels}: make it smaller"
                )
            image.draft(None, (2 * preprocessing.resize, 2 * preprocessing.resize))
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except (UserError, MemoryError):  # too many pixels; no fault of the photo's
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise UserError(f"not a readable photo ({_short(error)}): send one of {', '.join(FORMATS)}") from error


def square(image: Image.Image, preprocessing: Preprocessing, side: int | None = None) -> NDArray[np.uint8]:
    """The middle square of an RGB image after its short side became `resize` pixels.

    Args:
        side: pixels of the square, `image_size` where None; training caches `resize` and crops again.

    Returns:
        uint8, (3, side, side).
    """
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    size, box = (preprocessing.resize, preprocessing.resize), (left, top, left + short, top + short)
    cut = np.asarray(image.resize(size, _FILTERS[preprocessing.interpolation], box=box), dtype=np.uint8)
    side = side or preprocessing.image_size
    edge = (preprocessing.resize - side) // 2
    return np.ascontiguousarray(cut[edge : edge + side, edge : edge + side].transpose(2, 0, 1))


def _rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # Pillow's own conversion clips 16-bit grey to white instead of scaling it.
        grey = np.asarray(image, dtype=np.float64)
        top = 65535.0 if grey.max(initial=0.0) > 255.0 else 255.0
        image = Image.fromarray((grey.clip(0.0, top) * (255.0 / top)).round().astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        paper = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(paper, clear).convert("RGB")
    return image.convert("RGB")


def _short(error: Exception) -> str:
    """The error's first line, without the address of the buffer that Pillow names."""
    text = str(error).split("\n", 1)[0].split(" <_io", 1)[0]
    return text[:120] or type(error).__name__
