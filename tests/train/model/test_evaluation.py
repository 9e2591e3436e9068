"""Figures against hand-counted ones, and temperatures against known ones."""

import json
import math

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from kennel_train.model import evaluation
from kennel_train.model.evaluation import COLDEST, HOTTEST

NAMES = ("ant", "bee", "cat")


def logits_of(predicted, classes=3, height=4.0):
    return (height * np.eye(classes)[predicted]).astype(np.float32)


def cross_entropy(logits, labels):
    return -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean()


def world(photos=20_000, classes=10, spread=2.0, seed=0):
    """Logits whose softmax is the truth: labels are drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (photos, classes))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    labels = (rng.random((photos, 1)) > chances).sum(axis=1).clip(max=classes - 1)
    return logits.astype(np.float32), labels.astype(np.int64)


def test_a_split_counted_by_hand():
    #                  truth: 3 ants, 2 bees, no cat; called: 3 ants, 1 bee, 1 cat
    labels = np.array([0, 0, 0, 1, 1])
    logits = logits_of([0, 0, 2, 1, 0])
    found = evaluation.evaluate(logits, labels, NAMES, 2.0)
    assert found.confusion.tolist() == [[2, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert [(c.name, c.photos, c.precision, c.recall) for c in found.classes] == [
        ("ant", 3, 2 / 3, 2 / 3),
        ("bee", 2, 1.0, 0.5),
        ("cat", 0, 0.0, None),
    ]
    assert (found.photos, found.top1, found.top5) == (5, 0.6, None)
    high, low = math.exp(4) / (math.exp(4) + 2), 1 / (math.exp(4) + 2)
    assert found.loss == pytest.approx(-(3 * math.log(high) + 2 * math.log(low)) / 5)
    # all photos are equally sure, so one bin holds them all
    assert found.calibration_error == pytest.approx(high - 0.6)
    assert found.calibration_error_scaled == pytest.approx(math.exp(2) / (math.exp(2) + 2) - 0.6)


def test_calibration_errors_of_two_bins_do_not_cancel():
    logits = np.array([[0.0, 0.4], [0.0, 6.0]], np.float32)
    sure = 1 / (1 + np.exp(-np.array([0.4, 6.0])))
    found = evaluation.evaluate(logits, np.array([1, 0]), NAMES[:2], 1.0)  # right when unsure, wrong when sure
    assert found.calibration_error == pytest.approx(((1 - sure[0]) + sure[1]) / 2)


def test_top5_counts_the_five_best_and_ties_like_argmax():
    logits = np.arange(8, dtype=np.float32)[None].repeat(8, axis=0)
    names = [str(i) for i in range(8)]
    assert evaluation.evaluate(logits, np.arange(8), names, 1.0).top5 == 5 / 8
    flat = np.zeros((8, 8), np.float32)
    found = evaluation.evaluate(flat, np.arange(8), names, 1.0)
    assert (found.top1, found.top5) == (1 / 8, 5 / 8)


@pytest.mark.parametrize("classes", [3, evaluation.DENSE + 1])
def test_the_json_is_plain(classes):
    labels = np.arange(classes - 1)  # the last class has no photo and is never called: all undefined
    found = evaluation.evaluate(logits_of(labels, classes), labels, [f"c{i}" for i in range(classes)], 1.5)
    row = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert row["classes"][f"c{classes - 1}"] == {"photos": 0, "precision": None, "recall": None}
    assert row["temperature"] == 1.5
    assert row["top5"] == (None if classes == 3 else 1.0)
    assert row["confusion"] == (found.confusion.tolist() if classes == 3 else None)


def test_a_training_that_diverged_still_makes_plain_json():
    logits = np.full((2, 3), np.nan, np.float32)
    labels = np.array([0, 1])
    assert evaluation.calibrate(logits, labels) == 1.0
    row = evaluation.evaluate(logits, labels, NAMES, 1.0).as_json()
    assert json.loads(json.dumps(row, allow_nan=False))["loss"] is None
    assert row["calibration_error"] is None


@pytest.mark.parametrize("factor", [0.25, 0.5, 3.0, 8.0])
def test_the_factor_that_spoilt_calibrated_logits_is_found_again(factor):
    logits, labels = world()
    assert evaluation.calibrate(logits * np.float32(factor), labels) == pytest.approx(factor, rel=0.05)


def test_overconfident_logits_become_honest():
    logits, labels = world(photos=500, classes=3)
    loud = logits * 5
    temperature = evaluation.calibrate(loud, labels)
    assert cross_entropy(loud / temperature, labels) < cross_entropy(loud, labels) - 0.3
    found = evaluation.evaluate(loud, labels, NAMES, temperature)
    assert found.calibration_error > 0.15
    assert found.calibration_error_scaled < 0.08


@pytest.mark.parametrize("photos", [1, 10, 150])
@pytest.mark.parametrize("height", [1e-3, 0.1, 4.0, 1e4])
def test_photos_that_are_all_right_prove_no_certainty(photos, height):
    """The cross-entropy alone would ask for the coldest temperature, and a confidence of 1."""
    labels = np.arange(photos) % 3
    logits = logits_of(labels, height=height)
    temperature = evaluation.calibrate(logits, labels)
    assert COLDEST <= temperature <= 1
    assert cross_entropy(logits / temperature, labels) <= cross_entropy(logits, labels)
    before, after = (softmax(z.astype(np.float64), axis=1).max() for z in (logits, logits / temperature))
    assert after <= max(before, (photos + 1) / (photos + 2)) + 1e-3


@pytest.mark.parametrize("height", [1e-3, 4.0, 1e4])
def test_photos_that_are_all_wrong_leave_finite_probabilities(height):
    labels = np.zeros(4, np.int64)
    logits = logits_of([1, 2, 1, 2], height=height)
    temperature = evaluation.calibrate(logits, labels)
    assert 1 <= temperature <= HOTTEST * (1 + 1e-9)
    assert np.isfinite(softmax(logits / temperature, axis=1)).all()
    assert cross_entropy(logits / temperature, labels) <= cross_entropy(logits, labels)


@pytest.mark.parametrize("seed", range(5))
def test_no_temperature_is_worse_than_none(seed):
    logits, labels = world(photos=7, classes=4, seed=seed)
    temperature = evaluation.calibrate(logits, labels)
    assert cross_entropy(logits / temperature, labels) <= cross_entropy(logits, labels)
