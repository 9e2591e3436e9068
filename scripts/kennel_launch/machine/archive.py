"""One file out of a job's output.tar.gz, read as a stream: nothing is unpacked to the disk."""

import tarfile
import zlib
from typing import Any

from kennel.errors import UserError

REPORT = "report.html"  # what kennel_train calls it
LARGEST = 200 * 2**20  # bytes; ours have a few MB


def member(body: Any, uri: str, name: str = REPORT) -> bytes:
    """One file of an archive, which is read from its beginning to there.

    Raises:
        UserError: there is none, it is larger than LARGEST, or the archive is cut short.
    """
    try:
        with tarfile.open(fileobj=body, mode="r|gz") as archive:
            for member in archive:
                if member.name.removeprefix("./") != name or not member.isfile():
                    continue
                file = archive.extractfile(member)
                if file and member.size <= LARGEST:
                    return file.read()
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise UserError(f"{uri} cannot be unpacked ({error}): the job may have been stopped while it wrote") from error
    raise UserError(f"{uri} holds no {name}: was the job one of this image?")
