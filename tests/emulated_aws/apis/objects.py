"""What SageMaker's hosts do with S3: channels and models come down, artifacts and checkpoints go up."""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from ..http.account import Account
from ..http.lookups import s3_parts


def keys(account: Account, url: str) -> Iterator[tuple[str, str]]:
    """(key, its name below the prefix) of each object; folders' placeholders are left out."""
    bucket, prefix = s3_parts(url)
    pages = account.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for row in page.get("Contents", []):
            if not row["Key"].endswith("/"):
                yield row["Key"], _below(prefix, row["Key"])


def _below(prefix: str, key: str) -> str:
    """`a/b` of `photos/a/b` for `photos` and `photos/`; of a prefix that ends inside a name, from its folder on."""
    rest = key.removeprefix(prefix)
    if rest and (prefix.endswith("/") or not prefix or rest.startswith("/")):
        return rest.lstrip("/")
    return key.removeprefix(prefix.rpartition("/")[0]).lstrip("/")


def download(account: Account, url: str, folder: Path) -> int:
    """All objects of a prefix; how many there were."""
    count = 0
    for key, name in keys(account, url):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read(account, s3_parts(url)[0], key))
        count += 1
    return count


def read(account: Account, bucket: str, key: str) -> bytes:
    found: bytes = account.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return found


def read_url(account: Account, url: str) -> bytes | None:
    """None: there is no such object."""
    try:
        return read(account, *s3_parts(url))
    except ClientError:
        return None


def write_url(account: Account, url: str, body: Any) -> None:
    bucket, key = s3_parts(url)
    account.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def upload_packed(account: Account, folder: Path, url: str) -> None:
    """A folder's content as one .tar.gz."""
    with tempfile.TemporaryFile(dir=account.folder) as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, arcname=path.name)
        file.seek(0)
        write_url(account, url, file)


def upload_tree(account: Account, folder: Path, url: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            write_url(account, f"{url.rstrip('/')}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def unpack(body: bytes, folder: Path) -> None:
    """A model.tar.gz, into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            archive.extractall(folder, filter="data")


class Mirror:
    """A folder that is copied to S3 while its owner runs, deletions too: a job's checkpoints."""

    def __init__(self, account: Account, folder: Path, url: str) -> None:
        self._account, self._folder, self._url = account, folder, url.rstrip("/")
        self._sent: dict[str, tuple[float, int]] = {}

    def restore(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        download(self._account, self._url + "/", self._folder)
        self._sent = self._state()

    def push(self) -> None:
        """What changed since the last time."""
        state = self._state()
        for name in state:
            if state[name] != self._sent.get(name):
                try:
                    body = (self._folder / name).read_bytes()
                except FileNotFoundError:  # replaced while we looked
                    continue
                write_url(self._account, f"{self._url}/{name}", body)
        bucket, prefix = s3_parts(self._url)
        for name in self._sent.keys() - state.keys():
            self._account.client("s3").delete_object(Bucket=bucket, Key=f"{prefix}/{name}")
        self._sent = state

    def _state(self) -> dict[str, tuple[float, int]]:
        found = {}
        for path in self._folder.rglob("*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file():
                found[path.relative_to(self._folder).as_posix()] = (stat.st_mtime, stat.st_size)
        return found
