"""What a model wants of its photos: one row of settings, and the middle square that it describes.

Normalization is not here: it is the first layer of the exported model, so that it cannot be applied twice or
forgotten.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kennel.errors import UserError
from kennel.photos import resizing
from kennel.photos.resizing import Picture


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
    white_level: float = 0.0  # what white is in photos of more than 8 bits; 0: what the file's type says

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Preprocessing":
        """The row of a manifest.

        Raises:
            UserError: a field is missing, unknown or impossible.
        """
        unknown = sorted(set(row) - {field.name for field in fields(cls)})
        if unknown:  # pixels could differ
            raise UserError(
                f"the manifest's preprocessing: field {unknown[0]!r} is not known to this version: serve the model "
                "with the version that trained it, or a later one"
            )
        try:
            made = cls(**{**row, "mean": tuple(row["mean"]), "std": tuple(row["std"])})
            sizes = 0 < made.image_size <= made.resize
            white = isinstance(made.white_level, int | float) and 0 <= made.white_level < math.inf
            known = made.interpolation in resizing.FILTERS
            if not (sizes and white and known and len(made.mean) == len(made.std) == 3):
                raise ValueError(str(row))
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(f"the manifest's preprocessing is not one this version knows: {error}") from error
        return made


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
