"""What is captured and replayed on a GPU, on a CPU: by a stand-in for CUDA's graph that owns nothing it reads.

tests/gpu has the same on a card.
"""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from kennel.backbones import Backbone, Classifier
from kennel.errors import UserError
from kennel.photos.preprocessing import Preprocessing
from kennel_serve.inference import cuda_graphs
from kennel_serve.inference.cuda_graphs import SIZES

SIDE = 32


class ReplayedGraph(TorchDispatchMode):
    """Records operations and runs them again. As CUDA's graph does, it owns what was made while it captured (its
    memory pool) and nothing else: what it reads of others may be gone."""

    def __init__(self):
        super().__init__()
        self.calls, self.made, self.result = [], {}, None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, *tree_map(self._seen, (args, kwargs or {})), result))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor):
                self.made[id(tensor)] = tensor
        return result

    def _seen(self, value):
        if not isinstance(value, torch.Tensor) or id(value) in self.made:
            return value
        return weakref.ref(value)

    def replay(self):
        now = {}

        def read(value):
            if isinstance(value, weakref.ref):
                value = value()
                if value is None:
                    raise RuntimeError("a graph reads memory that was freed")
            return now.get(id(value), value)

        with torch.no_grad():
            for func, args, kwargs, result in self.calls:
                again = func(*tree_map(read, args), **tree_map(read, kwargs))
                for was, is_now in zip(tree_flatten(result)[0], tree_flatten(again)[0], strict=True):
                    now[id(was)] = is_now
            self.result.copy_(now[id(self.result)])


def capture(forward):
    for _ in range(3):
        forward()
    with ReplayedGraph() as graph:
        graph.result = forward()
    return graph, graph.result


def network(backbone, classes):
    """A classifier around a backbone with the layers that matter: convolutions, batch norm, writes in place."""
    return Classifier(Backbone("small", "none", backbone, 16, Preprocessing(SIDE, SIDE), "random"), classes).eval()


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 5, 2), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 16, 3), nn.Hardswish()]
    made = network(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 16)), 5)
    nn.init.normal_(made.head.weight)
    return made


def photos(count, seed=1):
    return torch.randint(
        0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_graphs_outlive_the_network_that_they_were_captured_from(classifier, half):
    graphs = cuda_graphs.captured(classifier, SIDE, half, capture)
    gc.collect()  # what nothing but a graph's addresses leads to is freed
    for size in (1, 32, 2, 1, 16, 4, 8, 2):
        asked = photos(size, size)
        with torch.no_grad():
            wanted = classifier(asked)
        assert cuda_graphs.difference(graphs(asked), wanted, wanted) < 0.2
        assert graphs(asked).dtype == torch.float32


def test_the_normalization_and_the_head_are_not_rounded(classifier):
    mixed = cuda_graphs.MixedPrecision(classifier, torch.bfloat16)
    assert torch.equal(mixed.classifier.mean, classifier.mean)
    assert {parameter.dtype for parameter in mixed.classifier.backbone.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in mixed.classifier.head.parameters()} == {torch.float32}
    assert next(classifier.backbone.parameters()).dtype == torch.float32, "the classifier itself stays as it is"


class Wrong:
    """A capture with a fault that a GPU, its driver or its libraries might have."""

    def __init__(self, fault):
        self.fault, self.replays = fault, 0

    def __call__(self, forward):
        graph, logits = capture(forward)
        fault, outer = self.fault, self

        class Faulty:
            def replay(self):
                outer.replays += 1
                if fault == "stale" and outer.replays > len(SIZES):
                    return
                graph.replay()
                if fault == "nan":
                    logits.fill_(float("nan"))
                elif fault == "garbage":
                    logits.add_(torch.randn(logits.shape) * 100)
                elif fault == "one row" and len(logits) == SIZES[-1]:
                    logits[:-1] = logits[1:].clone()

        return Faulty(), logits


@pytest.mark.parametrize("fault", ["nan", "garbage", "stale", "one row"])
def test_answers_that_are_not_the_float32_network_s_end_the_start_with_the_figure(classifier, fault):
    with pytest.raises(UserError, match=r"captured answers to \d+ photos differ .* by (nan|\d+)% of their spread"):
        cuda_graphs.captured(classifier, SIDE, torch.bfloat16, Wrong(fault))


def test_a_network_that_half_precision_changes_is_served_in_float32(caplog):
    class Fine(nn.Module):
        """Features that bf16 cannot tell apart: 1000 and a little."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, squares):
            means = squares.mean(dim=(2, 3)) * self.scale
            return 1000 + means

    made = network(Fine(), 3)
    made.head = nn.Linear(3, 3, bias=False)
    nn.init.eye_(made.head.weight)
    with torch.no_grad():
        made.head.weight -= made.head.weight.mean(dim=1, keepdim=True)
    with caplog.at_level("INFO"):
        graphs = cuda_graphs.captured(made, SIDE, torch.bfloat16, capture)
    assert "served in float32: bfloat16 differs by" in caplog.text
    with torch.no_grad():
        torch.testing.assert_close(graphs(photos(2)), made(photos(2)), atol=1e-3, rtol=1e-3)


def test_a_network_without_finite_answers_is_not_blamed_on_the_gpu(classifier):
    broken = copy.deepcopy(classifier)
    nn.init.constant_(broken.head.bias, float("nan"))
    with pytest.raises(UserError, match="not finite: train it again"):
        cuda_graphs.captured(broken, SIDE, torch.bfloat16, capture)


def test_the_photos_of_the_check_look_like_photos_and_are_always_the_same():
    one, two = (cuda_graphs.sample_photos(4, 64) for _ in range(2))
    assert torch.equal(one, two)
    assert one.float().std() > 30
    neighbours = (one[..., 1:].float() - one[..., :-1].float()).abs().mean()
    assert neighbours < 20, "smooth, unlike noise"
