"""Class names, photo files and the split by file hash, on real folders."""

import os
from pathlib import Path

import pytest
from PIL import Image

from kennel.errors import UserError
from kennel.files import file_hash
from kennel.photos.photo_folders import class_folders, files, hashes, loose_photos, photos, split, split_folders


def folder(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["bees", "ants"], ["ants", "bees"]),
        (["001.Affenpinscher", "002.Afghan_hound"], ["001.Affenpinscher", "002.Afghan_hound"]),
        (["4.5", "6.25", "737-800", "12 mm", "1.6 TDI"], ["1.6 TDI", "12 mm", "4.5", "6.25", "737-800"]),
        (["cafe\u0301", "ant"], ["ant", "caf\u00e9"]),
        (["cafe\u0301", "caf\u00e9"], ["caf\u00e9"]),
        (["ants", ".ipynb_checkpoints", "__MACOSX"], ["ants"]),
    ],
)
def test_a_class_is_called_what_its_folders_are(tmp_path: Path, folders: list[str], names: list[str]) -> None:
    folder(tmp_path, *(f"{name}/a.jpg" for name in folders), "labels.csv")
    found = class_folders(tmp_path)
    assert list(found) == names
    assert sorted(path.name for paths in found.values() for path in paths) == sorted(
        name for name in folders if not name.startswith((".", "__"))
    )


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines", b"bell\x07"])
def test_a_class_name_that_no_log_or_manifest_can_hold_is_refused(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).mkdir()
    with pytest.raises(
        UserError, match=r"class folder '.*\\.*' in .* has a name with unprintable characters: rename it"
    ):
        class_folders(tmp_path)


def test_photos_are_known_by_their_suffix_or_their_first_bytes(tmp_path: Path) -> None:
    folder(
        tmp_path,
        "b c.JPG",
        "a.jpeg",
        "d.Webp",
        "e.JFIF",
        "g.gif",
        "notes.txt",
        ".hidden.jpg",
        "Thumbs.db",
        "f.jpg/x.heic",
    )
    for name, format in (("no suffix", "PNG"), ("old.dat", "GIF"), ("other.data", "TIFF"), ("z.bin", "AVIF")):
        Image.new("RGB", (4, 4)).save(tmp_path / name, format)
    (tmp_path / "BMW.txt").write_text("BMW is a car")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    names = ["a.jpeg", "b c.JPG", "d.Webp", "e.JFIF", "g.gif", "no suffix", "old.dat", "other.data", "z.bin"]
    assert [path.name for path in loose_photos(tmp_path)] == names
    assert [path.name for path in photos(tmp_path)] == [*names[:4], "x.heic", *names[4:]]


def test_folders_below_belong_to_the_class_and_circles_end(tmp_path: Path) -> None:
    folder(tmp_path, "2023/a.jpg", "2024/b.jpg", "2024/deep/c.jpg")
    (tmp_path / "2024" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert [path.name for path in photos(tmp_path)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert tmp_path / "2024" / "up" in list(files(tmp_path))


def test_splits_are_found_in_any_case_and_by_the_usual_other_names(tmp_path: Path) -> None:
    folder(tmp_path, "Train/a/a.jpg", "Validation/a/a.jpg", "dev/a/a.jpg", "holdout/a/a.jpg")
    assert {split: path.name for split, path in split_folders(tmp_path).items()} == {
        "train": "Train",
        "validation": "Validation",
    }
    folder(tmp_path, "val/a/a.jpg")
    with pytest.raises(UserError, match=r"'Validation' and 'val' in .* both name the validation photos: keep one"):
        split_folders(tmp_path)


def test_the_split_is_disjoint_whole_and_of_the_wanted_size(tmp_path: Path) -> None:
    found = photos(folder(tmp_path, *(f"{i}.jpg" for i in range(50))))
    kept, held_out = split(hashes(found), 0.2)
    assert len(held_out) == 10
    assert sorted([*kept, *held_out]) == found


def test_the_split_knows_bytes_not_names(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    folder(one, *(f"{i}.jpg" for i in range(30)))
    other.mkdir()
    for i, path in enumerate(reversed(photos(one))):
        (other / f"renamed {i}.png").write_bytes(path.read_bytes())
    held = [{file_hash(path) for path in split(hashes(photos(root)), 0.2)[1]} for root in (one, other)]
    assert held[0] == held[1]
    assert len(held[0]) == 6


@pytest.mark.parametrize(("count", "held_out"), [(0, 0), (1, 0), (2, 1), (3, 1), (10, 2)])
def test_small_classes_keep_a_photo_on_each_side(tmp_path: Path, count: int, held_out: int) -> None:
    found = photos(folder(tmp_path, "x", *(f"{i}.jpg" for i in range(count))))
    kept, held = split(hashes(found), 0.2)
    assert (len(kept), len(held)) == (count - held_out, held_out)


def test_hashes_keep_the_first_of_the_same_bytes(tmp_path: Path) -> None:
    for name, text in (("a.jpg", "x"), ("b.jpg", "x"), ("c.jpg", "y")):
        (tmp_path / name).write_text(text)
    assert [path.name for path in hashes(photos(tmp_path))] == ["a.jpg", "c.jpg"]


def test_the_same_bytes_never_lie_on_both_sides(tmp_path: Path) -> None:
    found = photos(folder(tmp_path, *(f"{i}.jpg" for i in range(10))))
    digests = {path: str(i // 4) for i, path in enumerate(found)}
    kept, held_out = split(digests, 0.2)
    assert {digests[path] for path in kept}.isdisjoint(digests[path] for path in held_out)
    assert len(held_out) == 4
