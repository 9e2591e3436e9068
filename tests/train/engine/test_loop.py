"""The training loop by itself: what it keeps, when it stops, and that a run taken up again ends like one unbroken."""

import copy
import io

import numpy as np
import pytest
import torch

from kennel import metrics
from kennel.errors import UserError
from kennel.hyperparameters import Hyperparameters
from kennel_train.context import Context
from kennel_train.distributed import device
from kennel_train.engine import loop
from kennel_train.engine.batches import FeatureDataset
from kennel_train.engine.progress import LoopCallbacks, StagePlan

from ..small_network import painted


@pytest.fixture
def chosen():
    return device.choose("")


def blobs(count: int, swapped: bool = False) -> FeatureDataset:
    """Features of two classes that a line tells apart; swapped, each with the other's label."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 2
    features = torch.randn(count, 4, generator=generator) + 2.0 * labels[:, None]
    return FeatureDataset(1 - labels if swapped else labels, np.arange(count), count, torch.device("cpu"), features)


class Net(torch.nn.Module):
    """With a statistic that a step changes, and with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Dropout(0.3)
        )
        self.head = torch.nn.Linear(4, 2)

    def forward(self, photos):
        return self.head(self.backbone(photos.float() / 255).mean((2, 3)))


def fit(
    module,
    train,
    validation,
    hp,
    chosen,
    *,
    stop=lambda: False,
    state=None,
    micro_batch=64,
    save=None,
    hurry=None,
    keep_statistics=False,
):
    seen = []
    run = loop.fit(
        module,
        train,
        validation,
        Context(hp, chosen),
        StagePlan("finetune", hp.epochs, 0, micro_batch, torch.ones(2), keep_statistics),
        LoopCallbacks(
            stop, hurry or stop, save or (lambda _: None), lambda row, values: seen.append((row["epoch"], values))
        ),
        state,
    )
    return run, seen


def kept_states():
    """A list and a `save` that puts into it what a checkpoint's file would hold."""
    states = []

    def save(state):
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        states.append(torch.load(file, weights_only=True))

    return states, save


def test_the_best_epoch_is_kept_and_not_the_last(chosen):
    """Against swapped labels every epoch of learning makes validation worse."""
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 2)
    hp = Hyperparameters(epochs=6, batch_size=64, learning_rate=0.05)
    run, seen = fit(module, blobs(64), blobs(64, swapped=True), hp, chosen)
    ranked = sorted(seen, key=lambda row: (row[1][metrics.VALIDATION_ACCURACY], -row[1][metrics.VALIDATION_LOSS]))
    assert (run.best.epoch, run.best.values) == ranked[-1]
    assert run.best.epoch < 6
    assert not torch.equal(run.best.state["weight"], module.weight)
    module.load_state_dict(run.best.state)
    loss, accuracy = loop.evaluate(module, blobs(64, swapped=True), Context(Hyperparameters(), chosen))
    assert loss == pytest.approx(run.best.values[metrics.VALIDATION_LOSS])
    assert accuracy == run.best.values[metrics.VALIDATION_ACCURACY]


def test_patience_ends_training_when_nothing_gets_better(chosen):
    torch.manual_seed(0)
    hp = Hyperparameters(epochs=50, batch_size=64, learning_rate=0.05, patience=3)
    run, seen = fit(torch.nn.Linear(4, 2), blobs(64), blobs(64, swapped=True), hp, chosen)
    assert len(seen) == run.best.epoch + 3 < 50


def test_a_stop_in_the_first_epoch_saves_where_it_stands_and_leaves_a_model(chosen):
    asked = iter([False] * 3 + [True] * 100)
    states, save = kept_states()
    hp = Hyperparameters(epochs=10_000, batch_size=1)
    run, seen = fit(torch.nn.Linear(4, 2), blobs(64), blobs(64), hp, chosen, stop=lambda: next(asked), save=save)
    assert [epoch for epoch, _ in seen] == [1]
    assert states[-1]["position"] == {"epoch": 1, "step": 2, "stale": 0}
    assert states[-1]["best"]["state"] == {}, "an epoch that was broken off is no result for the run that goes on"
    assert run.best.state


def test_a_stop_later_leaves_the_best_whole_epoch(chosen):
    asked = [False] * 200 + [True] * 100
    hp = Hyperparameters(epochs=10_000, batch_size=1)
    run, seen = fit(torch.nn.Linear(4, 2), blobs(64), blobs(64), hp, chosen, stop=lambda: asked.pop(0))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert run.best.epoch in (1, 2, 3)


class Slow(FeatureDataset):
    """Validation in many batches; the stop comes in the second of each epoch after `whole` epochs."""

    whole, asked = 1, 0

    def evaluation(self):
        for at in range(len(self.labels)):
            self.asked += 1
            yield self.features[at : at + 1], self.labels[at : at + 1]

    def stopped(self):
        return self.asked > self.whole * len(self.labels) + 1


@pytest.mark.parametrize("whole", [0, 2])
def test_a_stop_in_the_middle_of_validation_is_heard_there(chosen, whole):
    given = blobs(64)
    slow = Slow(given.labels, given.index, 64, given.device, given.features)
    slow.whole = whole
    states, save = kept_states()
    hp = Hyperparameters(epochs=10_000, batch_size=32)
    run, seen = fit(
        torch.nn.Linear(4, 2), blobs(64), slow, hp, chosen, stop=slow.stopped, hurry=slow.stopped, save=save
    )
    assert slow.asked == whole * 64 + 2, "no batch is judged after the stop"
    if whole:
        assert [epoch for epoch, _ in seen] == [1, 2], "the third epoch is not judged by a part"
        assert states[-1]["position"] == {"epoch": 3, "step": 2, "stale": run.stale}, "a restart judges it"
    else:
        assert [epoch for epoch, _ in seen] == [1], "the only model that there is counts, judged by a part"
    assert run.best.state


def test_a_job_stopped_before_its_first_step_still_learns_while_there_is_time(chosen):
    left = iter([False] * 9 + [True] * 100)
    states, save = kept_states()
    hp = Hyperparameters(epochs=10_000, batch_size=8, learning_rate=0.1)
    run, _ = fit(
        torch.nn.Linear(4, 2), blobs(64), blobs(64), hp, chosen, stop=lambda: True, hurry=lambda: next(left), save=save
    )
    assert run.best.values[metrics.VALIDATION_ACCURACY] > 0.8
    assert metrics.TRAIN_LOSS in run.best.values
    assert not states, "the whole job is not this one"


RECIPES = [
    {"optimizer": "sgd"},
    {"optimizer": "adamw", "schedule": "one-cycle", "learning_rate": 0.003},
    {"ema_decay": 0.9, "warmup_epochs": 1.5, "label_smoothing": 0.1, "gradient_clip": 0.5},
    {"trivial_augment": True},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: " ".join(recipe))
def test_a_run_taken_up_at_any_checkpoint_ends_with_the_same_bytes(chosen, recipe):
    """Every step is saved, as it would be by SIGTERM; from a few of them the rest is run again."""
    hp = Hyperparameters(epochs=3, batch_size=10, checkpoint_minutes=1e-9, seed=5, **recipe)
    train, validation = painted(36), painted(12)
    train.trivial_augment = hp.trivial_augment
    torch.manual_seed(0)
    module = Net()
    fresh = copy.deepcopy(module)
    states, save = kept_states()
    whole, _ = fit(module, train, validation, hp, chosen, save=save)
    assert len(states) == 3 * 4  # ceil(36 / 10) steps, the last of which ends the epoch
    for at in (0, 3, 6, 10):
        again, _ = fit(copy.deepcopy(fresh), train, validation, hp, chosen, state=states[at])
        assert again.rows[-1]["train:loss"] == whole.rows[-1]["train:loss"]
        for name, tensor in whole.judged.state_dict().items():
            assert torch.equal(again.judged.state_dict()[name], tensor), (at, name)
        assert again.best.epoch == whole.best.epoch
        assert all(torch.equal(again.best.state[name], tensor) for name, tensor in whole.best.state.items())


def test_micro_batches_change_nothing_but_the_last_digits(chosen):
    hp = Hyperparameters(epochs=3, batch_size=16, class_weights="balanced", label_smoothing=0.1, weight_decay=0.01)
    ends = []
    for micro_batch in (16, 5, 1):
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 2)
        fit(module, blobs(40), blobs(10), hp, chosen, micro_batch=micro_batch)
        ends.append(module.weight.detach().clone())
    assert torch.allclose(ends[0], ends[1], atol=1e-6)
    assert torch.allclose(ends[0], ends[2], atol=1e-6)


def test_kept_statistics_stay_and_make_micro_batches_exact(chosen):
    hp = Hyperparameters(epochs=2, batch_size=16)
    ends = []
    for micro_batch in (16, 3):
        torch.manual_seed(0)
        module = Net()
        module.backbone[3].p = 0.0  # what is dropped differs from part to part
        fit(module, painted(32), painted(8), hp, chosen, micro_batch=micro_batch, keep_statistics=True)
        assert module.backbone[1].running_mean.tolist() == [0.0] * 4
        ends.append(module.backbone[0].weight.detach().clone())
    assert not torch.equal(ends[0], Net().backbone[0].weight)
    assert torch.allclose(*ends, atol=1e-6)


def test_the_moving_average_is_what_is_judged_and_kept(chosen):
    hp = Hyperparameters(epochs=2, batch_size=8, learning_rate=0.5, ema_decay=0.95)
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 2)
    run, _ = fit(module, blobs(64), blobs(64), hp, chosen)
    assert not torch.equal(run.best.state["weight"], module.weight)
    probe = torch.nn.Linear(4, 2)
    probe.load_state_dict(run.best.state)
    assert loop.evaluate(probe, blobs(64), Context(Hyperparameters(), chosen))[0] == pytest.approx(
        run.best.values[metrics.VALIDATION_LOSS]
    )


def test_an_epoch_deals_every_photo_once_and_evenly(chosen):
    seen = []

    class Watched(FeatureDataset):
        def training(self, parts, seed, epoch):
            seen.append([len(part) for part in parts])
            assert sorted(np.concatenate(parts)) == list(range(41))
            return super().training(parts, seed, epoch)

    plain = blobs(41)
    train = Watched(plain.labels, plain.index, plain.total, plain.device, plain.features)
    fit(torch.nn.Linear(4, 2), train, blobs(8), Hyperparameters(epochs=2, batch_size=10), chosen)
    assert seen == [[9, 8, 8, 8, 8]] * 2


@pytest.mark.parametrize("count", [3, 5, 7])
def test_with_batches_of_two_an_odd_photo_joins_another_batch(chosen, count):
    """Batch normalization of features takes no batch of one."""
    seen = []

    class Counted(torch.nn.Sequential):
        def forward(self, features):
            seen.append(len(features)) if self.training else None
            return super().forward(features)

    module = Counted(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    fit(module, blobs(count), blobs(10), Hyperparameters(epochs=1, batch_size=2), chosen, micro_batch=2)
    assert (sorted(seen), sum(seen)) == ([*[2] * (count // 2 - 1), 3], count)


def test_steps_without_a_photo_change_nothing(chosen):
    """Of a job that was stopped while it extracted features, most photos are missing."""
    few = blobs(6)
    part = FeatureDataset(few.labels, few.index * 100, 600, few.device, few.features)
    run, _ = fit(torch.nn.Linear(4, 2), part, blobs(10), Hyperparameters(epochs=2, batch_size=4), chosen)
    assert [row["epoch"] for row in run.rows] == [1, 2]
    assert all(torch.isfinite(value).all() for value in run.best.state.values())


def test_a_loss_that_is_no_number_is_said(chosen):
    hp = Hyperparameters(epochs=5, batch_size=8, learning_rate=10.0)
    features = blobs(16)
    features.features *= 1e30
    with pytest.raises(UserError, match=r"the loss is NaN or infinite in epoch \d: lower learning_rate"):
        fit(torch.nn.Linear(4, 2), features, features, hp, chosen)
