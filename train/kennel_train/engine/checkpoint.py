"""Checkpoints in /opt/ml/checkpoints, which SageMaker copies to S3 while the job runs and back when it restarts.

A file is there whole or not at all, and its name holds its hash: one that was torn on its way is not loaded.
What is in them, and when one is written, the training loop decides.
"""

import contextlib
import fcntl
import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from kennel.errors import UserError

log = logging.getLogger("kennel")
_KEPT = 2  # the newest, and the one before it should the newest be torn
_SHOWN = 200  # characters of a setting in a message: class names may be thousands, and SageMaker shows 1,024
_NAME = re.compile(r"^(checkpoint-[0-9]{8}|features(-[0-9a-f]+)+)\.(?P<digest>[0-9a-f]{16})\.pt$")


def save(folder: Path, stem: str, content: Mapping[str, Any]) -> Path:
    """Write `<stem>.<hash>.pt` in one step, on the disk before it is returned.

    Args:
        stem: `checkpoint-` and eight digits, or `features` and parts of hexadecimal digits: `features-ab12-0000`.
        content: tensors, numbers, strings and containers of them.

    Raises:
        OSError: the disk is full; an earlier checkpoint is then still there.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    data = buffer.getbuffer()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.{hashlib.sha256(data).hexdigest()[:16]}.pt"
    partial = folder / f".{path.name}.partial"
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    handle = os.open(folder, os.O_RDONLY)  # the new name itself must be on the disk, too
    os.fsync(handle)
    os.close(handle)
    return path


def load(folder: Path, prefix: str) -> dict[str, Any] | None:
    """The newest whole file whose stem begins with `prefix`; torn ones are named in the log and passed over.

    Files that are not ours are not looked at, the platform's `*.sagemaker-uploading` and `*.sagemaker-uploaded`
    included.
    """
    for path in sorted(_ours(folder, prefix), reverse=True):
        data = path.read_bytes()
        match = _NAME.match(path.name)
        if match and hashlib.sha256(data).hexdigest()[:16] == match["digest"]:
            found: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return found
        log.warning("warning: checkpoint %s is torn and is passed over", path.name)
    return None


def exists(folder: Path) -> bool:
    """Whether a job that came as far as its training has left something there, whole or torn."""
    return bool(_ours(folder, ""))


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the folder for one job: two at once would remove each other's checkpoints.

    The lock is on the folder itself, so that it leaves no file, and goes with the process.

    Raises:
        UserError: another job that still runs has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder} is in use by another job that still runs: wait for its end, or give each a folder of its own"
            ) from None
        except OSError as error:
            log.info("the file system of %s has no locks (%s): no other job may use it", folder, error.strerror)
        yield
    finally:
        os.close(handle)


def agree(folder: Path, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """
    Raises:
        UserError: the folder's checkpoints are another job's.
    """
    for key, value in ours.items():
        if theirs.get(key) != value:
            was, now = (_shown(str(text)) for text in (theirs.get(key), value))
            raise UserError(
                f"{folder} holds checkpoints of another job, its {key} was {was} and is now {now}: give this job an "
                "empty checkpoint folder (checkpoint_s3_uri), or the other's settings"
            )


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class Checkpoints:
    """One job's checkpoints, numbered as they are written; `identity` says of which job they are."""

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self.identity = dict(identity)
        self._number = max((int(path.name[11:19]) for path in _ours(folder, "checkpoint-")), default=0)

    def load(self) -> dict[str, Any] | None:
        """What the job had reached, or None where it begins.

        Raises:
            UserError: the folder's checkpoints are another job's.
        """
        found = load(self.folder, "checkpoint-")
        if found is None:
            return None
        agree(self.folder, found["identity"], self.identity)
        return found

    def save(self, content: Mapping[str, Any]) -> None:
        """Write the next checkpoint, then remove all but the newest two.

        Raises:
            OSError: the disk is full.
        """
        self._number += 1
        save(self.folder, f"checkpoint-{self._number:08d}", {"identity": self.identity, **content})
        for old in sorted(_ours(self.folder, "checkpoint-"))[:-_KEPT]:
            old.unlink(missing_ok=True)
        for partial in self.folder.glob(".checkpoint-*.partial"):  # a killed job's
            partial.unlink(missing_ok=True)


def _ours(folder: Path, prefix: str) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return [path for path in found if path.name.startswith(prefix) and _NAME.match(path.name) and path.is_file()]
