"""Heads trained side by side end where each would have ended alone, whatever differs between them."""

import copy

import numpy as np
import pytest
import torch

from kennel import metrics
from kennel.hyperparameters import Hyperparameters
from kennel_train.context import Context
from kennel_train.distributed import device
from kennel_train.engine import loop
from kennel_train.engine.batches import FeatureDataset
from kennel_train.engine.progress import LoopCallbacks, Run, StagePlan
from kennel_train.search import stacked_heads
from kennel_train.search.stacked_heads import Head

COMMON = {"batch_size": 8, "epochs": 5, "learning_rate": 0.05}
RECIPES = [
    {},
    {"learning_rate": 0.004, "momentum": 0.5},
    {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "one-cycle"},
    {"ema_decay": 0.6, "label_smoothing": 0.2},
    {"gradient_clip": 0.01, "warmup_epochs": 2.0},
    {"patience": 1, "learning_rate": 5.0},
]


def split(count: int, seed: int) -> FeatureDataset:
    """Features of three classes that overlap."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    features = torch.randn(count, 6, generator=chance) + torch.eye(3, 6)[labels]
    return FeatureDataset(labels, np.arange(count), count, torch.device("cpu"), features)


TRAIN, VALIDATION = split(50, 1), split(30, 2)


def head(number: int, recipe: dict, module: torch.nn.Linear) -> Head:
    hp = Hyperparameters(**{**COMMON, **recipe})
    weights = torch.tensor([1.0, 2.0, 0.5]) if number == 1 else torch.ones(3)
    plan = StagePlan("probe", hp.epochs, 0, 50, weights, keep_statistics=True)
    return Head(number, Run(copy.deepcopy(module), TRAIN, Context(hp, device.choose("")), plan))


def alone(one: Head, module: torch.nn.Linear) -> Run:
    callbacks = LoopCallbacks(lambda: False, lambda: False, lambda _: None, lambda *_: None)
    return loop.fit(copy.deepcopy(module), TRAIN, VALIDATION, one.run.context, one.run.plan, callbacks)


def test_each_head_learns_what_it_would_alone():
    torch.manual_seed(0)
    module = torch.nn.Linear(6, 3)
    heads = [head(number, recipe, module) for number, recipe in enumerate(RECIPES)]
    assert stacked_heads.fit(heads, TRAIN, VALIDATION, lambda: False)
    for one in heads:
        by_itself = alone(one, module)
        assert one.run.best.epoch == by_itself.best.epoch, RECIPES[one.number]
        assert len(one.run.rows) == len(by_itself.rows), RECIPES[one.number]
        for mine, theirs in zip(one.run.rows, by_itself.rows, strict=True):
            for key in ("train:loss", "validation:loss", "validation:accuracy", "learning_rate"):
                assert mine[key] == pytest.approx(theirs[key], rel=1e-4), (RECIPES[one.number], key)
        for name, tensor in one.run.best.state.items():
            torch.testing.assert_close(tensor, by_itself.best.state[name], rtol=1e-4, atol=1e-5)
    assert len(heads[5].run.rows) < COMMON["epochs"], "patience had nothing to end"
    ends = [one.run.best.values[metrics.VALIDATION_LOSS] for one in heads]
    assert len(set(ends)) == len(ends), "the recipes made no difference"


def test_a_head_that_diverges_leaves_the_others_alone():
    torch.manual_seed(0)
    module = torch.nn.Linear(6, 3)
    wild = {"learning_rate": 10.0, "weight_decay": 1.0, "epochs": 30}
    heads = [head(0, {"epochs": 30}, module), head(1, wild, module), head(2, {"epochs": 30}, module)]
    assert stacked_heads.fit(heads, TRAIN, VALIDATION, lambda: False)
    assert [bool(one.failed) for one in heads] == [False, True, False]
    assert heads[1].failed.startswith("the loss is NaN or infinite in epoch ")
    assert len(heads[1].run.rows) < 30
    by_itself = alone(heads[0], module)
    for one in (heads[0], heads[2]):
        assert one.run.rows[-1]["validation:loss"] == pytest.approx(by_itself.rows[-1]["validation:loss"], rel=1e-4)


def test_a_stack_ends_after_the_epoch_in_which_the_search_is_over():
    module = torch.nn.Linear(6, 3)
    heads = [head(number, {}, module) for number in range(2)]
    asked = iter([False, True])
    assert not stacked_heads.fit(heads, TRAIN, VALIDATION, lambda: next(asked))
    assert [len(one.run.rows) for one in heads] == [2, 2]
    assert all(one.going for one in heads)
