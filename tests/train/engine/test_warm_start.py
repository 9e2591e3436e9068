"""A model of an earlier job as a start: found in a folder or an archive, refused in one sentence, its rows in place."""

import dataclasses
import io
import json
import shutil
import tarfile

import pytest
import safetensors.torch
import torch

from kennel import artifact, backbones
from kennel.artifact import Manifest
from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel.files import file_hash
from kennel.hyperparameters import Hyperparameters
from kennel.layout import MANIFEST, ONNX, WEIGHTS
from kennel_train.engine import warm_start

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(folder of a model with a preprocessing of its own, its classifier)."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    backbone = backbones.load("test_resnet", 64, pretrained=False, channel=None, baked=None)
    row = dataclasses.replace(backbone.preprocessing, resize=99, mean=(0.1, 0.2, 0.3))
    classifier = Classifier(dataclasses.replace(backbone, preprocessing=row), len(CLASSES)).eval()
    safetensors.torch.save_file(classifier.state_dict(), folder / WEIGHTS)
    (folder / ONNX).write_bytes(b"onnx")
    files = {name: file_hash(folder / name) for name in (WEIGHTS, ONNX)}
    named = {"name": "test_resnet", "library": "timm", "weights": "random"}
    artifact.write_manifest(folder, Manifest(CLASSES, row, named, files=files, created="2026-01-01"))
    return folder, classifier


@pytest.fixture
def channel(tmp_path):
    made = tmp_path / "channel"
    made.mkdir()
    return made


def pack(folder, to, prefix="", mode="w:gz"):
    with tarfile.open(to, mode) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, prefix + path.name)
    return to


def find(channel, tmp_path):
    return warm_start.find(channel, tmp_path / "scratch")


def refusal(channel, tmp_path) -> str:
    with pytest.raises(UserError) as caught:
        find(channel, tmp_path)
    said = str(caught.value)
    assert said.startswith("channel 'model'")
    assert "\n" not in said
    return said


def test_no_channel_is_no_earlier_model(tmp_path):
    assert find(tmp_path / "absent", tmp_path) is None


@pytest.mark.parametrize("how", ["folder", "archive", "dotted", "another name", "beside output"])
def test_a_folder_or_an_archive_is_found(model, channel, tmp_path, how):
    folder, classifier = model
    if how == "folder":
        shutil.copytree(folder, channel, dirs_exist_ok=True)
    else:
        name = "mine.tar.gz" if how == "another name" else "model.tar.gz"
        pack(folder, channel / name, prefix="./" if how == "dotted" else "")
    if how == "beside output":
        (channel / "output.tar.gz").write_bytes(b"the report of that job")
    found = find(channel, tmp_path)
    assert found.manifest.class_names == CLASSES
    assert torch.equal(found.state["head.weight"], classifier.head.weight)


def test_its_backbone_has_its_weights_and_its_preprocessing(model, tmp_path):
    folder, classifier = model
    found = find(folder, tmp_path)
    made = warm_start.backbone(found)
    assert (made.preprocessing.resize, made.preprocessing.mean) == (99, (0.1, 0.2, 0.3))
    assert made.weights == "channel 'model', trained 2026-01-01 from random"
    again = Classifier(made, 3).eval()
    photos = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(again.features(photos), classifier.features(photos))


@pytest.mark.parametrize(
    ("names", "taken", "new"),
    [
        (("ant", "bee", "cat"), ["ant", "bee", "cat"], []),
        (("cat", "ant", "bee"), ["cat", "ant", "bee"], []),
        (("ant", "cat"), ["ant", "cat"], []),
        (("aardvark", "bee", "cat", "dog"), ["bee", "cat"], ["aardvark", "dog"]),
        (("dog", "emu"), [], ["dog", "emu"]),
    ],
)
def test_a_class_keeps_its_logit_wherever_it_stands_now(model, tmp_path, names, taken, new):
    folder, classifier = model
    found = find(folder, tmp_path)
    now = Classifier(warm_start.backbone(found), len(names)).eval()
    fresh = now.head.weight.detach().clone()
    assert warm_start.head(now, names, found) == (taken, new)
    photos = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        before, after = classifier(photos), now(photos)
    for name in taken:
        assert torch.allclose(after[:, names.index(name)], before[:, CLASSES.index(name)], atol=1e-6)
    for name in new:
        assert torch.equal(now.head.weight[names.index(name)], fresh[names.index(name)])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({}, None),
        ({"image-size": "64", "backbone": "test_resnet"}, None),
        ({"image_size": "224"}, "hyperparameter image_size=224: the model in channel 'model' has 64: leave image_size"),
        ({"backbone": '"resnet18"'}, "hyperparameter backbone='resnet18': the model in channel 'model' has 'test_re"),
    ],
)
def test_what_the_model_has_decided_cannot_be_asked_for_otherwise(model, tmp_path, raw, said):
    from kennel import hyperparameters

    found = find(model[0], tmp_path)
    asked = hyperparameters.parse(raw)
    if said:
        with pytest.raises(UserError, match="^" + said):
            warm_start.settle(asked, raw, found)
    else:
        settled = warm_start.settle(asked, raw, found)
        assert settled == dataclasses.replace(Hyperparameters(), backbone="test_resnet", image_size=64)


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip", "empty", "half a header"])
def test_a_damaged_archive_is_told(model, channel, tmp_path, damage):
    path = pack(model[0], channel / "model.tar.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[:-2000], "flipped": data, "no gzip": b"PK\x03\x04 zip", "empty": b"", "half a header": whole[:5]}[
            damage
        ]
    )
    assert refusal(channel, tmp_path).startswith("channel 'model', model.tar.gz: it cannot be unpacked (")


def member(name, **more):
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    "evil",
    [
        member("../outside.txt", size=4),
        member("a/../../outside.txt", size=4),
        member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("link", type=tarfile.SYMTYPE, linkname="../../outside.txt"),
        member("hard", type=tarfile.LNKTYPE, linkname="../outside.txt"),
        member("pipe", type=tarfile.FIFOTYPE),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    ],
    ids=["parent", "deep parent", "absolute link", "link outside", "hard link", "fifo", "device"],
)
def test_an_archive_that_reaches_outside_is_refused(channel, tmp_path, evil):
    with tarfile.open(channel / "model.tar.gz", "w:gz") as archive:
        archive.addfile(evil, io.BytesIO(b"evil"))
    assert "it cannot be unpacked (" in refusal(channel, tmp_path)
    assert not list(tmp_path.rglob("outside.txt"))


def test_weights_that_are_a_link_inside_the_archive_are_refused(model, channel, tmp_path):
    folder = shutil.copytree(model[0], tmp_path / "copy")
    (folder / WEIGHTS).rename(folder / "other")
    (folder / WEIGHTS).symlink_to("other")
    pack(folder, channel / "model.tar.gz")
    assert "model.safetensors is missing or is a link" in refusal(channel, tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "manifest.json is missing (it is empty or absent)"),
        ({"weights.pth": b"x"}, "manifest.json is missing (it holds weights.pth)"),
        ({"a.tar.gz": b"x", "b.tar.gz": b"y"}, "manifest.json is missing (it holds a.tar.gz, b.tar.gz)"),
        ({MANIFEST: b"{"}, "manifest.json is damaged ("),
    ],
)
def test_a_folder_without_a_model_is_told(channel, tmp_path, files, said):
    for name, content in files.items():
        (channel / name).write_bytes(content)
    assert said in refusal(channel, tmp_path)


def test_an_archive_with_the_model_in_a_folder_is_told(model, channel, tmp_path):
    pack(model[0], channel / "model.tar.gz", prefix="model/")
    said = refusal(channel, tmp_path)
    assert said.startswith("channel 'model', model.tar.gz: ")
    assert "manifest.json is missing (it holds model)" in said


def test_other_weights_than_the_manifests_are_refused(model, channel, tmp_path):
    shutil.copytree(model[0], channel, dirs_exist_ok=True)
    safetensors.torch.save_file({"x": torch.zeros(1)}, channel / WEIGHTS)
    assert "its hash differs" in refusal(channel, tmp_path)


def test_a_manifest_without_weights_is_refused(model, channel, tmp_path):
    shutil.copytree(model[0], channel, dirs_exist_ok=True)
    row = json.loads((channel / MANIFEST).read_text())
    del row["files"][WEIGHTS]
    (channel / MANIFEST).write_text(json.dumps(row))
    assert "names no model.safetensors" in refusal(channel, tmp_path)


def test_weights_of_another_version_of_the_backbone_are_told(model, tmp_path):
    found = find(model[0], tmp_path)
    del found.state["backbone.bn1.weight"]
    with pytest.raises(UserError, match="its weights do not fit backbone 'test_resnet' of this version"):
        warm_start.backbone(found)
