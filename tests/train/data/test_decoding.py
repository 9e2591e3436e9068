"""Photos decoded once into one array: what is known of each, which are left out, and what the job logs."""

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kennel.errors import UserError
from kennel.photos import decoder, preprocessing
from kennel.photos.preprocessing import Preprocessing
from kennel_train.data import decoding
from kennel_train.data.image_folder import Photo

ROW = Preprocessing(image_size=32, resize=36)


def noise(seed: int, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(5):
        noise(i, (60 + i, 50)).save(tmp_path / f"{i}.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(5, (1200, 700)).save(tmp_path / "turned.jpg", exif=exif)
    return tmp_path


def photos(folder: Path) -> list[Photo]:
    return [Photo(path, at % 2) for at, path in enumerate(sorted(folder.iterdir()))]


def decode(folder: Path, on_bad_image: str = "skip"):
    said: list[str] = []
    return *decoding.decode(photos(folder), ROW, on_bad_image, said.append), said


def test_each_photo_is_a_row_as_serving_would_see_it(folder):
    decoded, bad, said = decode(folder)
    assert (bad, said) == ([], [])
    assert (decoded.images.shape, decoded.images.dtype) == ((6, 36, 36, 3), np.uint8)
    for row, known, photo in zip(decoded.local, decoded.photos, photos(folder), strict=True):
        data = photo.path.read_bytes()
        whole = preprocessing.square(decoder.decode(data, ROW), ROW, 36)
        assert (decoded.images[row].transpose(2, 0, 1) == whole).all()
        assert (known.path, known.label, known.digest) == (photo.path, photo.label, hashlib.sha256(data).hexdigest())


def test_the_size_is_that_of_the_upright_photo_before_any_reduction(folder):
    known = decode(folder)[0].photos[-1]
    assert (known.path.name, known.width, known.height) == ("turned.jpg", 700, 1200)


def test_the_same_picture_is_known_under_any_name_and_header(folder):
    data = (folder / "0.jpg").read_bytes()
    (folder / "copy.jpg").write_bytes(data)
    (folder / "retold.jpg").write_bytes(data[:2] + b"\xff\xfe\x00\x07hello" + data[2:])
    Image.open(folder / "0.jpg").save(folder / "stored.png")
    known = {photo.path.name: photo for photo in decode(folder)[0].photos}
    same = [known[name].pixels for name in ("0.jpg", "copy.jpg", "retold.jpg", "stored.png")]
    assert len(set(same)) == 1
    assert len({photo.pixels for photo in known.values()}) == 6
    assert known["0.jpg"].digest == known["copy.jpg"].digest != known["retold.jpg"].digest


def test_a_file_that_no_photo_can_be_as_large_as_is_not_read(folder):
    with (folder / "1.jpg").open("ab") as file:
        file.truncate(3 << 30)  # it takes no room on the disk
    decoded, (bad,), _ = decode(folder)
    assert (bad.path.name, bad.reason[:31]) == ("1.jpg", "the file has 3,221,225,472 byte")
    assert len(decoded.photos) == 5


def test_unreadable_photos_are_named_and_the_rows_of_the_others_stay_right(folder):
    whole = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "2a.jpg").write_text("no photo")
    (folder / "2b.jpg").symlink_to(folder / "gone")
    decoded, bad, said = decode(folder)
    assert [photo.path.name for photo in bad] == ["1.jpg", "2a.jpg", "2b.jpg"]
    assert said == [f"bad photo: {photo.path}: {photo.reason}" for photo in bad]
    assert all("not a readable photo" in photo.reason for photo in bad[:2])
    assert [photo.path.name for photo in decoded.photos] == ["0.jpg", "2.jpg", "3.jpg", "4.jpg", "turned.jpg"]
    last = preprocessing.square(decoder.decode(folder / "turned.jpg", ROW), ROW, 36)
    assert (decoded.images[decoded.local[-1]].transpose(2, 0, 1) == last).all()
    assert (decoded.take([4, 0]).images[decoded.take([4, 0]).local[0]].transpose(2, 0, 1) == last).all()
    assert decoded.take([4, 0]).labels.tolist() == [decoded.labels[4], decoded.labels[0]]


def test_a_bad_photo_fails_the_job_where_that_is_asked(folder):
    (folder / "3.jpg").write_text("no photo")
    with pytest.raises(UserError, match=r"3\.jpg: not a readable photo .*on_bad_image=fail\): remove or replace it"):
        decode(folder, "fail")


def test_many_bad_photos_are_a_broken_data_set(folder):
    bad = [decoding.Bad(folder / "1.jpg", "torn")]
    decoding.refuse_many(bad, 100)
    with pytest.raises(UserError, match=r"1 of 99 photos cannot be read, more than 1%: .*1\.jpg: torn"):
        decoding.refuse_many(bad, 99)


def test_each_file_is_opened_once(folder):
    """A FastFile channel fetches a file when it is opened: this pipe gives its bytes once, nothing the next time."""
    fifo, data = folder / "0.jpg", (folder / "0.jpg").read_bytes()
    fifo.unlink()
    os.mkfifo(fifo)

    def feed() -> None:
        fifo.write_bytes(data)
        while True:
            fifo.write_bytes(b"")

    threading.Thread(target=feed, daemon=True).start()
    decoded, bad, _ = decode(folder)
    assert (bad, decoded.photos[0].digest) == ([], hashlib.sha256(data).hexdigest())


def test_pictures_that_differ_in_one_pixel_are_two(tmp_path):
    picture = np.full((256, 256, 3), 200, np.uint8)
    for name in ("a", "b", "c"):
        Image.fromarray(picture).save(tmp_path / f"{name}.png", compress_level=1 + 8 * (name == "b"))
        if name == "b":
            picture[3, 100] = 0
    listed = [Photo(tmp_path / f"{name}.png", 0) for name in ("a", "b", "c")]
    decoded, _ = decoding.decode(listed, Preprocessing(), "fail", print)
    a, b, c = decoded.photos
    assert a.digest != b.digest
    assert a.pixels == b.pixels != c.pixels
