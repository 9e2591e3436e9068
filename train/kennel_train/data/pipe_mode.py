"""Pipe mode and augmented manifests become folders of photos, so that the rest of a job knows folders only.

How the platform streams (AWS's guide, "Augmented Manifest File Format for Pipe Mode Training", and its own reader in
sagemaker-tensorflow-extensions): one FIFO per channel and epoch; per example one RecordIO record for each attribute,
in the order of AttributeNames, `*-ref` as the file's bytes. The job does not learn AttributeNames: photos are known
from labels by their first bytes. The stream is read once, epoch 0.
"""

import itertools
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from kennel import config as config_files
from kennel.errors import UserError
from kennel.photos.file_formats import HEAD, suffix
from kennel_train.data import augmented_manifest

_MAGIC = 0xCED7230A
_LENGTH = (1 << 29) - 1
_MORE = (1, 2)  # flags of a record's first and middle parts; the platform cuts large files
_MAX_ATTRIBUTES = 4
_ATTRIBUTES = 'AttributeNames=["source-ref", "class"], a photo and its label'
_WRAP = f"set the channel's RecordWrapperType=RecordIO and {_ATTRIBUTES}"


def spool(config: Path, data: Path, scratch: Path, say: Callable[[str], None], patience: float = 30.0) -> Path:
    """The folder that holds one folder per channel: `data`, or one in `scratch` where a channel had to be unpacked.

    Args:
        config: input/config; its inputdataconfig.json says each channel's mode.
        data: input/data.
        scratch: a folder of this job's own, on a disk with room for the photos of all Pipe channels.
        patience: seconds to wait for a FIFO to appear.

    Raises:
        UserError: a stream or a manifest that is not what a photo classifier can learn from.
        OSError: the disk is full.
    """
    channels = config_files.channels(config / "inputdataconfig.json")
    pipes = sorted(name for name, channel in channels.items() if channel.get("TrainingInputMode") == "Pipe")
    folders = {path.name: path for path in sorted(data.iterdir()) if path.is_dir()} if data.is_dir() else {}
    folders = {name: path for name, path in folders.items() if name not in pipes}
    listed = {name: found for name, path in folders.items() if (found := augmented_manifest.find(path))}
    if not pipes and not listed:
        return data
    root = scratch / "data"
    root.mkdir(parents=True)
    for name, path in folders.items():
        if name not in listed:
            (root / name).symlink_to(path.absolute(), target_is_directory=True)
    for name, path in listed.items():
        with path.open("rb") as lines:
            say(f"channel '{name}': {augmented_manifest.link(lines, name, folders, root / name)} photos of {path.name}")
    for name in pipes:
        with _open(data / f"{name}_0", name, patience) as stream:
            say(f"channel '{name}': {_unpack(stream, name, folders, root / name)} photos from the pipe")
    return root


def _open(fifo: Path, channel: str, patience: float) -> BinaryIO:
    last = time.monotonic() + patience
    while not fifo.exists():
        if time.monotonic() > last:
            raise UserError(f"channel '{channel}' is in Pipe mode but {fifo} does not exist: use File or FastFile mode")
        time.sleep(0.05)
    if not stat.S_ISFIFO(fifo.stat().st_mode) and not fifo.is_file():
        raise UserError(f"channel '{channel}' is in Pipe mode but {fifo} is no pipe: use File or FastFile mode")
    return fifo.open("rb", buffering=1 << 20)


def _unpack(stream: BinaryIO, channel: str, folders: dict[str, Path], to: Path) -> int:
    """Write or link a stream's photos into class folders; their number."""
    head = stream.read(8)
    if head[:1] == b"{":  # a manifest's lines themselves: the photos must lie in another channel
        return augmented_manifest.link(_lines(head, stream), channel, folders, to)
    if suffix(head):
        raise UserError(f"channel '{channel}' streams photos without a border between them: {_WRAP}")
    count = 0
    for number, photo, labels in _examples(records(head, stream, channel), channel):
        folder = to / augmented_manifest.label(labels, f"channel '{channel}', record {number}")
        folder.mkdir(parents=True, exist_ok=True)
        count += 1
        # What has no known beginning goes to the decoder, which names it and applies on_bad_image.
        (folder / f"{count:08d}{suffix(photo[:HEAD]) or '.jpg'}").write_bytes(photo)
    if not count:
        raise UserError(f"channel '{channel}' streams nothing: check its S3Uri and that {_WRAP.removeprefix('set ')}")
    return count


def _lines(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    return itertools.chain([head + stream.readline()] if b"\n" not in head else [head], stream)


def records(head: bytes, stream: BinaryIO, channel: str) -> Iterator[bytes]:
    """The records of a RecordIO stream whose first 8 bytes were read already.

    Parts are put together as AWS's reader does, without the magic number that dmlc's reader puts between.

    Raises:
        UserError: another format, or cut off; the channel and the record are named.
    """
    for number in itertools.count(1):
        parts: list[bytes] = []
        more = True
        while more:
            if not head and not parts:
                return
            where = f"channel '{channel}', record {number}"
            if len(head) < 8:
                raise UserError(f"{where}: the stream ends in its header: start the job again")
            magic, word = struct.unpack("<II", head)
            if magic != _MAGIC:
                raise UserError(f"{where} does not begin as RecordIO does ({magic:#010x}): {_WRAP}")
            length = word & _LENGTH
            part = stream.read((length + 3) // 4 * 4)  # padded to four bytes
            if len(part) < length:
                raise UserError(
                    f"{where}: the stream ends after {len(part)} of {length} bytes: start the job again, and look "
                    "whether the platform's log names a file it could not read"
                )
            parts.append(part[:length])
            more = word >> 29 in _MORE
            head = stream.read(8)
        yield b"".join(parts)


def _examples(found: Iterable[bytes], channel: str) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """(number of the photo's record, the photo, its labels) of each example."""
    stream = iter(found)
    begun = list(_until_second_photo(stream))
    photos = [at for at, record in enumerate(begun) if _is_photo(record)]
    size = photos[1] - photos[0] if len(photos) > 1 else len(begun)
    if begun and (not photos or not 1 < size <= _MAX_ATTRIBUTES or photos[0] >= size):
        what = "no photo" if not photos else f"{size} for one photo"
        raise UserError(f"channel '{channel}': of the first {len(begun)} records {what}: set {_ATTRIBUTES}")
    stream = itertools.chain(begun, stream)
    for first in itertools.count(1, size or 1):
        example = list(itertools.islice(stream, size))
        if not example:
            return
        if len(example) < size:
            raise UserError(
                f"channel '{channel}' ends after record {first + len(example) - 1}, {len(example)} of the {size} that "
                f"make an example: set {_ATTRIBUTES}, and give every line of the manifest all of them"
            )
        photo = example.pop(photos[0])
        yield first + photos[0], photo, example


def _until_second_photo(stream: Iterator[bytes]) -> Iterator[bytes]:
    seen = 0
    for record in itertools.islice(stream, 2 * _MAX_ATTRIBUTES):
        yield record
        seen += _is_photo(record)
        if seen == 2:
            return


def _is_photo(record: bytes) -> bool:
    """By its first bytes, or because it is no text either: then it is a photo that is broken."""
    if suffix(record[:HEAD]):
        return True
    try:
        return b"\x00" in record or not record.decode()
    except UnicodeDecodeError:
        return True
