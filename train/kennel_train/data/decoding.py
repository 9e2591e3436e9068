"""Every photo decoded once into one uint8 array on local disk; the unreadable ones are named and left out.

Threads, because simplejpeg and Pillow work outside the GIL and a container's /dev/shm is too small for worker
processes. Each file is opened once and read from end to end: a FastFile channel fetches it at that moment.
"""

import contextlib
import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from kennel import cgroup
from kennel.errors import UserError
from kennel.files import printable
from kennel.photos import decoder, preprocessing
from kennel.photos.preprocessing import Preprocessing
from kennel_train.data.image_folder import Photo

MAX_BAD = 0.01  # of all photos; more is no accident but a broken data set
_AT_ONCE = 8  # photos a thread decodes before it reports: each report costs 0.1 ms of waking others
_QUEUED = 4096  # photos handed to the threads at a time: a future for each of millions would take gigabytes


@dataclass(frozen=True)
class PhotoRecord:
    """What is known of one photo that could be decoded: the same object from here to the report."""

    path: Path
    label: int  # index into class_names
    digest: str  # sha256 of the file's bytes
    pixels: str  # hash of the decoded square: the same photo under another name, header or format
    width: int  # of the upright photo as it came, pixels
    height: int


@dataclass(frozen=True)
class Decoded:
    """Readable photos: photo i is `images[local[i]]`, uint8 (M, resize, resize, 3) on disk; M may exceed N."""

    images: NDArray[np.uint8]
    local: NDArray[np.int64]
    photos: list[PhotoRecord]

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array([photo.label for photo in self.photos], dtype=np.int64)

    def take(self, index: list[int]) -> "Decoded":
        return Decoded(self.images, self.local[index], [self.photos[i] for i in index])


@dataclass(frozen=True)
class Bad:
    path: Path
    reason: str


def decode(
    photos: list[Photo],
    row: Preprocessing,
    on_bad_image: str,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    threads: int = 0,
) -> tuple[Decoded, list[Bad]]:
    """Decode photos to the square that training crops from and evaluation cuts its middle out of.

    Args:
        stop: asked after every photo; those that were not come to are then in neither list.
        threads: how many decode; 0 for as many as the cgroup has CPUs.

    Raises:
        UserError: an unreadable photo under `on_bad_image="fail"`.
    """
    space = _space(len(photos) * 3 * row.resize**2)
    images = np.frombuffer(space, dtype=np.uint8).reshape(len(photos), row.resize, row.resize, 3)
    started = last = time.monotonic()

    def some(part: range) -> list[PhotoRecord | Bad]:
        return [_one(photos[at], row, images[at]) for at in part]

    results: list[PhotoRecord | Bad] = []
    with ThreadPoolExecutor(threads or cgroup.cpus()) as pool:
        for result in _in_order(pool, some, len(photos)):
            results.append(result)
            if isinstance(result, Bad):
                say(f"bad photo: {printable(result.path)}: {result.reason}")
                if on_bad_image == "fail":
                    pool.shutdown(cancel_futures=True)
                    raise UserError(
                        f"{printable(result.path)}: {result.reason} (on_bad_image=fail): remove or replace it"
                    )
            if stop():
                pool.shutdown(cancel_futures=True)
                break
            if time.monotonic() - last > 10:
                last = time.monotonic()
                say(f"decoded {len(results)} of {len(photos)} photos in {last - started:.0f} s")
    _advise(space, mmap.MADV_NOHUGEPAGE)  # what is read back, if memory is too small for all, is single photos
    good = [at for at, result in enumerate(results) if isinstance(result, PhotoRecord)]
    readable = [result for result in results if isinstance(result, PhotoRecord)]
    decoded = Decoded(images, np.array(good, dtype=np.int64), readable)
    return decoded, [result for result in results if isinstance(result, Bad)]


def refuse_many(bad: list[Bad], total: int) -> None:
    """Fail a job whose data set is broken rather than blemished.

    Raises:
        UserError: more than 1% of `total` photos are unreadable.
    """
    if len(bad) > MAX_BAD * total:
        raise UserError(
            f"{len(bad)} of {total} photos cannot be read, more than {MAX_BAD:.0%}: remove or replace them, each is "
            f"named in the log; the first is {printable(bad[0].path)}: {bad[0].reason}"
        )


def _one(photo: Photo, row: Preprocessing, to: NDArray[np.uint8]) -> PhotoRecord | Bad:
    try:
        data = decoder.contents(photo.path)
        upright = decoder.read(data, row)
    except (UserError, OSError) as error:
        return Bad(photo.path, str(error))
    to[:] = preprocessing.pixels(upright.image, row, row.resize)
    seen = xxhash.xxh3_128_hexdigest(to.data)  # of all bytes in 0.01 ms, where blake2b takes 0.3
    digest = hashlib.sha256(data).hexdigest()
    return PhotoRecord(photo.path, photo.label, digest, seen, upright.width, upright.height)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[range], list[PhotoRecord | Bad]], count: int
) -> Iterator[PhotoRecord | Bad]:
    every = range(count)
    for first in range(0, count, _QUEUED):
        parts = [every[at : at + _AT_ONCE] for at in range(first, min(first + _QUEUED, count), _AT_ONCE)]
        for part in pool.map(work, parts):
            yield from part


def _space(size: int) -> mmap.mmap:
    """An unnamed file in memory: the space on disk is claimed now, so a full disk is an OSError, no crash."""
    with tempfile.TemporaryFile(prefix="kennel-photos-") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        space = mmap.mmap(file.fileno(), size)
    _advise(space, mmap.MADV_HUGEPAGE)  # a page fault every 4 kB takes 0.2 ms a photo
    return space


def _advise(space: mmap.mmap, advice: int) -> None:
    with contextlib.suppress(OSError):  # a kernel that knows no huge pages
        space.madvise(advice)
