"""Every photo decoded once into one uint8 array on local disk; the unreadable ones are named and left out.

Threads, because Pillow decodes outside the GIL and a container's /dev/shm is too small for worker processes.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kennel import cgroup, preprocessing
from kennel.errors import UserError
from kennel.preprocessing import Preprocessing
from kennel_train.data import Photo

MAX_BAD = 0.01  # of all photos; more is no accident but a broken data set


@dataclass(frozen=True)
class Decoded:
    """Readable photos: row `rows[i]` of `images`, uint8 (M, 3, resize, resize) on disk, is photo i; M may exceed N."""

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    paths: list[Path]
    digests: list[str]  # sha256 of each file's bytes

    def take(self, index: list[int]) -> "Decoded":
        paths, digests = [self.paths[i] for i in index], [self.digests[i] for i in index]
        return Decoded(self.images, self.rows[index], self.labels[index], paths, digests)


@dataclass(frozen=True)
class Bad:
    path: Path
    reason: str


def decode(
    photos: list[Photo], row: Preprocessing, on_bad_image: str, say: Callable[[str], None]
) -> tuple[Decoded, list[Bad]]:
    """Decode photos to the square that training crops from and evaluation cuts its middle out of.

    Raises:
        UserError: an unreadable photo under `on_bad_image="fail"`.
    """
    images = _array(len(photos), row.resize)
    started = last = time.monotonic()

    def one(at: int) -> str | Bad:
        try:
            data = photos[at].path.read_bytes()
            images[at] = preprocessing.square(preprocessing.decode(data, row), row, row.resize)
            return hashlib.sha256(data).hexdigest()
        except (UserError, OSError) as error:
            return Bad(photos[at].path, str(error))

    results: list[str | Bad] = []
    with ThreadPoolExecutor(cgroup.cpus()) as pool:
        for result in pool.map(one, range(len(photos))):
            results.append(result)
            if isinstance(result, Bad):
                say(f"bad photo: {result.path}: {result.reason}")
                if on_bad_image == "fail":
                    pool.shutdown(cancel_futures=True)
                    raise UserError(f"{result.path}: {result.reason} (on_bad_image=fail): remove or replace it")
            if time.monotonic() - last > 10:
                last = time.monotonic()
                say(f"decoded {len(results)} of {len(photos)} photos in {last - started:.0f} s")
    good = [at for at, result in enumerate(results) if isinstance(result, str)]
    labels = np.array([photos[at].label for at in good], dtype=np.int64)
    digests = [result for result in results if isinstance(result, str)]
    decoded = Decoded(images, np.array(good, dtype=np.int64), labels, [photos[at].path for at in good], digests)
    return decoded, [result for result in results if isinstance(result, Bad)]


def refuse_many(bad: list[Bad], total: int) -> None:
    """Fail a job whose data set is broken rather than blemished.

    Raises:
        UserError: more than 1% of `total` photos are unreadable.
    """
    if len(bad) > MAX_BAD * total:
        raise UserError(
            f"{len(bad)} of {total} photos cannot be read, more than {MAX_BAD:.0%}: remove or replace them, each is "
            f"named in the log; the first is {bad[0].path}: {bad[0].reason}"
        )


def _array(count: int, side: int) -> NDArray[np.uint8]:
    """An uninitialized array in an unnamed file: the space is claimed now, so a full disk is an OSError, no crash."""
    with tempfile.TemporaryFile(prefix="kennel-photos-") as file:
        os.posix_fallocate(file.fileno(), 0, count * 3 * side * side)
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=(count, 3, side, side))
