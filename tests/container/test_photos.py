"""Class names, photo files and the split by file hash, on real folders."""

from pathlib import Path

import pytest

from kennel.photos import class_folders, file_hash, hashes, photos, split


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
        (["001.Affenpinscher", "002.Afghan_hound"], ["Affenpinscher", "Afghan_hound"]),
        (["2 - owl", "10_fox"], ["fox", "owl"]),
        (["1.red", "2.red"], ["1.red", "2.red"]),
        (["2024", "7."], ["2024", "7."]),
        (["ants", ".ipynb_checkpoints", "__MACOSX"], ["ants"]),
    ],
)
def test_class_names_are_the_folders_without_their_number(tmp_path: Path, folders: list[str], names: list[str]) -> None:
    folder(tmp_path, *(f"{name}/a.jpg" for name in folders), "labels.csv")
    found = class_folders(tmp_path)
    assert list(found) == names
    assert sorted(path.name for path in found.values()) == sorted(
        name for name in folders if not name.startswith((".", "__"))
    )


def test_photos_are_known_by_their_suffix(tmp_path: Path) -> None:
    folder(tmp_path, "b c.JPG", "a.jpeg", "d.Webp", "imageNotFound.gif", "notes.txt", ".hidden.jpg", "deep/e.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in photos(tmp_path)] == ["a.jpeg", "b c.JPG", "d.Webp"]


def test_the_split_is_disjoint_whole_and_of_the_wanted_size(tmp_path: Path) -> None:
    files = photos(folder(tmp_path, *(f"{i}.jpg" for i in range(50))))
    kept, held_out = split(hashes(files), 0.2)
    assert len(held_out) == 10
    assert sorted([*kept, *held_out]) == files


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
    files = photos(folder(tmp_path, "x", *(f"{i}.jpg" for i in range(count))))
    kept, held = split(hashes(files), 0.2)
    assert (len(kept), len(held)) == (count - held_out, held_out)


def test_hashes_keep_the_first_of_the_same_bytes(tmp_path: Path) -> None:
    for name, text in (("a.jpg", "x"), ("b.jpg", "x"), ("c.jpg", "y")):
        (tmp_path / name).write_text(text)
    assert [path.name for path in hashes(photos(tmp_path))] == ["a.jpg", "c.jpg"]


def test_the_same_bytes_never_lie_on_both_sides(tmp_path: Path) -> None:
    files = photos(folder(tmp_path, *(f"{i}.jpg" for i in range(10))))
    digests = {path: str(i // 4) for i, path in enumerate(files)}
    kept, held_out = split(digests, 0.2)
    assert {digests[path] for path in kept}.isdisjoint(digests[path] for path in held_out)
    assert len(held_out) == 4
