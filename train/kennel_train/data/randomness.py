"""The random numbers of a training, as a function of (seed, epoch, photo) only.

numpy's Philox, a counter under a key, has no state that a stopped job could lose.
"""

import numpy as np
from numpy.typing import NDArray

# The columns of `draws`, one use each, so that no choice depends on another.
AREA, RATIO, TOP, LEFT, MIRROR, OPERATION, STRENGTH, SIGN = range(8)
COLUMNS = 8


def draws(seed: int, epoch: int, count: int) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1), float32 (count, COLUMNS): row i belongs to photo i of the whole split.

    A row is the same whatever `count` is.
    """
    return np.random.Generator(_philox(seed, 2 * epoch)).random((count, COLUMNS), dtype=np.float32)


def order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The epoch's permutation of `count` photos, int64 (count,), independent of `draws`."""
    return np.random.Generator(_philox(seed, 2 * epoch + 1)).permutation(count)


def _philox(seed: int, stream: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
