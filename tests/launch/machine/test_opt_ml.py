"""Which photos train and which are kept back, for each shape of folder; the scratch /opt/ml."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel.files import file_hash
from kennel.photos.photo_folders import photos
from kennel_launch.machine import opt_ml

MakePhotos = Callable[[dict[str, int]], Path]


def test_split_folders_are_taken_as_they_are(make_photos: MakePhotos, tmp_path: Path) -> None:
    data = make_photos({f"{split}/{name}": 3 for split in ("train", "valid", "test") for name in ("1.ant", "2.bee")})
    plan = opt_ml.plan(data, tmp_path / "cut")
    assert plan.channels == {"train": data / "train", "validation": data / "valid"}
    assert Counter(photo.truth for photo in plan.test) == {"1.ant": 3, "2.bee": 3}
    assert all(photo.path.is_relative_to(data / "test") for photo in plan.test)
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_validation_is_the_test_side_where_there_is_no_other(
    make_photos: MakePhotos, tmp_path: Path, name: str
) -> None:
    data = make_photos({"train/ant": 3, "train/bee": 3, f"{name}/ant": 1, f"{name}/bee": 2})
    plan = opt_ml.plan(data, tmp_path / "cut")
    assert plan.channels == {"train": data / "train"}
    assert Counter(photo.truth for photo in plan.test) == {"ant": 1, "bee": 2}


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_class_folders_alone_are_cut(make_photos: MakePhotos, tmp_path: Path, prefix: str) -> None:
    data = make_photos({f"{prefix}1.ant": 20, f"{prefix}2.bee": 10})
    plan = opt_ml.plan(data, tmp_path / "cut")
    assert Counter(photo.truth for photo in plan.test) == {"1.ant": 4, "2.bee": 2}
    trained = {file_hash(path) for name in ("1.ant", "2.bee") for path in photos(plan.channels["train"] / name)}
    kept_back = {file_hash(photo.path) for photo in plan.test}
    assert len(trained) == 24
    assert trained.isdisjoint(kept_back)
    again = opt_ml.plan(data, tmp_path / "cut")
    assert again == plan


def test_a_cut_drops_duplicates_across_all_classes(make_photos: MakePhotos, tmp_path: Path) -> None:
    data = make_photos({"ant": 10, "bee": 10})
    for path in photos(data / "ant"):
        (data / "ant" / f"copy of {path.name}").write_bytes(path.read_bytes())
        (data / "bee" / f"copy of {path.name}").write_bytes(path.read_bytes())
    plan = opt_ml.plan(data, tmp_path / "cut")
    found = [*plan.channels["train"].rglob("*.jpg"), *(photo.path for photo in plan.test)]
    assert len(found) == 20
    assert len({file_hash(path) for path in found}) == 20


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_what_is_used_nowhere_is_said(make_photos: MakePhotos, tmp_path: Path, prefix: str) -> None:
    data = make_photos({f"{prefix}ant": 5, f"{prefix}bee": 5})
    root = data / prefix
    assert opt_ml.plan(data, tmp_path / "cut").left_out == []
    (root / "ant" / "notes.txt").write_text("none")
    (root / "wasp").mkdir()
    photo = next((root / "ant").glob("*.jpg"))
    (root / "bee" / "again.jpg").write_bytes(photo.read_bytes())
    (root / "loose.jpg").write_bytes(photo.read_bytes())
    assert opt_ml.plan(data, tmp_path / "cut").left_out == [
        f"1 files of {root.name} that are no photos (notes.txt)",
        f"1 photos of {root.name} outside its classes (loose.jpg)",
        f"classes of {root.name} without photos (wasp)",
        "1 copies of other photos",
    ]


def test_a_class_may_be_called_train(make_photos: MakePhotos, tmp_path: Path) -> None:
    plan = opt_ml.plan(make_photos({"train": 5, "plane": 5}), tmp_path / "cut")
    assert plan.class_names == ["plane", "train"]


def test_hymenoptera(hymenoptera: Path, tmp_path: Path) -> None:
    plan = opt_ml.plan(hymenoptera, tmp_path / "cut")
    assert plan.channels == {"train": hymenoptera / "train"}
    assert Counter(photo.truth for photo in plan.test) == {"ants": 70, "bees": 83}


def test_hymenoptera_cut(hymenoptera: Path, tmp_path: Path) -> None:
    plan = opt_ml.plan(hymenoptera / "train", tmp_path / "cut")
    trained = list(plan.channels["train"].rglob("*.*"))
    assert len(trained) + len(plan.test) == 245
    assert len(plan.test) == 49
    assert {path.suffix for path in trained} <= {".jpg", ".jpeg", ".gif"}


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        ({}, "no folder"),
        ({"ant": 3}, "two are needed"),
        ({"ant": 3, "bee": 0}, "two are needed"),
        ({"ant": 1, "bee": 1}, "add photos"),
        ({"train/ant": 3, "train/bee": 3, "val/wasp": 3}, "wasp"),
        ({"train/ant": 3, "train/bee": 3, "val/bee": 0}, "no photos to test with"),
        ({"train/ant": 3, "train/bee": 3, "val/bee": 3, "valid/bee": 3}, "'val' and 'valid' in"),
    ],
)
def test_other_shapes_are_one_sentence(
    make_photos: MakePhotos, tmp_path: Path, folders: dict[str, int], says: str
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        opt_ml.plan(make_photos(folders), tmp_path / "cut")
    assert "\n" not in str(caught.value)


def test_the_scratch_folder_is_what_sagemaker_lays_out(make_photos: MakePhotos, tmp_path: Path) -> None:
    channels = {"train": make_photos({"ant": 2, "bee": 2})}
    layout = opt_ml.lay_out(tmp_path / "ml", channels, {"epochs": "5"}, ["algo-1"])
    opt_ml.link_channels(layout, channels)
    assert json.loads(layout.hyperparameters.read_text()) == {"epochs": "5"}
    assert json.loads((layout.config / "inputdataconfig.json").read_text())["train"]["TrainingInputMode"] == "File"
    assert json.loads((layout.config / "resourceconfig.json").read_text())["hosts"] == ["algo-1"]
    assert len(photos(layout.data / "train" / "ant")) == 2
    assert list(layout.model.iterdir()) == []


def test_a_scratch_folder_is_made_anew_and_the_photos_stay(make_photos: MakePhotos, tmp_path: Path) -> None:
    channels = {"train": make_photos({"ant": 2, "bee": 2})}
    layout = opt_ml.lay_out(tmp_path / "ml", channels, {}, ["algo-1"])
    opt_ml.link_channels(layout, channels)
    (layout.model / "model.onnx").write_text("old")
    assert list(opt_ml.lay_out(tmp_path / "ml", channels, {}, ["algo-1"]).model.iterdir()) == []
    assert len(photos(channels["train"] / "ant")) == 2


@pytest.mark.parametrize(
    ("made", "ends", "left"),
    [
        ([], "well", "earlier"),
        ([], "badly", "earlier"),
        (["model.onnx"], "badly", "earlier"),
        (["model.onnx"], "well", "new"),
        (["model.onnx", "manifest.json"], "badly", "new"),
    ],
)
def test_a_model_stays_until_a_new_one_is_whole(tmp_path: Path, made: list[str], ends: str, left: str) -> None:
    layout = opt_ml.lay_out(tmp_path / "ml", {}, {}, ["algo-1"])
    (layout.model / "model.onnx").write_text("earlier")
    for _ in range(2):
        with suppress(UserError), opt_ml.model_kept(layout.base):
            assert list(opt_ml.lay_out(layout.base, {}, {}, ["algo-1"]).model.iterdir()) == []
            for name in made:
                (layout.model / name).write_text("new")
            if ends == "badly":
                raise UserError("the job failed")
        assert (layout.model / "model.onnx").read_text() == left
        assert not (layout.base / opt_ml.EARLIER).exists()


def test_checkpoints_are_kept_where_a_job_goes_on(make_photos: MakePhotos, tmp_path: Path) -> None:
    channels = {"train": make_photos({"ant": 2, "bee": 2})}
    layout = opt_ml.lay_out(tmp_path / "ml", channels, {"epochs": "5"}, ["algo-1"])
    opt_ml.link_channels(layout, channels)
    (layout.checkpoints / "trial-0001").mkdir(parents=True)
    (layout.checkpoints / "trial-0001" / "checkpoint").write_text("kept")
    for folder in (layout.model, layout.output_data, layout.config, layout.base):
        (folder / "old").write_text("old")
    (layout.base / "link").symlink_to(channels["train"])
    opt_ml.lay_out(tmp_path / "ml", channels, {"epochs": "6"}, "algo-1", keep_checkpoints=True)
    assert (layout.checkpoints / "trial-0001" / "checkpoint").read_text() == "kept"
    assert list(layout.base.rglob("old")) == []
    assert json.loads(layout.hyperparameters.read_text()) == {"epochs": "6"}
    assert len(photos(channels["train"] / "ant")) == 2
    opt_ml.lay_out(tmp_path / "ml", channels, {}, ["algo-1"])
    assert not layout.checkpoints.exists()


def test_the_channels_are_the_splits_or_the_whole_folder_and_the_weights(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    data = make_photos({"train/ant": 1, "train/bee": 1, "test/ant": 1})
    assert opt_ml.channels(data, None) == {"train": data / "train", "test": data / "test"}
    assert opt_ml.channels(data / "train", tmp_path) == {"train": data / "train", "pretrained": tmp_path}
    with pytest.raises(UserError, match=r"PRETRAINED=/no/weights is no folder"):
        opt_ml.channels(data, Path("/no/weights"))


def test_a_folder_of_somebody_elses_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="other files"):
        opt_ml.lay_out(tmp_path, {}, {}, ["algo-1"])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
