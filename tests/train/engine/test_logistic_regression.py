"""A head at its optimum: by torch's own loss and gradients, by heads that are solved alone, over one rank and two."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from kennel.errors import UserError
from kennel_train.distributed.cluster import Cluster
from kennel_train.engine import logistic_regression
from kennel_train.engine.batches import FeatureDataset
from kennel_train.engine.logistic_regression import Solution

CLASSES = 3


def features(count: int = 90, width: int = 20, noise: float = 2.0) -> FeatureDataset:
    """Three clouds in a few of the directions, far from the origin, on scales that differ."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    centers = torch.zeros(CLASSES, width)
    centers[range(CLASSES), range(CLASSES)] = 3.0
    made = centers[labels] + noise * torch.randn(count, width, generator=generator)
    made = 5 + made * torch.linspace(0.5, 3, width)
    return FeatureDataset(labels, np.arange(count), count, torch.device("cpu"), made)


def part(whole: FeatureDataset, items: np.ndarray, total: int | None = None) -> FeatureDataset:
    """Some of the photos: as a split of their own, or as one rank's of `total`."""
    index = whole.index[items] if total else np.arange(len(items))
    size = total or len(items)
    return FeatureDataset(whole.labels[items], index, size, whole.device, whole.features[items])


def solve(data: FeatureDataset, l2: float = 0.0, cluster: Cluster | None = None, **given) -> Solution:
    chosen = {"weights": torch.ones(CLASSES), "smoothing": 0.0, "seed": 0, "over": lambda: False} | given
    return logistic_regression.solve(data, l2=l2, cluster=cluster or Cluster(), **chosen)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_torch_sees_no_slope_at_the_solution(smoothing: float) -> None:
    """By torch's cross-entropy with its weights and smoothing, in float64, on features scaled as the docstring says."""
    data, weights, l2 = features(), torch.tensor([0.5, 2.0, 1.0]), 0.01
    found = solve(data, l2, weights=weights, smoothing=smoothing)
    center, scale = data.features.double().mean(0), data.features.double().var(0, correction=0).mean().sqrt()
    scaled = (data.features.double() - center) / scale
    weight = (found.state["weight"].double() * scale).requires_grad_()
    bias = (found.state["bias"].double() + found.state["weight"].double() @ center).requires_grad_()
    loss = cross_entropy(scaled @ weight.T + bias, data.labels, weight=weights.double(), label_smoothing=smoothing)
    (loss + l2 / 2 * weight.pow(2).sum()).backward()
    assert weight.grad.abs().max() < 5e-4
    assert bias.grad.abs().max() < 5e-4
    assert found.loss == pytest.approx(loss.item(), rel=1e-4)
    assert found.held_out is None


def test_held_out_photos_are_judged_by_heads_that_have_not_seen_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of labels that mean nothing, a weak L2 learns all and knows none."""
    monkeypatch.setattr(logistic_regression, "PATH", (1e-4,))
    data = features(width=100)
    data.labels[:] = torch.arange(90).flip(0) // 30
    data.features[:] = torch.randn(90, 100, generator=torch.Generator().manual_seed(1))
    found = solve(data)
    assert sorted(found.held_out.index) == list(range(90))
    assert torch.equal(found.held_out.labels, data.labels[found.held_out.index])
    own = data.features @ found.state["weight"].T + found.state["bias"]
    assert (own.argmax(1) == data.labels).all()
    assert (found.held_out.logits.argmax(1) == found.held_out.labels).float().mean() < 0.55


@pytest.mark.parametrize(("noise", "low", "high"), [(12.0, 0.5, 100.0), (0.7, 1e-6, 0.05)])
def test_noise_asks_for_a_stronger_l2(noise: float, low: float, high: float) -> None:
    assert low <= solve(features(noise=noise)).l2 <= high


def test_the_same_by_two_ranks(tmp_path: Path) -> None:
    data = features()
    one = solve(data)
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(rank, tmp_path), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["l2"] == second["l2"] == one.l2
    assert torch.equal(first["state"]["weight"], second["state"]["weight"])
    assert torch.allclose(first["state"]["weight"], one.state["weight"], atol=1e-3)
    assert sorted([*first["index"], *second["index"]]) == list(range(90))


def _rank(rank: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getppid() % 10000)}
    torch.set_num_threads(1)
    cluster = Cluster.join()
    found = solve(part(features(), np.arange(rank, 90, 2), total=90), cluster=cluster)
    torch.save({"l2": found.l2, "state": found.state, "index": found.held_out.index.tolist()}, folder / f"{rank}.pt")
    cluster.leave()


def test_a_class_of_one_photo_is_never_held_out() -> None:
    data = features()
    data.labels[5] = CLASSES
    found = solve(data, weights=torch.ones(CLASSES + 1))
    assert 5 not in found.held_out.index
    assert len(found.held_out.index) == 89
    few = part(features(), np.arange(CLASSES))
    assert solve(few).l2 == logistic_regression.DEFAULT


def test_of_many_photos_a_fifth_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_regression, "MANY", 50)
    assert len(solve(features()).held_out.index) == 18


def test_in_small_parts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = solve(features())
    monkeypatch.setattr(logistic_regression, "_ELEMENTS", 100)
    parts = solve(features())
    assert parts.l2 == whole.l2
    assert torch.allclose(parts.state["weight"], whole.state["weight"], atol=1e-3)


def test_a_stop_ends_the_path_and_a_usual_l2_is_taken() -> None:
    found = solve(features(), over=lambda: True)
    assert [point["l2"] for point in found.path] == [logistic_regression.PATH[0]]
    assert (found.l2, found.held_out) == (logistic_regression.DEFAULT, None)


def test_features_that_are_nan_are_refused() -> None:
    data = features()
    data.features[7, 3] = float("nan")
    with pytest.raises(UserError, match="the backbone's features are NaN or infinite"):
        solve(data)
