"""The middle square of a photo at another size. How photos are read, and what size is wanted, is not known here.

cykooz.resizer is Pillow's resize (same box, same filters, antialiased) by SIMD: four times as fast, outside the GIL.
It is built for x86-64 only; Pillow itself stands in where it is not, a grey level apart (two once in a million).
"""

import threading

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    import cykooz_resizer as simd
except ImportError:
    simd = None

# RGB as simplejpeg leaves it, uint8 (height, width, 3), or as Pillow does: turning one into the other costs a copy.
Picture = Image.Image | NDArray[np.uint8]

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SIMD_FILTERS = {"bilinear": "bilinear", "bicubic": "catmull_rom"}  # Pillow's bicubic has a = -0.5, Catmull and Rom's
_own = threading.local()  # a Resizer keeps buffers: one a thread


def middle(picture: Picture, side: int, interpolation: str) -> NDArray[np.uint8]:
    """The largest square in the middle, resized: uint8, (side, side, 3).

    Args:
        interpolation: one of `FILTERS`, antialiased.
    """
    return (by_pillow if simd is None else by_simd)(picture, side, interpolation)


def by_simd(picture: Picture, side: int, interpolation: str) -> NDArray[np.uint8]:
    """`middle` by cykooz.resizer."""
    if not hasattr(_own, "resizer"):
        _own.resizer = simd.Resizer()  # takes the best instructions that this CPU has
    width, height = _size(picture)
    left, top, short = _square(width, height)
    how = simd.ResizeAlg.convolution(simd.FilterType[_SIMD_FILTERS[interpolation]])
    options = simd.ResizeOptions(resize_alg=how, crop_box=simd.CropBox(left, top, short, short))
    if isinstance(picture, Image.Image):
        small = Image.new("RGB", (side, side))
        _own.resizer.resize_pil(picture, small, options)
        return np.asarray(small, dtype=np.uint8)
    rgb = simd.PixelType.U8x3
    made = simd.ImageData(side, side, rgb)
    _own.resizer.resize(simd.ImageData(width, height, rgb, picture.tobytes()), made, options)
    return np.frombuffer(made.get_buffer(), dtype=np.uint8).reshape(side, side, 3)


def by_pillow(picture: Picture, side: int, interpolation: str) -> NDArray[np.uint8]:
    """`middle` by Pillow, heights before widths as cykooz.resizer does.

    Pillow by itself does widths first; where bicubic overshoots, what is cut to 0-255 between the two then differs by
    up to 12 grey levels.
    """
    width, height = _size(picture)
    left, top, short = _square(width, height)
    how = FILTERS[interpolation]
    low = as_pillow(picture).resize((width, side), how, box=(0, top, width, top + short))
    return np.asarray(low.resize((side, side), how, box=(left, 0, left + short, side)), dtype=np.uint8)


def as_pillow(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    return Image.frombuffer("RGB", _size(picture), picture, "raw", "RGB", 0, 1)  # fromarray copies twice


def _square(width: int, height: int) -> tuple[float, float, int]:
    """Left, top and side in pixels."""
    short = min(width, height)
    return (width - short) / 2, (height - short) / 2, short


def _size(picture: Picture) -> tuple[int, int]:
    """Width and height in pixels."""
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])
