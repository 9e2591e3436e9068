"""A folder and the place in S3 that it is uploaded to: what differs. Changes neither side.

An object is the same as a file where the size is the same and the ETag is the file's MD5, as S3 makes it of what came
in one piece. Where it is another (encryption by KMS, several pieces), the MD5 that we noted beside that ETag counts.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import session
from kennel_launch.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class LocalFile:
    """One file of the folder; `size` in bytes."""

    path: Path
    size: int


@dataclass(frozen=True)
class UploadPlan:
    """What an upload does: all by key relative to the prefix, which ends with a slash."""

    bucket: str
    prefix: str
    notes: str  # the key of the MD5s that no ETag tells; a channel's is also the sign that it was uploaded on its own
    files: dict[str, LocalFile]
    changed: tuple[str, ...]
    gone: tuple[str, ...]  # in S3 and not in the folder
    channels: tuple[str, ...] = ()  # below this prefix, uploaded on their own: what lies there is not `gone`
    unmarked: bool = False  # a channel that lacks its sign

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def size(self) -> int:
        """Bytes that have to be sent."""
        return sum(self.files[key].size for key in self.changed)

    def __str__(self) -> str:
        same = len(self.files) - len(self.changed)
        said = f"upload {len(self.changed)} files, {self.size / 1e6:.1f} MB, to {self.uri} ({same} are there already)"
        if not self.gone:
            return said
        return f"{said}; {len(self.gone)} others there are not in the folder, kennel upload --delete removes them"


def plan(folder: Path, settings: Settings, name: str = "", channel: str = "") -> UploadPlan:
    """Looks at both sides and sends nothing.

    Raises:
        UserError: no such folder, nothing in it, or the bucket can't be listed.
    """
    kennel_settings.needed(settings, "bucket")
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give one that holds <class>/*.jpg, or train/<class>/*.jpg")
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-.")
    for word in (name, channel or name):
        if not _NAME.fullmatch(word):
            raise UserError(f"{word!r} is no name for a data set or channel: letters, digits, . _ and -")
    below = f"{name}/{channel}/" if channel else f"{name}/"
    prefix, notes = (f"{settings.prefix}/{part}" for part in (f"data/{below}", f"uploads/{below.rstrip('/')}.json"))
    found = {path.relative_to(folder).as_posix(): LocalFile(path, path.stat().st_size) for path in _files(folder)}
    if not found:
        raise UserError(f"{folder} holds no files: give a folder of photos, <class>/*.jpg")
    client = session.client("s3", settings)
    with session.translate_errors(f"s3://{settings.bucket}/{prefix}"):
        there = {key.removeprefix(prefix): row for key, row in listed(client, settings.bucket, prefix)}
        before = noted(client, settings.bucket, notes) if there else None
        others = [] if channel else _channels(client, settings, name)
    tags = before or {}
    changed = tuple(key for key, file in found.items() if not _same(file, there.get(key), tags.get(key)))
    own = {key.partition("/")[0] for key in found}
    kept = tuple(other for other in others if other not in own)
    gone = tuple(key for key in there if key not in found and key.partition("/")[0] not in kept)
    return UploadPlan(settings.bucket, prefix, notes, found, changed, gone, kept, bool(channel) and before is None)


def _channels(client: Any, settings: Settings, name: str) -> list[str]:
    """The channels of a data set that were uploaded on their own."""
    signs = f"{settings.prefix}/uploads/{name}/"
    return [key.removeprefix(signs).removesuffix(".json") for key, _ in listed(client, settings.bucket, signs)]


def _files(folder: Path) -> Iterator[Path]:
    """All files, in order; hidden ones are left out, links are followed, each folder once."""
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(where)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from (
            path for name in sorted(files) if not name.startswith(".") and (path := Path(where, name)).is_file()
        )


def listed(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for row in page.get("Contents", []):
            yield row["Key"], row


def noted(client: Any, bucket: str, key: str) -> dict[str, list[str]] | None:
    """Key -> [ETag, MD5] of an earlier upload; None where nothing was noted."""
    from botocore.exceptions import ClientError

    try:
        tags = json.loads(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        if session.code_of(error) in ("NoSuchKey", "404"):
            return None
        raise
    except ValueError:
        return {}
    return tags if isinstance(tags, dict) else {}


def _same(file: LocalFile, there: Mapping[str, Any] | None, noted: list[str] | None) -> bool:
    if there is None or there["Size"] != file.size:
        return False
    tag = str(there["ETag"]).strip('"')
    if noted and noted[0] == tag:
        tag = noted[1]
    return tag == md5(file.path)


@functools.cache  # it is asked for before and after a file is sent
def md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
