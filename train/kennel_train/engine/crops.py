"""Squares out of the decoded photos: random ones to train on, the middle one for evaluation.

OpenCV resizes: the fastest on uint8, exact on every thread. Nothing here knows of files.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from kennel_train.data.randomness import AREA, LEFT, MIRROR, RATIO, TOP

# The smallest crop's share of the area. torchvision's default is 0.08 of a whole photo; the cache is the middle square
# already, and fastai fine-tunes with 0.35 (min_scale in its Imagenette recipe).
MIN_AREA = 0.35
MAX_LOG_RATIO = math.log(4 / 3)  # width to height from 3/4 to 4/3, as in torchvision's RandomResizedCrop
_THREADED = 16  # photos a thread at least: fewer are done before a thread has started

cv2.setNumThreads(1)  # one photo is too small to share, and our own threads would fight OpenCV's


def boxes(drawn: NDArray[np.float32], whole: int) -> NDArray[np.int64]:
    """Random crops of a square of `whole` pixels: int64 (n, 4), top, left, height, width.

    RandomResizedCrop (Szegedy et al. 2015; torchvision's get_params): the area's share is uniform, the ratio uniform
    on a log scale. torchvision draws again, up to ten times, where a crop does not fit; here the ratio is drawn from
    those that fit the area, so that the number of draws is fixed.
    """
    area = MIN_AREA + (1 - MIN_AREA) * drawn[:, AREA].astype(np.float64)
    widest = np.minimum(MAX_LOG_RATIO, -np.log(area))
    ratio = np.exp((2 * drawn[:, RATIO] - 1) * widest)
    height, width = (np.rint(whole * np.sqrt(area * by)).clip(1, whole) for by in (1 / ratio, ratio))
    top = np.floor(drawn[:, TOP] * (whole - height + 1)).clip(0, whole - height)
    left = np.floor(drawn[:, LEFT] * (whole - width + 1)).clip(0, whole - width)
    return np.stack([top, left, height, width], axis=1).astype(np.int64)


def random_resized(
    images: NDArray[np.uint8], rows: NDArray[np.int64], drawn: NDArray[np.float32], side: int, threads: int = 1
) -> NDArray[np.uint8]:
    """A random crop of each photo, resized and mirrored half of the time: uint8 (n, side, side, 3).

    Args:
        images: uint8 (M, R, R, 3), maybe on disk.
        rows: the photos' rows in it, int64 (n,).
        drawn: their rows of `randomness.draws`, float32 (n, COLUMNS).
        threads: how many may work; the result is the same.
    """
    source = np.asarray(images)  # a slice of a memmap costs ten times one of an array
    cut = np.empty((len(rows), side, side, 3), dtype=np.uint8)
    found = boxes(drawn, source.shape[1]).tolist()
    mirrored = (drawn[:, MIRROR] < 0.5).tolist()
    wanted = rows.tolist()

    def make(part: range) -> None:
        for at in part:
            top, left, height, width = found[at]
            crop = source[wanted[at], top : top + height, left : left + width]
            # INTER_LINEAR looks at two pixels each way: from half the size down it would skip some.
            how = cv2.INTER_AREA if max(height, width) > 2 * side else cv2.INTER_LINEAR
            cv2.resize(crop, (side, side), dst=cut[at], interpolation=how)
            if mirrored[at]:
                cv2.flip(cut[at], 1, dst=cut[at])

    threads = max(1, min(threads, len(wanted) // _THREADED))
    if threads == 1:
        make(range(len(wanted)))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(make, (range(first, len(wanted), threads) for first in range(threads))))
    return cut


def middle(images: NDArray[np.uint8], rows: NDArray[np.int64], side: int) -> NDArray[np.uint8]:
    """The square that `kennel.photos.preprocessing.square` cuts, of each photo: uint8 (n, side, side, 3)."""
    edge = (images.shape[1] - side) // 2
    inner = np.asarray(images)[:, edge : edge + side, edge : edge + side]
    cut = np.empty((len(rows), side, side, 3), dtype=np.uint8)
    for at, row in enumerate(rows.tolist()):
        cut[at] = inner[row]
    return cut
