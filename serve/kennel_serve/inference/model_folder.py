"""Whether a model folder is safe to serve: what is refused before any file of it is read.

A folder without a user's code needs no file that runs code when it is loaded, so one that is there is a mistake or an
attack. Where a user's code is served, what it loads is its own business.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kennel.errors import UserError

MAX_FILES = 10_000
_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill"}
_HEADS = (*(bytes([0x80, version]) for version in range(2, 6)), b"PK\x03\x04")  # a pickle's, and torch's archive's
_REMEDY = "remove it, or serve it by an inference.py of your own"


def check(folder: Path, own_code: bool) -> None:
    """Look at every name in the folder; one that is absent has nothing to refuse.

    Args:
        own_code: the folder is served by a user's inference.py.

    Raises:
        UserError: a link that leads out of the folder or a special file; without own code also a pickle, or too many
            files.
        OSError: a folder in it cannot be read.
    """
    if not folder.is_dir():
        return
    count = 0
    for path in _walk(folder):
        _check_kind(path, folder)
        if own_code or not path.is_file() or _is_litter(path, folder):
            continue
        count += 1
        if count > MAX_FILES:
            raise UserError(f"{folder} holds more than {MAX_FILES} files: give a folder written by `train`, alone")
        if _is_pickle(path):
            raise UserError(f"{path} is a pickle, which runs code when it is loaded: {_REMEDY}")


def size(folder: Path) -> int:
    """The bytes of all files in it, each once."""
    return sum(path.stat().st_size for path in _walk(folder) if path.is_file() and not path.is_symlink())


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below the folder; links are named and not followed."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        yield from (Path(place, name) for name in (*folders, *files))


def _check_kind(path: Path, folder: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        # realpath, for Path.resolve raises on a link to itself.
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise UserError(f"{path} is a link that leads out of the model folder: put the file itself there")
    elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path} is no file but a device, a pipe or a socket: remove it")


def _is_litter(path: Path, folder: Path) -> bool:
    """What macOS leaves in archives."""
    inside = path.relative_to(folder).parts
    return path.name == ".DS_Store" or path.name.startswith("._") or "__MACOSX" in inside


def _is_pickle(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _has_objects(path)
    if suffix == ".bin":  # of weights most often, whichever way they were saved
        with path.open("rb") as file:
            return file.read(4).startswith(_HEADS)
    return suffix in _PICKLES


def _has_objects(path: Path) -> bool:
    """Whether a numpy file holds Python objects, which it does as a pickle; what numpy cannot map is taken for that."""
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        return True
    return False
