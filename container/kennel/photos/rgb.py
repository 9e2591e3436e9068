"""Any picture of Pillow's as RGB of 8 bits: alpha laid on white, more than 8 bits scaled, large ones reduced."""

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from kennel.errors import UserError

_WHITE_TAG = 281  # TIFF's MaxSampleValue
_WHITE_16, _WHITE_FLOAT = 65535.0, 1.0
_SAMPLE = (64, 64)  # pixels that are compared with white
_BAND = 64  # rows of the reduced picture at a time


def reduced(image: Image.Image, wanted: int, white_level: float) -> Image.Image:
    """Any photo by Pillow, reduced by a whole number while its short side stays at least twice `wanted` pixels.

    A large one is converted band by band: as a whole, a hostile 100-megapixel drawing takes gigabytes.
    """
    image.draft(None, (wanted, wanted))
    image.load()
    by = max(1, min(image.size) // (2 * wanted))
    white = _white(image, white_level)
    if by == 1:
        return _rgb(image, white)
    width, height = image.size
    small = Image.new("RGB", (-(-width // by), -(-height // by)))
    for top in range(0, height, _BAND * by):
        band = image.crop((0, top, width, min(height, top + _BAND * by)))
        band.info = image.info  # where a palette's transparent colour is
        small.paste(_rgb(band, white).reduce(by), (0, top // by))
    return small


def _white(image: Image.Image, level: float) -> float:
    """What white is in a mode of more than 8 bits, the same for every photo of a type; 0 for modes of 8 bits.

    Pillow's own conversion clips 16-bit grey instead of scaling it. 32-bit integers hold 16-bit data unless the file
    says otherwise.

    Args:
        level: the data set's own, 0 for the type's.

    Raises:
        UserError: by its type more than half of the photo would be white.
    """
    if not (image.mode.startswith("I;16") or image.mode in ("I", "F")):
        return 0.0
    if level:
        return level
    white = _WHITE_FLOAT if image.mode == "F" else _maximum(image) or _WHITE_16
    some = np.asarray(image.resize(_SAMPLE, Image.Resampling.NEAREST), dtype=np.float64)
    if np.median(some) > white:
        raise UserError(
            f"the photo's values go up to {some.max():g} or more, and white is {white:g} in a photo of this type: "
            "train with white_level set to what is white in these photos, or convert them to 8 bits"
        )
    return white


def _maximum(image: Image.Image) -> float:
    """What a TIFF says its largest value is, 0.0 where it says nothing."""
    said = image.tag_v2.get(_WHITE_TAG) if isinstance(image, TiffImageFile) else None
    said = said[0] if isinstance(said, tuple) and said else said
    return float(said) if isinstance(said, int) and said > 0 else 0.0


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
