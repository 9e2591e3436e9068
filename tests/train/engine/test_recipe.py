"""Optimizer, schedules, loss: against torch's own where torch has the same thing."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from kennel.hyperparameters import Hyperparameters
from kennel_train.engine import recipe


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        self.head = torch.nn.Linear(4, 2)


def rates(schedule: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return seen


def optimizer(**hyperparameters: object) -> torch.optim.Optimizer:
    return recipe.optimizer(torch.nn.Linear(2, 2), Hyperparameters(**hyperparameters), torch.device("cpu"))


def test_cosine_is_torchs():
    hp = Hyperparameters(learning_rate=0.1)
    ours = rates(recipe.schedule(optimizer(learning_rate=0.1), hp, 3, 7), 21)
    theirs = rates(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(learning_rate=0.1), 21), 21)
    assert ours == pytest.approx(theirs)


def test_one_cycle_is_torchs():
    hp = Hyperparameters(learning_rate=0.1, schedule="one-cycle")
    ours = rates(recipe.schedule(optimizer(learning_rate=0.1), hp, 10, 100), 1000)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer(), 0.1, total_steps=1000, cycle_momentum=False)
    assert ours == pytest.approx(rates(theirs, 1000), abs=3e-4)  # torch's peak lies a step earlier


def test_warm_up_rises_to_the_peak_and_the_end_is_near_zero():
    hp = Hyperparameters(learning_rate=0.1, warmup_epochs=2.0)
    seen = rates(recipe.schedule(optimizer(learning_rate=0.1), hp, 10, 5), 50)
    assert seen[:10] == sorted(seen[:10])
    assert max(seen) == pytest.approx(0.1)
    assert seen.index(max(seen)) == 10
    assert seen[-1] < 0.001


@pytest.mark.parametrize("hp", [{"schedule": "one-cycle"}, {"warmup_epochs": 1000.0}, {}], ids=str)
def test_a_single_step_has_a_rate(hp):
    (rate,) = rates(recipe.schedule(optimizer(), Hyperparameters(**hp), 1, 1), 1)
    assert 0 < rate <= 0.01


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_backbone_has_its_own_rate_and_only_weights_decay(name):
    hp = Hyperparameters(
        optimizer=name, learning_rate=0.02, backbone_learning_rate_scale=0.5, weight_decay=0.03, momentum=0.8
    )
    net = Net()
    made = recipe.optimizer(net, hp, torch.device("cpu"))
    rows = {id(p): (group["lr"], group["weight_decay"]) for group in made.param_groups for p in group["params"]}
    assert {key: rows[id(p)] for key, p in net.named_parameters()} == {
        "backbone.0.weight": (0.01, 0.03),
        "backbone.0.bias": (0.01, 0.0),
        "backbone.1.weight": (0.01, 0.0),
        "backbone.1.bias": (0.01, 0.0),
        "head.weight": (0.02, 0.03),
        "head.bias": (0.02, 0.0),
    }
    assert type(made).__name__.lower() == name


def test_balanced_weights_make_every_class_count_alike():
    labels = [0] * 30 + [1] * 10 + [2] * 20
    weights = recipe.class_weights(labels, 3, Hyperparameters(class_weights="balanced"))
    assert [float(weights[label]) * labels.count(label) for label in range(3)] == pytest.approx([20.0] * 3)
    assert recipe.class_weights(labels, 3, Hyperparameters()).tolist() == [1.0, 1.0, 1.0]


def test_sums_over_parts_are_torchs_weighted_and_smoothed_mean():
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(12, 3), torch.arange(12) % 3, torch.tensor([1.0, 2.0, 0.5])
    parts = [recipe.loss_sum(logits[i : i + 5], labels[i : i + 5], weights, 0.2) for i in (0, 5, 10)]
    ours = sum(part[0] for part in parts) / sum(part[1] for part in parts)
    assert torch.allclose(ours, cross_entropy(logits, labels, weight=weights, label_smoothing=0.2))
