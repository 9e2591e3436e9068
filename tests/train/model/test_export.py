"""A model folder from a real network: what is in it, and what the manifest says of it."""

import errno
import resource
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from kennel import artifact, backbones
from kennel.artifact import Manifest
from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel.layout import INT8, MANIFEST, ONNX, WEIGHTS
from kennel_train.contract import failure
from kennel_train.model import export
from kennel_train.model.int8_gate import Gate, GateSplit

PHOTOS = np.random.default_rng(0).integers(0, 256, (24, 3, 64, 64), np.uint8)
PHOTOS[::2] //= 8  # dark and bright in turn
LABELS = np.arange(24) % 2


@pytest.fixture(scope="module")
def made():
    """(a classifier that tells bright from dark, its manifest, a gate that its int8 copy passes)."""
    torch.manual_seed(0)
    backbone = backbones.load("test_resnet", 64, pretrained=False, channel=None, baked=None)
    classifier = Classifier(backbone, 2).eval()
    with torch.inference_mode():
        features = classifier.features(torch.from_numpy(PHOTOS))
        dark, bright = features[::2].mean(0), features[1::2].mean(0)
        classifier.head.weight.copy_(torch.stack([dark - bright, bright - dark]))
        classifier.head.bias.copy_(-classifier.head.weight @ (dark + bright) / 2)
        logits = classifier(torch.from_numpy(PHOTOS)).numpy()
    part = GateSplit(lambda items: PHOTOS[items], logits, LABELS)
    evaluation = {"validation": {"top1": 1.0}}
    row = Manifest(("dark", "bright"), backbone.preprocessing, {}, temperature=1.7, evaluation=evaluation)
    return classifier, row, Gate(part, part)


def write(classifier, row, folder, **options):
    program = export.trace(classifier, "test_resnet")
    return export.export(classifier, program, torch.from_numpy(PHOTOS[:4]), row, folder, **options)


def exported(made, folder, gate):
    classifier, row, _ = made
    written = export.export(
        classifier, export.trace(classifier, "test_resnet"), torch.from_numpy(PHOTOS[:4]), row, folder, int8=gate
    )
    assert artifact.read_manifest(folder) == written
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *written.files}
    assert (written.temperature, written.evaluation) == (1.7, {"validation": {"top1": 1.0}})
    return written


def test_int8_is_a_file_of_the_model_where_it_was_kept_and_leaves_with_the_next_export(made, tmp_path):
    gate = made[2]
    written = exported(made, tmp_path, gate)
    assert set(written.files) == {WEIGHTS, ONNX, INT8}
    assert written.int8["kept"]
    assert written.int8["int8_accuracy"] == 1.0
    opposite = replace(gate.train, logits=-gate.train.logits)
    written = exported(made, tmp_path, Gate(opposite, opposite))
    assert set(written.files) == {WEIGHTS, ONNX}
    assert not written.int8["kept"]
    assert "agrees with float32 on 0 of 48 photos" in written.int8["reason"]


def test_without_a_gate_there_is_no_int8_and_a_full_disk_changes_nothing(made, tmp_path):
    (tmp_path / INT8).write_bytes(b"of an earlier export")
    written = exported(made, tmp_path, None)
    assert written.int8 == {}
    saved = safetensors.torch.load_file(tmp_path / WEIGHTS)
    assert saved.keys() == made[0].state_dict().keys()
    for key, value in made[0].state_dict().items():
        assert torch.equal(saved[key], value), key

    def full(items):
        raise OSError(errno.ENOSPC, "No space left on device")

    gate = replace(made[2], train=replace(made[2].train, photos=full))
    with pytest.raises(OSError, match="No space left"):
        export.export(
            made[0], export.trace(made[0], "test_resnet"), torch.from_numpy(PHOTOS[:4]), made[1], tmp_path, int8=gate
        )
    assert artifact.read_manifest(tmp_path) == written, "a full disk must leave the model that was there"
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST, ONNX, WEIGHTS}


def test_a_disk_that_is_full_while_weights_are_written_is_named(made, tmp_path):
    """A limit on the size of files is the disk that is full here; safetensors has an exception of its own for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(Exception, match="too large") as caught:
            export.export(
                made[0], export.trace(made[0], "test_resnet"), torch.from_numpy(PHOTOS[:4]), made[1], tmp_path
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failure.describe(caught.value).startswith("the disk is full (")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["beit", "sam"])
def test_the_graph_takes_the_weights_of_later_and_any_attention(tmp_path, kind):
    """BEiT's attention has strides that torch 2.10's exporter does not record by default; SAM's has 3 dimensions."""
    torch.manual_seed(0)
    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 0}
    if kind == "beit":
        module = timm.models.beit.Beit(**sizes, use_rel_pos_bias=True)
    else:
        module = timm.models.vision_transformer_sam.VisionTransformerSAM(
            **sizes, neck_chans=None, global_pool="avg", use_rel_pos=True
        )
        module.blocks[0].norm2 = module.blocks[0].norm1  # weights that stand twice in a network, as in CoaT
    backbone = replace(backbones.load("test_vit", 64, False, None, None), module=module, width=32)
    classifier = Classifier(backbone, 2)
    program = export.trace(classifier, kind)
    trained = {key: value + 0.05 * torch.randn(value.shape) for key, value in classifier.state_dict().items()}
    classifier.load_state_dict(trained, assign=True)
    row = Manifest(("dark", "bright"), backbone.preprocessing, {})
    written = export.export(classifier, program, torch.from_numpy(PHOTOS[:4]), row, tmp_path)
    assert set(written.files) == {WEIGHTS, ONNX}
    saved = safetensors.torch.load_file(tmp_path / WEIGHTS)
    assert all(torch.equal(saved[key], value) for key, value in classifier.state_dict().items())
    assert all(module.fused_attn for module in classifier.modules() if hasattr(module, "fused_attn"))


def test_a_backbone_that_is_no_onnx_is_a_sentence(made):
    class Sorted(torch.nn.Module):
        def forward(self, photos):
            return torch.linalg.eigvals(photos.flatten(1)[:, :16].reshape(-1, 4, 4)).real

    backbone = replace(backbones.load("test_resnet", 64, False, None, None), module=Sorted(), width=4)
    with pytest.raises(UserError, match=r"'odd' cannot be exported to ONNX, .* \([^\x1b\n]*\): choose another"):
        export.trace(Classifier(backbone, 2), "odd")
