"""ONNX files, good and bad, on the real runtime."""

import os
import subprocess
import sys

import numpy as np
import pytest

from kennel.errors import UserError
from kennel.layout import ONNX
from kennel_serve.inference import onnx_network
from kennel_serve.inference.predictor import Predictor, softmax


def predictor(model, temperature=1.0):
    return Predictor(onnx_network.load(model), 3, temperature)


def photos_of(*channels):
    photos = np.zeros((len(channels), 3, 32, 32), np.uint8)
    photos[np.arange(len(channels)), list(channels)] = 250
    return photos


def test_every_photo_of_a_long_list_keeps_its_place(tmp_path, write_model):
    channels = np.random.default_rng(0).integers(0, 3, 2 * 8 + 3)
    probabilities = predictor(write_model(tmp_path / "model") / ONNX).predict(photos_of(*channels))
    assert probabilities.dtype == np.float32
    np.testing.assert_array_equal(probabilities.argmax(axis=1), channels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 2.0, 20.0])
def test_the_temperature_divides_the_logits(tmp_path, write_model, temperature):
    model = write_model(tmp_path / "model") / ONNX
    photos = photos_of(0, 2)
    plain = np.log(predictor(model).predict(photos))  # logits but for a constant
    wanted = softmax(plain / np.float32(temperature))
    np.testing.assert_allclose(predictor(model, temperature).predict(photos), wanted, atol=1e-4)


def test_softmax_of_huge_logits_stays_finite():
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4, -1e4]], np.float32)), [[0.5, 0.5, 0]])


def test_a_file_that_is_no_onnx(tmp_path):
    (tmp_path / ONNX).write_bytes(b"not a model")
    with pytest.raises(UserError, match="cannot be loaded") as raised:
        onnx_network.load(tmp_path / ONNX)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("weights", "output", "words"),
    [
        (np.eye(3, 4, dtype=np.float32), "logits", r"\(1, 4\), not \(1, 3\)"),
        (np.full((3, 3), np.nan, np.float32), "logits", "not finite"),
        (np.eye(3, dtype=np.float32), "scores", "cannot run"),
    ],
)
def test_a_model_that_does_not_keep_the_contract(tmp_path, write_model, weights, output, words):
    bad = predictor(write_model(tmp_path / "model", weights, output) / ONNX)
    with pytest.raises(UserError, match=words):
        bad.predict(photos_of(0))


def test_the_runtime_reports_to_nobody(tmp_path, write_model):
    """With its telemetry on, it leaves the identifier of this machine in the home folder."""
    model = write_model(tmp_path / "model") / ONNX
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
    load = f"onnx_network.load(Path({str(model)!r}))"
    code = f"from kennel_serve.inference import onnx_network; from pathlib import Path; {load}"
    subprocess.run([sys.executable, "-c", code], env={**kept, "HOME": str(home)}, check=True)
    assert list(home.rglob("*")) == []
