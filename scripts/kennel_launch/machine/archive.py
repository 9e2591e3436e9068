"""Files out of a job's output.tar.gz, read as a stream: nothing is unpacked to the disk."""

import tarfile
import zlib
from collections.abc import Collection
from typing import Any

from kennel.errors import UserError

REPORT, FIGURES = "report.html", "report.json"  # what kennel_train calls them
LARGEST = 200 * 2**20  # bytes; ours have a few MB


def members(body: Any, uri: str, names: Collection[str]) -> dict[str, bytes]:
    """Those of the files that an archive holds; it is read from its beginning to the last of them.

    Raises:
        UserError: the archive is cut short. A file larger than LARGEST is passed over.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=body, mode="r|gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name not in names or not member.isfile() or member.size > LARGEST:
                    continue
                file = archive.extractfile(member)
                assert file  # of a file there is one
                found[name] = file.read()
                if len(found) == len(names):
                    break
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise UserError(f"{uri} cannot be unpacked ({error}): the job may have been stopped while it wrote") from error
    return found
