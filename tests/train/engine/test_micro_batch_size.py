"""Micro-batches by the memory that planted cgroup files leave, and what finding them leaves behind: nothing."""

import copy

import pytest
import torch

from kennel import backbones
from kennel.backbones import Classifier
from kennel_train.distributed import device
from kennel_train.engine import micro_batch_size

SIDE = 64


class Net(torch.nn.Module):
    """With a statistic that a forward pass changes and dropout that draws."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Dropout(0.5))
        self.head = torch.nn.Linear(8, 2)

    def forward(self, photos):
        return self.head(self.body(photos.float()).relu().mean((2, 3)))


@pytest.fixture
def chosen():
    return device.choose("")


def limit(root, free: int):
    (root / "memory.max").write_text(f"{free + 2**20}\n")
    (root / "memory.stat").write_text(f"anon {2**20}\nfile 123\n")
    return root


@pytest.mark.parametrize(
    ("free", "batch_size", "fits"),
    [
        (0, 32, range(1, 2)),
        (6 * 2**20, 32, range(2, 8)),
        (20 * 2**20, 2, range(2, 3)),
        (2**40, 7, range(7, 8)),
        (2**40, 512, range(8, 9)),
        (2**40, 1, range(1, 2)),
    ],
)
def test_a_micro_batch_is_as_large_as_memory_allows_and_never_0(chosen, tmp_path, free, batch_size, fits):
    size = micro_batch_size.micro_batch(Net(), SIDE, batch_size, chosen, 1, limit(tmp_path, free))
    assert size in fits
    assert size == batch_size or size & (size - 1) == 0


def test_larger_photos_and_more_processes_make_it_smaller(chosen, tmp_path):
    root = limit(tmp_path, 10 * 2**20)
    whole = micro_batch_size.micro_batch(Net(), SIDE, 32, chosen, 1, root)
    assert micro_batch_size.micro_batch(Net(), SIDE, 32, chosen, 4, root) <= whole / 4
    assert micro_batch_size.micro_batch(Net(), 2 * SIDE, 32, chosen, 1, root) <= whole / 4


def test_weights_take_their_part_first(chosen, tmp_path):
    """A network that is all weights: five copies of them do not fit, one photo is all that is tried."""
    wide = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 400))  # 20 MB

    class Bytes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = wide

        def forward(self, photos):
            return self.inner(photos.float())

    assert micro_batch_size.micro_batch(Bytes(), SIDE, 32, chosen, 1, limit(tmp_path, 80 * 2**20)) == 1
    assert micro_batch_size.micro_batch(Bytes(), SIDE, 32, chosen, 1, limit(tmp_path, 160 * 2**20)) == 8


@pytest.mark.parametrize("training", [True, False])
def test_the_module_and_the_random_numbers_stay_as_they_were(chosen, training):
    net = Net().train(training)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    micro_batch_size.micro_batch(net, SIDE, 8, chosen, 1)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in net.parameters())
    assert {inner.training for inner in net.modules()} == {training}


def test_a_whole_pass_of_a_network_with_batch_normalization_works(chosen):
    """What a GPU is tried with; statistics that change under the backward pass made it raise."""
    backbone = backbones.load("test_resnet", SIDE, pretrained=False, channel=None, baked=None)
    assert micro_batch_size._passes(Classifier(backbone, 2), SIDE, 2, chosen)


def test_the_estimate_is_not_below_what_torch_allocates(chosen, tmp_path):
    """torch's own count of the bytes that are alive at once in a forward and backward pass."""
    backbone = backbones.load("test_resnet", SIDE, pretrained=False, channel=None, baked=None)
    classifier = Classifier(backbone, 2).to(memory_format=torch.channels_last)
    photos = torch.zeros(16, 3, SIDE, SIDE, dtype=torch.uint8)
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        classifier(photos).sum().backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    assert most > 2**20
    weights = sum(p.numel() * p.element_size() for p in classifier.parameters())
    root = limit(tmp_path, micro_batch_size._COPIES * weights + most)
    assert micro_batch_size.micro_batch(classifier, SIDE, 16, chosen, 1, root) < 16
