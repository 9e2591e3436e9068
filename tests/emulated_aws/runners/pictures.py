"""Small real photos and a model of them, for jobs that really run; written without an imaging library."""

import io
import os
import random
import struct
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from kennel_launch.machine.opt_ml import lay_out, link_channels

from ..client import REPOSITORY

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
# A network that trains in seconds.
TINY = {
    "backbone": "test_resnet",
    "pretrained": "false",
    "image_size": "64",
    "epochs": "2",
    "batch_size": "8",
    "int8": "false",
}
_WIDTH, _HEIGHT = 90, 70


def photo(colour: str, seed: int) -> bytes:
    """A noisy PNG of one colour; no two of different seeds are the same."""
    chance = random.Random(f"{colour} {seed}")
    rows = b""
    for _ in range(_HEIGHT):
        pixels = (min(255, max(0, c + chance.randint(-30, 30))) for _ in range(_WIDTH) for c in COLOURS[colour])
        rows += b"\0" + bytes(pixels)
    header = struct.pack(">IIBBBBB", _WIDTH, _HEIGHT, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def photos(root: Path, counts: Mapping[str, int]) -> Path:
    """`{"train/red": 10}` as ten photos; the last part is a colour. Returns the folder above them all."""
    for name, count in counts.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (folder / f"{i}.png").write_bytes(photo(folder.name, zlib.crc32(name.encode()) + i))
    return root


@cache
def model(programs: Path) -> bytes:
    """The model.tar.gz of a real training on photos in two colours, which runs once for all tests.

    Args:
        programs: the folder of `train`.

    Raises:
        AssertionError: the training failed.
    """
    with tempfile.TemporaryDirectory(prefix="kennel-trained-") as scratch:
        return _model(programs, Path(scratch))


def _model(programs: Path, scratch: Path) -> bytes:
    base, root = scratch / "ml", photos(scratch / "photos", {"red": 8, "green": 8})
    layout = lay_out(base, {"train": root}, TINY, ["localhost"])
    link_channels(layout, {"train": root})
    sources = [str(REPOSITORY / folder) for folder in ("container", "train")]
    env = {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_TRAINING_MODULE": "kennel_train.job:main", "USE_SMDEBUG": "0"}
    env |= {"PYTHONPATH": os.pathsep.join(sources), "TMPDIR": str(scratch)}
    command = [str(programs / "train")]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
            for path in layout.model.iterdir():
                archive.add(path, arcname=path.name)
        return file.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
