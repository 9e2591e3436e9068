"""The training loop by itself: what it keeps, and when it stops."""

import pytest
import torch

from kennel import metrics
from kennel.hyperparameters import Hyperparameters
from kennel_train import device, loop
from kennel_train.loop import Split


@pytest.fixture
def chosen():
    return device.choose("")


def blobs(count: int, swapped: bool = False) -> Split:
    """Features of two classes that a line tells apart; swapped, each with the other's label."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 2
    inputs = torch.randn(count, 4, generator=generator) + 2.0 * labels[:, None]
    return Split(inputs, torch.arange(count), 1 - labels if swapped else labels)


def fit(module, train, validation, hp, chosen, stop=lambda: False):
    seen = []
    best = loop.fit(
        module,
        train,
        validation,
        hp,
        chosen,
        crop=None,
        stop=stop,
        on_epoch_end=lambda epoch, v: seen.append((epoch, v)),
    )
    return best, seen


def test_the_best_epoch_is_kept_and_not_the_last(chosen):
    """Against swapped labels every epoch of learning makes validation worse."""
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 2)
    hp = Hyperparameters(epochs=6, batch_size=64, learning_rate=0.05)
    best, seen = fit(module, blobs(64), blobs(64, swapped=True), hp, chosen)
    ranked = sorted(seen, key=lambda row: (row[1][metrics.VALIDATION_ACCURACY], -row[1][metrics.VALIDATION_LOSS]))
    assert (best.epoch, best.values) == ranked[-1]
    assert best.epoch < 6
    assert not torch.equal(best.state["weight"], module.weight)
    module.load_state_dict(best.state)
    loss, accuracy = loop.evaluate(module, blobs(64, swapped=True), chosen, None)
    assert loss == pytest.approx(best.values[metrics.VALIDATION_LOSS])
    assert accuracy == best.values[metrics.VALIDATION_ACCURACY]


def test_a_stop_ends_the_running_epoch_and_leaves_a_model(chosen):
    asked = iter([False, False] + [True] * 100)
    count = [0]

    def stop():
        count[0] += 1
        return next(asked)

    hp = Hyperparameters(epochs=10_000, batch_size=1)
    best, seen = fit(torch.nn.Linear(4, 2), blobs(64), blobs(64), hp, chosen, stop)
    assert [epoch for epoch, _ in seen] == [1]
    assert count[0] == 4  # two steps, the one that was not taken, the end of the epoch
    assert best.state


def test_crops_are_parts_of_their_photos_some_of_them_mirrored():
    photos = torch.arange(8 * 3 * 6 * 6).reshape(8, 3, 6, 6).to(torch.uint8)
    cut = loop.random_crop(photos, 4, torch.Generator().manual_seed(0))
    mirrored = 0
    for photo, square in zip(photos, cut, strict=True):
        windows = [photo[:, t : t + 4, left : left + 4] for t in range(3) for left in range(3)]
        plain = any(torch.equal(window, square) for window in windows)
        flipped = any(torch.equal(window.flip(2), square) for window in windows)
        assert plain or flipped
        mirrored += flipped
    assert 0 < mirrored < 8
    assert torch.equal(cut, loop.random_crop(photos, 4, torch.Generator().manual_seed(0)))
