"""Files: text that is there whole or not at all however the process ends, hashes, and paths for a log."""

import hashlib
import os
from pathlib import Path


def put(path: Path, text: str) -> None:
    """Write a file in one step, on the disk before it has its name.

    What is no UTF-8, as a file's name may be, is written as an escape.

    Raises:
        OSError: the disk is full; an earlier file of that name is then still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def printable(path: object) -> str:
    """A path for one line of a log: line ends and bytes that are no UTF-8 are written as escapes."""
    text = os.fspath(path) if isinstance(path, Path) else str(path)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
