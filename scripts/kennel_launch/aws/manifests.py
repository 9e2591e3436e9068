"""Augmented manifests in S3: which attributes of theirs Pipe mode streams, a photo and its label. Reads a line of one.

As Ground Truth writes it: {"source-ref": "s3://bucket/a.jpg", "dogs": 0, "dogs-metadata": {"class-name": "pug"}}
"""

import json
from collections.abc import Mapping
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import s3, session
from kennel_launch.settings import Settings

_SUFFIXES = (".manifest", ".jsonl")
_FIRST = 64 * 1024  # bytes in which the first line must end; a line has 100,000 at most, with boxes for each object
_LINE = 'lines as {"source-ref": "s3://bucket/a.jpg", "class": "cat"}'


def is_manifest(address: str) -> bool:
    """By its suffix."""
    return s3.is_address(address) and address.lower().endswith(_SUFFIXES)


def check_mode(places: Mapping[str, str], input_mode: str) -> None:
    """Refuses what SageMaker streams without borders between photos, or what it reads in Pipe mode only.

    Args:
        places: of photos, by the flag that names them.

    Raises:
        UserError: a manifest in another mode than Pipe, or anything else in Pipe mode.
    """
    for flag, place in places.items():
        if input_mode == "Pipe" and not is_manifest(place):
            raise UserError(
                f"--input-mode Pipe streams the photos of an augmented manifest, and --{flag} {place} is none: name "
                f"one (s3://bucket/photos.manifest, {_LINE}), or choose --input-mode FastFile"
            )
        if input_mode != "Pipe" and is_manifest(place):
            raise UserError(
                f"--{flag} {place}: SageMaker reads an augmented manifest in Pipe mode: add --input-mode Pipe"
            )


def attributes(address: str, settings: Settings) -> tuple[str, ...]:
    """AttributeNames of a manifest, by its first line: the photo, its label, and the metadata that names the class.

    Raises:
        UserError: there is no such manifest, or its first line does not say what the photo and its label are.
    """
    bucket, key = s3.split(address)
    with session.translate_errors(address):
        answer = session.client("s3", settings).get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{_FIRST - 1}")
        text = answer["Body"].read().decode("utf-8-sig", "replace")
    try:
        row = json.loads(text.split("\n", 1)[0])
    except ValueError as error:
        raise UserError(f"{address}: the first line is not JSON ({error}): write {_LINE}") from error
    return _attributes(row if isinstance(row, dict) else {}, address)


def _attributes(row: Mapping[str, Any], address: str) -> tuple[str, ...]:
    photo = next((name for name, value in row.items() if name.endswith("-ref") and isinstance(value, str)), "")
    labels = [name for name in row if not name.endswith(("-ref", "-metadata"))]
    label = next((name for name in ("class", "label") if name in labels), labels[0] if len(labels) == 1 else "")
    if not photo or not label:
        what = f"has {len(labels)} labels ({', '.join(labels)[:80]})" if photo else "names no photo"
        raise UserError(f"{address}: the first line {what}: write {_LINE}")
    metadata = f"{label}-metadata"
    named = isinstance(row.get(metadata), dict) and "class-name" in row[metadata]
    return (photo, label, metadata) if named else (photo, label)
