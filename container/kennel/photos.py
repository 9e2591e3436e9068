"""Folders of labelled photos: what splits are called, which files are photos, what a class is called, how it is cut.

Names only: nothing here opens a photo as an image.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}
_NUMBER = re.compile(r"^\d+[._\- ]+(?=\S)")


def class_folders(root: Path) -> dict[str, Path]:
    """Class name -> folder, sorted by name; hidden folders and `__MACOSX` are left out.

    `001.Affenpinscher` is shown as `Affenpinscher`, unless cutting the numbers would make two classes one.
    """
    folders = [
        path
        for path in sorted(root.iterdir())
        if path.is_dir() and not path.name.startswith(".") and path.name != "__MACOSX"
    ]
    cut = {_NUMBER.sub("", path.name): path for path in folders}
    named = cut if len(cut) == len(folders) else {path.name: path for path in folders}
    return dict(sorted(named.items()))


def photos(folder: Path) -> list[Path]:
    """The photos that lie directly in a folder, sorted; hidden files and other suffixes are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(paths: Iterable[Path]) -> dict[Path, str]:
    """Each file's hash; of files with the same bytes only the first is kept."""
    kept: dict[Path, str] = {}
    seen: set[str] = set()
    for path in paths:
        digest = file_hash(path)
        if digest not in seen:
            seen.add(digest)
            kept[path] = digest
    return kept


def split(hashed: Mapping[Path, str], fraction: float) -> tuple[list[Path], list[Path]]:
    """(kept, held out) of one class: the `fraction` with the lowest hashes is held out.

    Neither the files' names nor their order matter, so that a renamed or moved folder is split alike. Of two photos
    or more at least one is held out and at least one is kept. Files with the same bytes stay on one side.
    """
    order = sorted(hashed, key=lambda path: (hashed[path], path.name))
    count = min(max(round(len(order) * fraction), 1), len(order) - 1) if len(order) >= 2 else 0
    if count > 0:
        border = hashed[order[count - 1]]
        held_out = [path for path in order if hashed[path] <= border]
        if len(held_out) < len(order):
            return [path for path in order if hashed[path] > border], held_out
    return order, []
