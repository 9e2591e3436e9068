"""Folders of labelled photos: what splits are called, which files are photos, what a class is called, how it is cut.

Names and first bytes only: nothing here opens a photo as an image.
"""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from kennel.errors import UserError

PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)
SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}
_MORE_NAMES = {
    "validation": ("dev", "development", "eval", "evaluation"),
    "test": ("testing",),
}  # where none of those is
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what systems leave in folders, beside hidden files
HEAD = 16  # bytes of a file that `suffix` wants
_SIGNATURES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF87a": ".gif",
    b"GIF89a": ".gif",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"II+\x00": ".tif",  # BigTIFF
    b"MM\x00+": ".tif",
    b"\x00\x00\x00\x0cjP  ": ".jp2",
    b"\xff\x4f\xff\x51": ".jp2",  # a bare codestream
}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def suffix(head: bytes) -> str:
    """The suffix of the photo format that bytes, 8 or more, begin like; "" for none that is known.

    Args:
        head: the first `HEAD` bytes; of fewer, formats that say more later are believed.
    """
    if head[:2] == b"BM" and len(head) > 7 and not head[6:10].strip(b"\x00"):  # BMW is a label
        return ".bmp"
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b""):
        return ".webp"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return ".avif"
        return ".heic" if brand in (*_HEIF_BRANDS, b"") else ""
    return next((known for begin, known in _SIGNATURES.items() if head.startswith(begin)), "")


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


def printable(path: object) -> str:
    """A path for one line of a log: line ends and bytes that are no UTF-8 are written as escapes."""
    text = os.fspath(path) if isinstance(path, Path) else str(path)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


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
