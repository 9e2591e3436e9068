"""Augmented manifests: JSON lines that name photos and their labels, and what a label says. Opens no photo.

As Ground Truth writes a line: {"source-ref": "s3://bucket/a.jpg", "dogs": 0, "dogs-metadata": {"class-name": "pug"}}
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from kennel.errors import UserError
from kennel.files import printable
from kennel.photos.file_formats import PHOTO_SUFFIXES

_SUFFIXES = (".manifest", ".jsonl")
_LONGEST = 1 << 20  # bytes of a first line
_LABEL = 'write {"source-ref": "s3://.../a.jpg", "class": 0} or add {"class-metadata": {"class-name": "cat"}}'


def find(folder: Path) -> Path | None:
    """The one augmented manifest that lies directly in a channel's folder, if there is one.

    Raises:
        UserError: a file that would be one under another name, or with other quotes.
    """
    try:
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    except OSError as error:
        raise UserError(f"channel '{folder.name}' cannot be read ({error.strerror}): see to its permissions") from error
    found = [path for path in files if path.suffix.lower() in _SUFFIXES]
    for path in [*found, *(path for path in files if path.suffix.lower() in (".json", ".txt"))]:
        with path.open("rb") as file:
            first = file.readline(_LONGEST)
        row = _json(first)
        quoted = row is None and first.lstrip()[:2] == b"{'" and b"-ref'" in first
        if quoted:
            raise UserError(f"{printable(path)} is written with single quotes, which is not JSON: {_LABEL}")
        if isinstance(row, dict) and _reference(row) and path not in found:
            raise UserError(
                f"{printable(path)} holds an augmented manifest's lines: call it {printable(path.stem)}.manifest or "
                f"{printable(path.stem)}.jsonl"
            )
        if isinstance(row, dict) and _reference(row) and len(found) == 1:
            return path
    return None


def _json(line: bytes) -> Any:
    """What a line says, None where it is not JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def link(lines: Iterable[bytes], channel: str, folders: dict[str, Path], to: Path) -> int:
    """Link every photo of a manifest into `to`/<class>; their number.

    Args:
        folders: the channels that hold files; a photo is found by the end of its path, first in its own channel.

    Raises:
        UserError: a line without a photo or a label, or a photo that is in no channel or in several places.
    """
    known: dict[str, dict[str, list[Path]]] = {}
    for name in sorted(folders, key=lambda name: name != channel):
        known[name] = defaultdict(list)
        for path in sorted(folders[name].rglob("*")):
            known[name][path.name].append(path)
    count = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"channel '{channel}', manifest line {number}"
        row = _row(line, where)
        photo = _photo(row[_reference(row)], known, where)
        folder = to / _class_name(row, where)
        folder.mkdir(parents=True, exist_ok=True)
        count += 1
        # What is listed is a photo whatever it is called: the decoder looks at it, and names what it cannot read.
        suffix = photo.suffix if photo.suffix.lower() in PHOTO_SUFFIXES else ".jpg"
        (folder / f"{count:08d}{suffix}").symlink_to(photo.absolute())
    if not count:
        raise UserError(f"the manifest of channel '{channel}' is empty: {_LABEL}")
    return count


def label(records: list[bytes], where: str) -> str:
    """The class name that an example's label records give: a metadata's class-name, else the first label.

    Args:
        records: JSON (a whole number, a string, an object with `class-name` or `class`) or plain text.

    Raises:
        UserError: none of that, or no name that a folder can have.
    """
    values = [_value(record) for record in records]
    named = [value["class-name"] for value in values if isinstance(value, dict) and "class-name" in value]
    plain = [value.get("class") if isinstance(value, dict) else value for value in values]
    return _folder_name([*named, *plain][0], where)


def _value(record: bytes) -> Any:
    text = record.decode("utf-8", "replace").strip()
    try:
        return json.loads(text)
    except ValueError:
        return text


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}): {_LABEL}") from error
    if not isinstance(row, dict) or not isinstance(row.get(_reference(row)), str):
        raise UserError(f"{where} names no photo: {_LABEL}")
    return row


def _reference(row: dict[str, Any]) -> str:
    """The key of the photo, "" where there is none."""
    return next((key for key in row if key.endswith("-ref")), "")


def _class_name(row: dict[str, Any], where: str) -> str:
    metadata = [value for key, value in row.items() if key.endswith("-metadata") and isinstance(value, dict)]
    named = [value["class-name"] for value in metadata if "class-name" in value]
    plain = {key: value for key, value in row.items() if not key.endswith(("-ref", "-metadata"))}
    values = named or [plain[key] for key in ("class", "label") if key in plain] or list(plain.values())
    if not named and "class" not in plain and "label" not in plain and len(values) > 1:
        raise UserError(f"{where} has {len(values)} labels ({', '.join(plain)}): call the one that counts 'class'")
    return _folder_name(values[0] if values else None, where)


def _folder_name(value: Any, where: str) -> str:
    """A label as a folder's name; it comes from outside, so it must stay inside its channel."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f"{where}: {str(value)[:80]!r} is no label of one class: {_LABEL}")
    name = str(value).strip()
    if not name or name.startswith(".") or "/" in name or not name.isprintable() or len(name.encode()) > 255:
        raise UserError(
            f"{where}: the label {name[:80]!r} cannot name a folder: write a name without '/' or a first '.'"
        )
    return name


def _photo(reference: str, known: dict[str, dict[str, list[Path]]], where: str) -> Path:
    """The file whose path ends most like the reference's; channels in the order in which they come."""
    parts = PurePosixPath(reference).parts
    for files in known.values():
        found = files.get(parts[-1] if parts else "", [])
        best = max((_same_end(path.parts, parts) for path in found), default=0)
        nearest = [path for path in found if _same_end(path.parts, parts) == best]
        if len(nearest) > 1:
            raise UserError(f"{where}: {reference} may be {nearest[0]} or {nearest[1]}: give the files other names")
        if nearest:
            return nearest[0]
    raise UserError(
        f"{where}: {reference} is in no channel: add a File or FastFile channel that holds the photos, or use Pipe "
        'mode with RecordWrapperType=RecordIO and AttributeNames=["source-ref", "class"]'
    )


def _same_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
