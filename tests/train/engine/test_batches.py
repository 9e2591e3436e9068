"""What an epoch sees: its own order and its own crops, the same ones in any batches."""

import numpy as np
import pytest
import torch

from kennel_train.engine.batches import CropDataset, Dataset

CPU = torch.device("cpu")
COUNT = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 40, 40, 3)).astype(np.uint8)


def photos(ids=None, **more) -> CropDataset:
    ids = np.arange(COUNT) if ids is None else np.array(ids)
    return CropDataset(torch.from_numpy(ids % 3), ids, COUNT, CPU, IMAGES, ids, side=32, **more)


def seen(inputs: CropDataset, items, seed=0, epoch=1, size=4):
    """(photos, labels) of items, in batches of `size`."""
    items = np.array(items)
    parts = [items[at : at + size] for at in range(0, len(items), size)]
    batches = list(inputs.training(parts, seed, epoch))
    return torch.cat([batch for batch, _ in batches]), torch.cat([labels for _, labels in batches])


def test_every_epoch_and_seed_has_an_order_of_its_own():
    inputs = photos()
    orders = [tuple(inputs.order(seed, epoch)) for seed, epoch in ((0, 1), (0, 2), (0, 3), (1, 1))]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert tuple(inputs.order(0, 1)) == orders[0]


def test_ranks_share_one_order():
    """Each rank's photos come as they would in the whole."""
    whole = photos().order(0, 5).tolist()
    for rank in range(3):
        ids = np.arange(rank, COUNT, 3)
        part = Dataset(torch.zeros(len(ids)), ids, COUNT, CPU)
        assert ids[part.order(0, 5)].tolist() == [at for at in whole if at % 3 == rank]


@pytest.mark.parametrize("trivial_augment", [False, True])
def test_crops_are_of_the_epoch_and_the_photo_and_of_nothing_else(trivial_augment):
    inputs = photos(trivial_augment=trivial_augment)
    first, labels = seen(inputs, range(COUNT))
    assert labels.tolist() == [at % 3 for at in range(COUNT)]
    backwards, _ = seen(inputs, range(COUNT)[::-1], size=5)
    assert torch.equal(backwards.flip(0), first)
    alone, _ = seen(photos([7, 9], trivial_augment=trivial_augment), [1])
    assert torch.equal(alone[0], first[9])
    for other in ({"epoch": 2}, {"seed": 1}):
        moved, _ = seen(inputs, range(COUNT), **other)
        assert all(not torch.equal(moved[at], first[at]) for at in range(COUNT))


def test_evaluation_sees_every_middle_once_in_order():
    inputs = photos([3, 1, 2])
    ((batch, labels),) = inputs.evaluation()
    assert labels.tolist() == [0, 1, 2]
    assert torch.equal(batch, torch.from_numpy(IMAGES[[3, 1, 2], 4:36, 4:36]).permute(0, 3, 1, 2))
