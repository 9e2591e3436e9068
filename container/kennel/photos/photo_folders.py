"""Folders of labelled photos: what splits are called, which files are photos, what a class is called, how it is cut.

Names and first bytes only: nothing here opens a photo as an image.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from kennel.errors import UserError
from kennel.files import file_hash, printable
from kennel.photos.file_formats import HEAD, PHOTO_SUFFIXES, suffix

SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}
_MORE_NAMES = {
    "validation": ("dev", "development", "eval", "evaluation"),
    "test": ("testing",),
}  # where none of those is
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what systems leave in folders, beside hidden files


def is_photo(path: Path) -> bool:
    """Whether a file is called a photo or begins like one; pipes, devices and links to nowhere are none.

    A file with a photo's suffix is not opened: where photos lie in S3 (FastFile mode) each opening costs a request.
    """
    if not path.is_file():
        return False
    if path.suffix.lower() in PHOTO_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return bool(suffix(file.read(HEAD)))
    except OSError:
        return False


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Class name -> folders, sorted by name: a class is called what its folder is called.

    Names are compared in Unicode's composed form (NFC), so that a name written on a Mac is the same class; it then has
    two folders. Hidden folders and `__MACOSX` are left out.

    Raises:
        UserError: a name that is no UTF-8 or has unprintable characters, such as a line's end.
    """
    found: dict[str, list[Path]] = {}
    for path in _entries(root):
        if not path.is_dir() or _is_litter(path.name):
            continue
        if not path.name.isprintable():  # surrogates, which stand for bytes that are no UTF-8, are not printable either
            raise UserError(
                f"the class folder {path.name!a} in {printable(root)} has a name with unprintable characters: rename it"
            )
        found.setdefault(unicodedata.normalize("NFC", path.name), []).append(path)
    return dict(sorted(found.items()))


def split_folders(root: Path, accept: Callable[[Path], bool] = Path.is_dir) -> dict[str, Path]:
    """Split -> the folder in `root` that is called so, in any case (`Validation`, `dev`).

    Args:
        accept: which folders count.

    Raises:
        UserError: two folders that name the same split.
    """
    found: dict[str, Path] = {}
    entries = _entries(root) if root.is_dir() else []
    for split in SPLITS:
        for names in (SPLITS[split], _MORE_NAMES.get(split, ())):
            here = [path for path in entries if path.name.lower() in names and accept(path)]
            if len(here) > 1:
                both = " and ".join(repr(path.name) for path in here)
                raise UserError(f"{both} in {printable(root.name)} both name the {split} photos: keep one")
            if here:
                found[split] = here[0]
                break
    return found


def loose_photos(folder: Path) -> list[Path]:
    """The photos that lie directly in a folder, sorted; hidden files are left out."""
    return [path for path in _entries(folder) if not _is_litter(path.name) and is_photo(path)]


def photos(*folders: Path) -> list[Path]:
    """The photos in folders and in all folders below them, sorted; hidden files and folders are left out."""
    return sorted(path for folder in folders for path in files(folder) if is_photo(path))


def files(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no folder, photo or not, by name; a link that leads back up counts as a file.

    Raises:
        UserError: a folder that cannot be read.
    """
    yield from _below(folder, frozenset((up.stat().st_dev, up.stat().st_ino) for up in folder.absolute().parents))


def _below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    for path in _entries(folder):
        if _is_litter(path.name):
            continue
        if path.is_dir() and (path.stat().st_dev, path.stat().st_ino) not in above | {here}:
            yield from _below(path, above | {here})
        else:
            yield path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{printable(folder)} cannot be read ({error.strerror}): see to its permissions") from error


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


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
