"""Pipe mode on real FIFOs, and augmented manifests: what becomes a folder of photos, and what is refused."""

import contextlib
import json
import os
import struct
import threading
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel.photos.photo_folders import class_folders, photos
from kennel_train.data import pipe_mode

JPEG, PNG = b"\xff\xd8\xff\xe0 a photo", b"\x89PNG\r\n\x1a\n another"


def record(content: bytes, flag: int = 0) -> bytes:
    return struct.pack("<II", 0xCED7230A, flag << 29 | len(content)) + content + b"\0" * (-len(content) % 4)


def stream(*contents: object) -> bytes:
    return b"".join(record(c if isinstance(c, bytes) else json.dumps(c).encode()) for c in contents)


class Channels:
    """A scratch input folder; each FIFO is written by a thread, as the platform does."""

    def __init__(self, base: Path) -> None:
        self.base, self.said, self.modes = base, [], {}
        self.data, self.config, self.scratch = base / "data", base / "config", base / "scratch"
        for folder in (self.data, self.config, self.scratch):
            folder.mkdir()

    def pipe(self, name: str, content: bytes) -> None:
        self.modes[name] = {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO"}
        fifo = self.data / f"{name}_0"
        os.mkfifo(fifo)

        def write() -> None:
            with contextlib.suppress(BrokenPipeError):  # the reader saw enough
                fifo.write_bytes(content)

        threading.Thread(target=write, daemon=True).start()

    def files(self, name: str, **contents: bytes | str) -> None:
        self.modes[name] = {"TrainingInputMode": "FastFile"}
        for path, content in contents.items():
            at = self.data / name / path
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_bytes(content if isinstance(content, bytes) else content.encode())

    def spool(self) -> dict[str, bytes]:
        """Each spooled photo's content by its path."""
        (self.config / "inputdataconfig.json").write_text(json.dumps(self.modes))
        self.root = pipe_mode.spool(self.config, self.data, self.scratch, self.said.append, patience=0.2)
        found = {}
        for folder, _, names in os.walk(self.root, followlinks=True):
            for name in names:
                at = Path(folder) / name
                found[str(at.relative_to(self.root))] = at.read_bytes() if at.is_file() else b""
        return found

    def refuse(self, match: str) -> None:
        with pytest.raises(UserError, match=match) as caught:
            self.spool()
        assert "\n" not in str(caught.value)


@pytest.fixture
def given(tmp_path: Path) -> Channels:
    return Channels(tmp_path)


def test_without_pipe_mode_the_data_stay_where_they_are(given):
    given.files("train", **{"cat/1.jpg": JPEG})
    given.spool()
    assert given.root == given.data
    (given.config / "inputdataconfig.json").unlink()  # as local mode may leave it
    assert pipe_mode.spool(given.config, given.data, given.scratch, print) == given.data


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        (0, "0"),
        (2.0, "2"),
        ("cat", "cat"),
        (b"cat", "cat"),
        (b"BMW", "BMW"),
        (b" 7\n", "7"),
        ({"class": 3}, "3"),
        ({"class-name": "tabby cat", "confidence": 1}, "tabby cat"),
    ],
)
def test_every_kind_of_label_becomes_a_folder(given, label, folder):
    given.pipe("train", stream(JPEG, label, PNG, label))
    assert given.spool() == {f"train/{folder}/00000001.jpg": JPEG, f"train/{folder}/00000002.png": PNG}
    assert given.said == ["channel 'train': 2 photos from the pipe"]


def test_attributes_come_in_any_order_and_metadata_name_the_class(given):
    metadata = {"class-name": "dog", "type": "groundtruth/image-classification"}
    given.pipe("train", stream(4, JPEG, metadata, 4, PNG, metadata, 4, JPEG, metadata))
    given.pipe("validation", stream("cat", PNG))
    assert sorted(given.spool()) == [
        "train/dog/00000001.jpg",
        "train/dog/00000002.png",
        "train/dog/00000003.jpg",
        "validation/cat/00000001.png",
    ]


def test_parts_of_a_large_photo_are_put_together(given):
    photo = JPEG + bytes(range(256)) * 300
    cuts = photo[:1001], photo[1001:5000], photo[5000:]
    given.pipe("train", b"".join(record(part, flag) for flag, part in enumerate(cuts, 1)) + stream("cat"))
    assert given.spool() == {"train/cat/00000001.jpg": photo}


def test_a_broken_photo_goes_to_the_decoder(given):
    given.pipe("train", stream(JPEG, "cat", b"\x00\x01 torn \xff", "cat", PNG, "dog"))
    assert given.spool()["train/cat/00000002.jpg"] == b"\x00\x01 torn \xff"


def test_other_channels_stand_beside_it_as_folders_of_classes(given):
    given.pipe("train", stream(JPEG, "cat", PNG, "dog"))
    given.files("val", **{"cat/a.jpg": JPEG, "dog/b.jpg": JPEG})
    assert set(given.spool()) > {"val/cat/a.jpg", "val/dog/b.jpg"}
    for split in ("train", "val"):
        assert {name: len(photos(*path)) for name, path in class_folders(given.root / split).items()} == {
            "cat": 1,
            "dog": 1,
        }
    assert (given.root / "val").is_symlink()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (stream(JPEG, "cat")[:-5], "record 2: the stream ends after 3 of 5 bytes"),
        (stream(JPEG, "cat") + b"\x0a\x23", "record 3: the stream ends in its header"),
        (
            stream(JPEG, "cat") + b"12345678",
            r"record 3 does not begin as RecordIO does \(0x34333231\).*RecordWrapperType",
        ),
        (stream(JPEG, "cat", PNG), "ends after record 3, 1 of the 2 that make an example"),
        (stream("cat", "dog"), "of the first 2 records no photo: set AttributeNames"),
        (stream(JPEG, PNG), "of the first 2 records 1 for one photo"),
        (JPEG + b"cat" + PNG, "streams photos without a border between them: set .*RecordWrapperType=RecordIO"),
        (b"", "streams nothing: check its S3Uri"),
        (stream(JPEG, [1, 0]), r"record 1: '\[1, 0\]' is no label of one class"),
        (stream(JPEG, True), "record 1: 'True' is no label"),
        (stream(JPEG, {"other": 1}), "record 1: 'None' is no label"),
        *[
            (stream(JPEG, bad), "record 1: the label .* cannot name a folder")
            for bad in ("../../etc", "a/b", "..", ".hidden", "", " ", "a\nb", "x" * 300)
        ],
    ],
)
def test_a_stream_that_cannot_be_used_is_refused_in_one_sentence(given, content, sentence):
    given.pipe("train", content)
    given.refuse(f"channel 'train'.*({sentence})|channel 'train' ({sentence})")


def test_a_pipe_that_never_appears_is_told(given):
    given.modes["train"] = {"TrainingInputMode": "Pipe"}
    given.refuse("'train' is in Pipe mode but .*train_0 does not exist")


def lines(*rows: dict) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n\n"


ROWS = (
    {"source-ref": "s3://bucket/photos/1/a.jpg", "class": 0},
    {"source-ref": "s3://bucket/photos/2/a.jpg", "pets": 1, "pets-metadata": {"class-name": "dog"}},
)


def test_a_manifest_file_in_a_channel_becomes_class_folders_of_links(given):
    given.files("train", **{"train.manifest": lines(*ROWS), "photos/1/a.jpg": JPEG, "photos/2/a.jpg": PNG})
    assert given.spool() == {"train/0/00000001.jpg": JPEG, "train/dog/00000002.jpg": PNG}
    assert all(path.is_symlink() for path in given.root.rglob("*.jpg"))
    assert given.said == ["channel 'train': 2 photos of train.manifest"]


def test_a_streamed_manifest_finds_its_photos_in_another_channel(given):
    given.pipe("train", lines(*ROWS).encode())
    given.files("photos", **{"1/a.jpg": JPEG, "2/a.jpg": PNG})
    found = given.spool()
    assert (found["train/0/00000001.jpg"], found["train/dog/00000002.jpg"]) == (JPEG, PNG)


def test_a_line_shorter_than_a_record_header_is_still_a_line(given):
    given.pipe("train", b'{"a":1}\n')
    given.refuse("manifest line 1 names no photo")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"source-ref": "s3://b/missing.jpg", "class": 0}, "manifest line 1: s3://b/missing.jpg is in no channel"),
        ({"source-ref": "s3://b/a.jpg", "class": "../x"}, "line 1: the label '../x' cannot name a folder"),
        ({"source-ref": "s3://b/a.jpg"}, "line 1: 'None' is no label"),
        ({"source-ref": "s3://b/a.jpg", "one": 1, "two": 2}, r"line 1 has 2 labels \(one, two\)"),
        (
            {"source-ref": "s3://b/same.jpg", "class": 1},
            "may be .*/same.jpg or .*/same.jpg: give the files other names",
        ),
        ({"source-ref": 3, "class": 1}, "line 1 names no photo"),
    ],
)
def test_a_manifest_line_that_cannot_be_used_is_refused(given, row, sentence):
    given.files("train", **{"x.jsonl": lines(row), "a.jpg": JPEG, "1/same.jpg": JPEG, "2/same.jpg": JPEG})
    given.refuse(sentence)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("photos.json", lines(*ROWS), r"photos\.json holds an augmented manifest's lines: call it photos\.manifest or"),
        ("list.txt", lines(*ROWS), r"list\.txt holds an augmented manifest's lines: call it list\.manifest or"),
        ("train.manifest", str(ROWS[0]) + "\n", r"train\.manifest is written with single quotes, which is not JSON"),
        ("train.json", str(ROWS[0]) + "\n", r"train\.json is written with single quotes, which is not JSON"),
    ],
)
def test_a_manifest_of_another_name_or_with_other_quotes_is_named(given, name, content, sentence):
    given.files("train", **{name: content, "a.jpg": JPEG})
    given.refuse(sentence)


@pytest.mark.parametrize("content", ["no json", '{"accuracy": 0.9}', "[1]"])
def test_other_files_of_that_suffix_are_no_manifest(given, content):
    given.files("train", **{"log.jsonl": content, "cat/1.jpg": JPEG})
    given.spool()
    assert given.root == given.data
