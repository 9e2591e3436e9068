"""What a stage's watch takes from a real training, and that it leaves no trace."""

import time

import numpy as np
import pytest
import torch

from kennel.hyperparameters import Hyperparameters
from kennel_train.context import Context
from kennel_train.distributed import device
from kennel_train.engine import loop
from kennel_train.engine.progress import LoopCallbacks, StagePlan
from kennel_train.measure.callbacks import Callback, CallbackList
from kennel_train.measure.history import StageHistory
from kennel_train.measure.stage_recorder import EVERY, StageRecorder
from kennel_train.measure.step_timer import StepClock

from ..small_network import Net, Sleepy, painted


class Stopwatch(Callback):
    """The steps' time by a clock of its own."""

    total = 0.0

    def begin(self, step):
        self.begun = time.perf_counter()

    def end(self, sums):
        self.total += time.perf_counter() - self.begun


class Ledger(Callback):
    """Keeps each step's gradients and weights as they were after it."""

    def __init__(self, module):
        self.module, self.rows = module, {}

    def begin(self, step):
        self.step = step

    def end(self, sums):
        self.rows[self.step] = (
            {name: (p.grad.clone(), p.detach().clone()) for name, p in self.module.named_parameters()},
            sums.clone(),
        )


def fit(train, hp, *, micro_batch=64, watch_of=None, state=None, before=0, saves=None, stop=lambda: False):
    """The module, the filled series and how often it was judged."""
    torch.manual_seed(0)
    module, series, judged = Net(), StageHistory("finetune"), []
    clock = StepClock(train.device, lambda: train.waited)
    watch = StageRecorder(series, module, clock, lambda: judged.append(series.ended), tensors=True)
    watch = watch_of(module, watch) if watch_of else watch
    save = saves.append if saves is not None else (lambda _: None)
    run = loop.fit(
        module,
        train,
        painted(16),
        Context(hp, device.choose("")),
        StagePlan("finetune", hp.epochs, before, micro_batch, torch.ones(2), False),
        LoopCallbacks(stop, lambda: False, save, lambda *_: None, watch),
        state,
    )
    watch.close()
    return module, series, judged, run


def test_losses_and_norms_are_those_the_training_had_over_micro_batches():
    from kennel_train.measure.callbacks import CallbackList

    ledgers = []

    def both(module, watch):
        ledgers.append(Ledger(module))
        return CallbackList(watch, ledgers[0])

    hp = Hyperparameters(epochs=3, batch_size=12, learning_rate=0.05)
    _, series, judged, run = fit(painted(60), hp, micro_batch=5, watch_of=both)
    rows = ledgers[0].rows
    assert series.loss.steps == list(range(15)) == list(rows)
    for step, loss in zip(series.loss.steps, series.loss.values, strict=True):
        total, weight = rows[step][1].tolist()
        assert loss == total / weight
    assert series.gradients["head.weight"].norm.steps == list(range(0, 15, EVERY))
    for name, found in series.gradients.items():
        for at, step in enumerate(found.norm.steps):
            gradient, weight = rows[step][0][name]
            assert found.norm.values[at] == pytest.approx(float(gradient.norm()), rel=1e-5)
            assert found.mean_abs.values[at] == pytest.approx(float(gradient.abs().mean()), rel=1e-5)
            assert series.weights[name].norm.values[at] == pytest.approx(float(weight.norm()), rel=1e-5)
    assert judged[-1]
    assert [row.step for row in series.evaluated] == [4, 9, 14]
    assert [row.train_loss for row in series.evaluated] == [row["train:loss"] for row in run.rows]
    assert [row.validation_loss for row in series.evaluated] == [row["validation:loss"] for row in run.rows]


def test_the_standard_error_is_that_of_the_photos_losses():
    hp = Hyperparameters(epochs=1, batch_size=12, learning_rate=0.05)
    module, series, _, _ = fit(painted(24), hp)
    rows = list(loop.logits_of(module, painted(16), device.choose("")))
    losses = torch.cat([torch.nn.functional.cross_entropy(x, y, reduction="none") for x, y in rows])
    assert series.evaluated[0].error == pytest.approx(float(losses.std() / len(losses) ** 0.5), rel=1e-4)


def test_activations_and_spreads_are_measured_in_the_first_steps_only():
    hp = Hyperparameters(epochs=4, batch_size=12, learning_rate=0.05)
    train = painted(60)
    _, series, _, _ = fit(train, hp, micro_batch=5)
    assert list(series.activation_variance) == ["backbone.1"]  # and no second micro-batch's
    assert series.activation_variance["backbone.1"].steps == list(range(10))
    assert series.gradient_spread["backbone.0.weight"].steps == list(range(10))
    torch.manual_seed(0)
    fresh = Net()
    inputs, _ = next(iter(train.training([np.array_split(train.order(0, 1), 5)[0][:4]], 0, 1)))
    first = fresh.backbone[0](inputs.float() / 255).var(correction=0)
    assert series.activation_variance["backbone.1"].values[0] == pytest.approx(first.item(), rel=1e-5)


def test_the_mistaken_are_counted_by_class_epoch_by_epoch():
    hp = Hyperparameters(epochs=2, batch_size=12, learning_rate=1e-8)
    _, series, _, _ = fit(painted(60), hp, micro_batch=5)
    assert series.seen.photos.tolist() == [30, 30]
    assert series.seen.wrong.tolist() in ([30, 0], [0, 30])  # untrained, it says one class of all


def test_a_sleepy_loader_is_charged_with_what_it_cost():
    train, clock = painted(60, Sleepy), Stopwatch()
    hp = Hyperparameters(epochs=2, batch_size=6, learning_rate=0.05)
    _, series, _, _ = fit(train, hp, watch_of=lambda _, watch: CallbackList(clock, watch))
    assert series.loss.steps == list(range(20))
    assert series.lost() == pytest.approx(train.slept / clock.total, rel=0.1)
    assert [len(curve.steps) for curve in series.times.values()] == 6 * [20]
    assert series.slowest[0][0] == min(row[0] for row in series.slowest)


def test_steps_go_on_where_a_checkpoint_left_off_and_over_stages():
    saves = []
    hp = Hyperparameters(epochs=2, batch_size=12, learning_rate=0.05)
    calls = iter([False] * 3 + [True] * 100)
    fit(painted(60), hp, saves=saves, stop=lambda: next(calls))
    _, series, _, _ = fit(painted(60), hp, state=saves[-1])
    assert (series.first, series.loss.steps) == (2, list(range(2, 10)))
    _, series, _, _ = fit(painted(60), hp, before=3)
    assert series.loss.steps == list(range(15, 25))


def test_nothing_stays_on_the_module():
    hp = Hyperparameters(epochs=1, batch_size=30, learning_rate=0.05)
    module, *_ = fit(painted(60), hp)
    for inner in module.modules():
        assert not inner._forward_pre_hooks
        assert not inner._forward_hooks
        assert not inner._backward_hooks


def test_watching_changes_no_weight():
    hp = Hyperparameters(epochs=2, batch_size=12, learning_rate=0.05)
    watched, *_ = fit(painted(60), hp)
    bare, *_ = fit(painted(60), hp, watch_of=lambda *_: Callback())
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), bare.parameters(), strict=True))
