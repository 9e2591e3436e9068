"""Files of weights as libraries publish them: found in a folder, read, and made to fit, or refused in a sentence."""

import argparse
import json

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from kennel import backbones
from kennel.errors import UserError

NAME = "test_resnet"


def load(channel, name=NAME, size=64):
    return backbones.load(name, size, True, channel, None)


def published(name=NAME, seed=1, **sized):
    torch.manual_seed(seed)
    return timm.create_model(name, **sized).state_dict()


def same(made, state):
    own = made.module.state_dict()
    return all(torch.equal(value, state[key]) for key, value in own.items())


@pytest.mark.parametrize("inside", ["state_dict", "model", "model_ema", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_trainings_checkpoint_is_opened(tmp_path, inside, prefix):
    state = published(num_classes=7)  # a head of another size is dropped, as any is
    checkpoint = {inside: {prefix + key: value for key, value in state.items()}, "epoch": 3}
    torch.save({**checkpoint, "args": argparse.Namespace(lr=0.1)}, tmp_path / "checkpoint.bin")
    assert same(load(tmp_path), state)


def test_of_two_in_a_checkpoint_the_average_is_taken(tmp_path):
    plain, average = published(), published(seed=2)
    torch.save({"state_dict": plain, "state_dict_ema": average}, tmp_path / "last.pt")
    assert same(load(tmp_path), average)


def hugging_face(folder, config, *, safe=True):
    """A folder as timm pushes it; the two files differ here, to tell which one was read."""
    (folder / "config.json").write_text(json.dumps(config))
    states = {"model.safetensors": published(), "pytorch_model.bin": published(seed=2)}
    if safe:
        safetensors.torch.save_file(states["model.safetensors"], folder / "model.safetensors")
    torch.save(states["pytorch_model.bin"], folder / "pytorch_model.bin")
    return states["model.safetensors" if safe else "pytorch_model.bin"]


@pytest.mark.parametrize("safe", [True, False])
def test_of_hugging_faces_folder_the_safetensors_come_first(tmp_path, safe):
    own = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "crop_pct": 0.5}
    state = hugging_face(tmp_path, {"architecture": NAME, "pretrained_cfg": own}, safe=safe)
    made = load(tmp_path)
    assert same(made, state)
    assert (made.preprocessing.mean, made.preprocessing.resize) == ((0.1, 0.2, 0.3), 128)  # those weights' own
    assert backbones.own_size(NAME, tmp_path) == 96 != backbones.own_size(NAME, None)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "resnet18"}, "says architecture 'resnet18', the job backbone='test_resnet': set backbone=re"),
        ({"architectures": ["ViTForImageClassification"]}, "ViTForImageClassification, a class of the transformers"),
        ([1], "config.json cannot be read .it holds a list.: give it whole"),
    ],
)
def test_a_config_of_another_network_is_refused(tmp_path, config, said):
    hugging_face(tmp_path, config)
    with pytest.raises(UserError, match="^channel 'pretrained': .*" + said):
        load(tmp_path)


def test_timms_weights_for_a_name_that_torchvision_has_too_need_timms_name(tmp_path):
    hugging_face(tmp_path, {"architecture": "resnet18"})
    with pytest.raises(
        UserError, match=r"is timm's, and backbone='resnet18' is torchvision's: set backbone=resnet18\.a1"
    ):
        load(tmp_path, "resnet18")


def test_two_files_without_a_config_are_named(tmp_path):
    for name in ("a.pth", "b.pt"):
        torch.save(published(), tmp_path / name)
    with pytest.raises(UserError, match=r"must hold one weights file \(\*\.safetensors, .*\), found: a.pth, b.pt"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "it is empty"), (b"PK\x03\x04 torn", "cannot be read as a state dict"), (b"no", "no file")],
)
def test_a_torn_file_is_refused(tmp_path, content, said):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=rf"^weights file a.pth .*{said}.*: save model.state_dict\(\)"):
        load(tmp_path)


def test_position_embeddings_are_resampled_from_the_weights(tmp_path):
    state = published("test_vit")
    torch.save(state, tmp_path / "a.pth")
    own = backbones.own_size("test_vit", None)
    at_own, smaller = (load(tmp_path, "test_vit", size).module for size in (own, own // 2))
    assert torch.equal(at_own.pos_embed, state["pos_embed"])
    tokens = at_own.num_prefix_tokens
    assert smaller.pos_embed.shape[1] == (at_own.pos_embed.shape[1] - tokens) // 4 + tokens
    grid = at_own.pos_embed[0, tokens:].mean(0), smaller.pos_embed[0, tokens:].mean(0)
    torch.testing.assert_close(*grid, atol=0.02, rtol=0)  # the same on average, as a smaller picture of it
    assert smaller.pos_embed.abs().max() > 0


def test_levits_attention_biases_are_resampled(tmp_path):
    state = published("levit_128s")
    for key, value in state.items():
        if key.endswith("attention_biases"):
            state[key] = torch.full_like(value, 0.25)
    torch.save({"model": state}, tmp_path / "levit.pth")
    module = load(tmp_path, "levit_128s", 96).module
    biases = [value for key, value in module.state_dict().items() if key.endswith("attention_biases")]
    assert biases
    for value in biases:
        torch.testing.assert_close(value, torch.full_like(value, 0.25))


def test_weights_that_hold_for_one_image_size_say_which(tmp_path):
    torch.save(published("resmlp_12_224"), tmp_path / "a.pth")
    with pytest.raises(
        UserError, match=r"a.pth cannot be used at image_size=96 .*: set image_size=224, or choose another backbone$"
    ):
        load(tmp_path, "resmlp_12_224", 96)


def test_a_layout_of_another_project_is_translated_by_timms_own_filter(tmp_path):
    """ConvNeXt as its authors published it: `downsample_layers.0.0.weight` is timm's `stem.0.weight`."""
    torch.manual_seed(1)
    state = timm.create_model("convnext_atto").state_dict()
    foreign = {}
    for key, value in state.items():
        for ours, theirs in (("stem.", "downsample_layers.0."), ("head.norm.", "norm."), ("head.fc.", "head.")):
            if key.startswith(ours):
                key = theirs + key.removeprefix(ours)
                break
        else:
            stage, _, rest = key.removeprefix("stages.").partition(".")
            rest = rest.removeprefix("blocks.")
            for ours, theirs in (("conv_dw", "dwconv"), ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2")):
                rest = rest.replace(ours, theirs)
            down = rest.startswith("downsample.")
            key = f"downsample_layers.{stage}.{rest.removeprefix('downsample.')}" if down else f"stages.{stage}.{rest}"
        foreign[key] = value
    assert "stem.0.weight" not in foreign
    torch.save({"model": foreign}, tmp_path / "convnext.pth")
    assert same(load(tmp_path, "convnext_atto"), state)


def test_torchvisions_old_names_of_densenet_are_understood(tmp_path):
    torch.manual_seed(1)
    state = torchvision.models.densenet121().state_dict()
    old = {}
    for key, value in state.items():
        for part in ("norm", "conv"):
            key = key.replace(f".{part}1.", f".{part}.1.").replace(f".{part}2.", f".{part}.2.")
        if not key.endswith("num_batches_tracked"):  # a counter that files of that time do not have
            old[key] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121-a639ec97.pth")
    assert same(load(tmp_path, "densenet121"), state)


def test_mnasnets_weights_need_no_version_beside_them(tmp_path):
    torch.manual_seed(1)
    state = torchvision.models.mnasnet0_5().state_dict()
    safetensors.torch.save_file(dict(state), tmp_path / "a.safetensors")
    assert same(load(tmp_path, "mnasnet0_5"), state)
