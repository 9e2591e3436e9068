"""From folders as people have them to splits and classes; no photo is opened as one, no job is run."""

import os

import pytest
from PIL import Image

from kennel.errors import UserError
from kennel_train.data import image_folder


def lay(root, *paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            file.mkdir(exist_ok=True)
        else:
            file.write_bytes(path.encode())
    return root


def look(root, allow=False):
    """(class names, photos a class and split, found)."""
    found = image_folder.find(root)
    made = image_folder.label(found, {split: set(classes) for split, classes in found.folders.items()}, allow)
    counts = {
        split: {name: sum(photo.label == at for photo in photos) for at, name in enumerate(made.class_names)}
        for split, photos in made.splits.items()
    }
    return made.class_names, counts, found


def test_a_test_channel_may_lack_classes_and_numbers_are_never_cut(tmp_path):
    lay(tmp_path, "train/1.5/a.jpg", "train/0.5/b.jpg", "train/5/c.jpg", "test/1.5/d.jpg")
    names, counts, _ = look(tmp_path)
    assert names == ("0.5", "1.5", "5")
    assert counts["test"] == {"0.5": 0, "1.5": 1, "5": 0}


def test_one_name_in_two_unicode_forms_is_one_class_in_all_channels(tmp_path):
    lay(
        tmp_path,
        "train/cafe\u0301/a.jpg",
        "train/caf\u00e9/b.jpg",
        "train/bar/c.jpg",
        "val/cafe\u0301/d.jpg",
        "val/bar/e.jpg",
    )
    names, counts, found = look(tmp_path)
    assert names == ("bar", "caf\u00e9")
    assert counts["train"]["caf\u00e9"] == 2
    assert "two Unicode forms" in found.notes[0]


def test_files_without_a_suffix_and_in_deeper_folders_are_photos_of_their_class(tmp_path):
    lay(
        tmp_path,
        "train/bees/a.jpg",
        "train/bees/from the garden/b.jpg",
        "train/wasps/2023/c.JFIF",
        "train/bees/notes.txt",
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "wasps" / "odd", "GIF")
    _, counts, found = look(tmp_path)
    assert counts["train"] == {"bees": 2, "wasps": 2}
    assert [path.name for path in found.left_out] == ["notes.txt"]


@pytest.mark.parametrize("around", ["", "photos/"])
@pytest.mark.parametrize("split", ["val", "test", "Validation"])
def test_a_host_whose_part_of_a_sharded_channel_is_validation_photos_does_not_train_on_them(tmp_path, around, split):
    lay(tmp_path, *(f"train/{around}{split}/{name}/{at}.jpg" for name in ("ants", "bees") for at in range(2)))
    found = image_folder.find(tmp_path, {"train"})
    wanted = "test" if split == "test" else "validation"
    assert {each: set(classes) for each, classes in found.folders.items()} == {wanted: {"ants", "bees"}}
    assert found.shown == {wanted: f"train/{around}{split}"}


def test_a_class_called_test_in_a_sharded_channel_is_one(tmp_path):
    lay(tmp_path, "train/test/1.jpg", "train/test/2.jpg", "train/bees/1.jpg")
    assert set(image_folder.find(tmp_path, {"train"}).folders["train"]) == {"bees", "test"}


@pytest.mark.parametrize(
    ("shards", "classes"),
    [
        (["train/v2/ants/1.jpg"], {"ants"}),  # alone it would be one class, v2
        (["train/v2/ants/1.jpg", "train/v2/bees/1.jpg"], {"ants", "bees"}),
        (["train/v2/2023/1.jpg", "train/v2/2024/1.jpg", "train/bees/1.jpg"], {"v2", "bees"}),
        (["train/v2/2023/1.jpg", "train/v2/2024/1.jpg"], {"v2"}),  # alone they would be two classes
    ],
)
def test_what_is_around_the_classes_of_a_sharded_channel_is_for_all_hosts_to_say(tmp_path, shards, classes):
    other = "train/bees/9.jpg" if "v2" in classes else "train/v2/bees/9.jpg"
    parts = [lay(tmp_path / "one", *shards), lay(tmp_path / "other", other)]
    everyones = [image_folder.holders(part, {"train"}) for part in parts]
    assert set(image_folder.find(parts[0], {"train"}, lambda _: everyones).folders["train"]) == classes
    assert set(image_folder.find(parts[1], {"train"}, lambda _: everyones).folders["train"]) == {"bees"}


@pytest.mark.parametrize("inside", ["", "train/wasps/list.txt"])
def test_a_class_without_a_photo_is_named(tmp_path, inside):
    lay(tmp_path, "train/ants/a.jpg", "train/bees/b.jpg", "train/wasps/", *([inside] if inside else []))
    but = ", only files that are no photos \\(list.txt\\)" if inside else ""
    with pytest.raises(
        UserError, match=f"^class folder 'wasps' of channel 'train' holds no photo{but}: add photos of it"
    ):
        look(tmp_path)
    assert look(tmp_path, allow=True)[0] == ("ants", "bees")


@pytest.mark.parametrize("around", ["train/dataset-v2", "train/Images"])
def test_a_folder_around_the_classes_is_looked_into(tmp_path, around):
    lay(tmp_path, f"{around}/ants/a.jpg", f"{around}/bees/b.jpg", "train/Annotation/ants/a.xml", "test/ants/2023/c.jpg")
    names, counts, found = look(tmp_path)
    assert names == ("ants", "bees")
    assert counts["test"]["ants"] == 1
    assert found.notes == [f"the classes of train are the folders in {around}"]


def test_a_folder_around_the_splits_is_looked_into(tmp_path):
    lay(tmp_path, *(f"train/pack/{split}/{name}/1.jpg" for split in ("train", "Valid", "test") for name in ("a", "b")))
    names, counts, _ = look(tmp_path)
    assert names == ("a", "b")
    assert set(counts) == {"train", "validation", "test"}


def test_a_class_in_a_folder_of_years_is_no_folder_around(tmp_path):
    lay(tmp_path, "train/ants/a.jpg", "train/wasps/b.jpg", "test/wasps/2023/c.jpg", "test/wasps/2024/d.jpg")
    assert look(tmp_path)[1]["test"] == {"ants": 0, "wasps": 2}


@pytest.mark.parametrize(
    ("channel", "split"), [("dev", "validation"), ("eval", "validation"), ("Validation", "validation")]
)
def test_usual_names_of_a_channel_are_understood(tmp_path, channel, split):
    lay(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{channel}/a/3.jpg", f"{channel}/b/4.jpg")
    assert look(tmp_path)[1][split] == {"a": 1, "b": 1}


def test_photos_that_are_not_used_are_said(tmp_path):
    lay(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "holdout/a/3.jpg", "pretrained/w.pth", "notes/readme.txt")
    notes = look(tmp_path)[2].notes
    assert notes == ["photos of channel 'holdout' are not used: name it train, val or test, or leave it out"]


def test_a_file_of_labels_that_is_not_read_is_named(tmp_path):
    lay(tmp_path, "train/images/1.jpg", "train/images/2.jpg", "train/labels.csv")
    with pytest.raises(UserError, match=r"one class only \(images\).*; labels.csv is not read, labels are folders"):
        look(tmp_path)


def test_pipes_links_to_nowhere_and_circles_are_left_out(tmp_path):
    lay(tmp_path, "train/a/1.jpg", "train/b/2.jpg")
    os.mkfifo(tmp_path / "train" / "a" / "pipe.jpg")
    (tmp_path / "train" / "a" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "train" / "a" / "up").symlink_to(tmp_path / "train", target_is_directory=True)
    _, counts, found = look(tmp_path)
    assert counts["train"] == {"a": 1, "b": 1}
    assert {path.name for path in found.left_out} == {"pipe.jpg", "gone.jpg", "up"}


def test_classes_two_folders_down_are_named(tmp_path):
    lay(tmp_path, "train/set/v1/ants/a.jpg", "train/set/v1/bees/b.jpg", "train/set/README.txt")
    with pytest.raises(UserError, match=r"one class only \(set\).*deeper down are the classes \(ants, bees, in 'v1'\)"):
        look(tmp_path)
    lay(tmp_path / "other", "train/set/a.jpg", "train/set/b.jpg")
    with pytest.raises(UserError, match=r"a classifier needs two folders or more$"):
        look(tmp_path / "other")
