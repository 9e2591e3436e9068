"""Features on a real disk: the same start finds them, any other does not, and old ones do not pile up."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from kennel import backbones
from kennel.backbones import Classifier
from kennel_train.distributed import device
from kennel_train.engine import features
from kennel_train.engine.batches import CropDataset

KEY = "0123456789abcdef-" + b"train".hex()


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return Classifier(backbones.load("test_resnet", 32, pretrained=False, channel=None, baked=None), 2)


class Offset(torch.nn.Module):
    """Changes nothing in float32; bf16 has eight bits, and they go to the offset."""

    def __init__(self, width, by):
        super().__init__()
        self.same, self.by = torch.nn.Linear(width, width, bias=False), by
        torch.nn.init.eye_(self.same.weight)

    def forward(self, features):
        return self.same(features + self.by) - self.by


def photos(count: int, ids=None) -> CropDataset:
    images = np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3)).astype(np.uint8)
    ids = np.arange(count) if ids is None else ids
    return CropDataset(torch.arange(count) % 2, ids, count, torch.device("cpu"), images, np.arange(count), side=32)


def names(folder):
    return sorted(path.name.rsplit(".", 2)[0] for path in folder.iterdir())


def test_features_are_the_middle_crops_in_order(classifier):
    given = photos(20)  # more than one batch
    found = features.extract(classifier, given, device.choose(""), lambda: False)
    assert found.features.requires_grad is False
    assert found.features.shape == (20, classifier.head.in_features)
    squares = torch.from_numpy(given.images[:, 4:36, 4:36]).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert torch.allclose(found.features, classifier.eval().features(squares), rtol=1e-4, atol=1e-5)
    assert torch.equal(found.labels, given.labels)
    torch.nn.functional.linear(
        found.features, torch.ones(1, found.features.shape[1], requires_grad=True)
    ).sum().backward()


@pytest.mark.parametrize(("offset", "agrees"), [(0.0, True), (1000.0, False)])
def test_bf16_is_used_where_it_agrees(classifier, offset, agrees, caplog):
    caplog.set_level("INFO", "kennel")
    made = copy.deepcopy(classifier)
    made.backbone = torch.nn.Sequential(made.backbone, Offset(classifier.head.in_features, offset))
    chosen = device.choose("")
    exact = features.extract(made, photos(20), chosen, lambda: False).features
    found = features.extract(made, photos(20), dataclasses.replace(chosen, bf16=True), lambda: False).features
    assert torch.equal(found, exact) != agrees
    assert ("features in float32: bf16 differs by" in caplog.text) != agrees


def test_a_hurried_extraction_keeps_what_it_came_to(classifier):
    found = features.extract(classifier, photos(40), device.choose(""), lambda: True)
    assert 0 < len(found.index) < 40
    assert len(found.features) == len(found.labels) == len(found.index)


def test_a_process_without_a_photo_of_a_split_has_no_features(classifier):
    found = features.extract(classifier, photos(0), device.choose(""), lambda: False)
    assert found.features.shape == (0, classifier.head.in_features)


def test_kept_features_come_back_for_the_same_photos_only(classifier, tmp_path):
    given = photos(6)
    made = features.extract(classifier, given, device.choose(""), lambda: False)
    assert features.kept(tmp_path, KEY, 0, given) is None
    features.keep(tmp_path, KEY, 0, made)
    assert torch.equal(features.kept(tmp_path, KEY, 0, given).features, made.features)
    assert features.kept(tmp_path, "f" + KEY[1:], 0, given) is None
    assert features.kept(tmp_path, KEY, 1, given) is None
    assert features.kept(tmp_path, KEY, 0, photos(6, np.arange(6)[::-1])) is None
    assert features.kept(tmp_path, KEY, 0, photos(5)) is None


def test_torn_features_are_passed_over(classifier, tmp_path, caplog):
    given = photos(6)
    features.keep(tmp_path, KEY, 0, features.extract(classifier, given, device.choose(""), lambda: False))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    assert features.kept(tmp_path, KEY, 0, given) is None
    assert "is torn and is passed over" in caplog.text


def test_the_next_job_without_features_is_a_warning(classifier, tmp_path, caplog):
    (tmp_path / "warm").write_text("no folder")
    made = features.extract(classifier, photos(4), device.choose(""), lambda: False)
    features.offer(tmp_path / "warm", KEY, 0, made)
    assert f"features could not be kept for the next job in {tmp_path}/warm: File exists" in caplog.text


def test_features_of_other_settings_are_removed_and_nothing_else(classifier, tmp_path):
    def keep(key, rank, count):
        made = features.extract(classifier, photos(count), device.choose(""), lambda: False)
        features.keep(tmp_path, key, rank, made)

    other = "f" + KEY[1:]
    validation = KEY.split("-")[0] + "-" + b"validation".hex()
    keep(other, 0, 4)
    keep(other, 1, 4)
    (tmp_path / f".features-{other}-0000.0123456789abcdef.pt.partial").write_bytes(b"of a killed job")
    strangers = {"checkpoint-00000001.0123456789abcdef.pt", "notes.txt"}
    for name in strangers:
        (tmp_path / name).write_bytes(b"not ours")
    keep(KEY, 0, 5)
    keep(validation, 0, 3)
    keep(KEY, 1, 5)
    keep(KEY, 0, 6)  # the same settings with other photos: one file stays
    left = {path.name for path in tmp_path.iterdir()}
    assert strangers <= left
    assert names(tmp_path) == sorted(
        [f"features-{KEY}-0000", f"features-{KEY}-0001", f"features-{validation}-0000", "checkpoint-00000001", "notes"]
    )
    assert features.kept(tmp_path, KEY, 0, photos(6)) is not None


def test_a_key_and_a_digest_change_with_anything_that_changes_features(classifier):
    keys = {
        features.key(*row)
        for row in (("a", (1, "x"), "f"), ("b", (1, "x"), "f"), ("a", (2, "x"), "f"), ("a", (1, "x"), "g"))
    }
    assert len(keys) == 4
    before = features.weights_digest(classifier)
    with torch.no_grad():
        classifier.mean[0, 0, 0, 0] += 1
        assert features.weights_digest(classifier) != before
        classifier.mean[0, 0, 0, 0] -= 1
    assert features.weights_digest(classifier) == before
