"""Which runtime a model is served by, and that torch's answers are the trained network's."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from kennel import artifact, backbones
from kennel.artifact import Manifest
from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel.files import file_hash
from kennel.layout import INT8, ONNX, WEIGHTS
from kennel.photos.preprocessing import Preprocessing
from kennel_serve.inference import engines
from kennel_serve.inference.predictor import Predictor

NAME, SIDE = "mobilenet_v3_small", 32


def manifest(*files, **more):
    return Manifest(("a", "b"), Preprocessing(32, 36), {"name": NAME}, files=dict.fromkeys((ONNX, *files), ""), **more)


@pytest.mark.parametrize(
    ("files", "wish", "gpus", "engine"),
    [
        ([], "auto", 0, "fp32"),
        ([INT8], "auto", 0, "int8"),
        ([INT8], "fp32", 0, "fp32"),
        ([INT8, WEIGHTS], "auto", 0, "int8"),
        ([INT8, WEIGHTS], "auto", 1, "torch"),
        ([INT8, WEIGHTS], "int8", 1, "int8"),
        ([WEIGHTS], "torch", 0, "torch"),
        ([INT8], "auto", 1, "int8"),
    ],
)
def test_the_fastest_that_is_there_or_the_one_that_is_asked_for(files, wish, gpus, engine):
    assert engines.choose(manifest(*files), wish, gpus) == engine


@pytest.mark.parametrize(
    ("wish", "more", "words"),
    [
        ("int8", {}, r"no model.int8.onnx: leave it out"),
        ("int8", {"int8": {"kept": False, "reason": "top-1 fell"}}, r"no model.int8.onnx \(top-1 fell\)"),
        ("torch", {}, "no model.safetensors"),
    ],
)
def test_an_engine_that_the_model_lacks(wish, more, words):
    with pytest.raises(UserError, match=f"KENNEL_ENGINE={wish}: the model has {words}"):
        engines.choose(manifest(**more), wish, 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_model):
    """A model folder with a real network's weights, and that network."""
    folder = write_model(tmp_path_factory.mktemp("torch") / "model")
    torch.manual_seed(0)
    classifier = Classifier(backbones.load(NAME, SIDE, False, None, None), 3).eval()
    safetensors.torch.save_model(classifier, str(folder / WEIGHTS))
    row = artifact.read_manifest(folder)
    files = {**row.files, WEIGHTS: file_hash(folder / WEIGHTS)}
    artifact.write_manifest(folder, dataclasses.replace(row, backbone={**row.backbone, "name": NAME}, files=files))
    return folder, classifier


@pytest.mark.parametrize("count", [1, 3, 32, 70])
def test_torch_answers_as_the_network_does_whatever_the_batch(trained, count):
    folder, classifier = trained
    photos = np.random.default_rng(count).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    found = Predictor(engines.load("torch", folder, NAME, SIDE, 3), 3).predict(photos)
    with torch.inference_mode():
        wanted = classifier(torch.from_numpy(photos)).softmax(1).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_weights_of_another_network_are_refused(trained):
    with pytest.raises(UserError, match=r"model.safetensors cannot be loaded .*: train the model again"):
        engines.load("torch", trained[0], NAME, SIDE, 4)


def test_an_endpoint_on_torch_answers_batches(trained, running, photo):
    """Forced on a CPU: two requests that wait for each other are one batch, and each gets its own answer."""
    settings = {"KENNEL_ENGINE": "torch", "KENNEL_BATCH_SIZE": "4", "KENNEL_BATCH_DELAY_MS": "200"}
    with running(trained[0].parent, **settings) as server:
        server.wait_ready()
        assert "engine torch, 1 worker(s)" in server.log
        status, answer = server.invoke(photo("red"))
        assert status == 200
        assert {row["label"] for row in answer["predictions"]} == {"red", "green", "blue"}
        last = json.loads(server.log.splitlines()[-1])
        assert last["queue_ms"] > 100, "the batch waits for others"
