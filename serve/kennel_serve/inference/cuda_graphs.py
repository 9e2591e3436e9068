"""A classifier's forward pass as one captured graph for each batch size, compared with the float32 network at load.

A CUDA graph is a list of kernels and of the addresses that they read and write. It owns none of that memory: weights
that are freed, or cast copies in autocast's cache, are read as whatever lies there next, and the answer is NaN or
worse. So `CapturedNetwork` owns the network, its weights are cast once and for good, and no autocast is on while
capturing. What captures is passed in: tests/serve replays by a stand-in on CPUs.
"""

import copy
import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from kennel.backbones import Classifier
from kennel.errors import UserError

_log = logging.getLogger(__name__)
SIZES = (1, 2, 4, 8, 16, 32)  # a batch is filled up to the next of these
# Both are shares of how much logits vary from photo to photo (`difference`). Rounding of bf16 through fifty layers
# comes to 0.02 to 0.05; the answer to another photo is off by 1.4, and freed memory by far more.
HALF_LIMIT = 0.1  # above it half precision changes answers: the network is served in float32
LIMIT = 0.25  # above it a captured graph does not compute this network


class Graph(Protocol):
    """What torch.cuda.CUDAGraph does once it has captured."""

    def replay(self) -> None: ...


Capture = Callable[[Callable[[], Tensor]], tuple[Graph, Tensor]]
"""Runs a function and returns a graph that runs it again, and the tensor that each replay writes its result to."""


class MixedPrecision(nn.Module):
    """A classifier whose backbone computes in `dtype`; normalization and head stay float32.

    `forward` maps uint8 (N, 3, S, S) to float32 (N, classes), as the classifier does. Its mean of 123.675 would be
    123.5 in bf16, and two classes of one photo would tie.
    """

    def __init__(self, classifier: Classifier, dtype: torch.dtype) -> None:
        super().__init__()
        self.classifier = copy.deepcopy(classifier)
        self.classifier.backbone.to(dtype)
        self.dtype = dtype

    def forward(self, photos: Tensor) -> Tensor:
        squares = self.classifier.normalized(photos).to(self.dtype, memory_format=torch.channels_last)
        logits: Tensor = self.classifier.head(self.classifier.backbone(squares).float())
        return logits


class CapturedNetwork:
    """A network and its graphs, one a batch size. Call it with uint8 (N, 3, S, S), N one of `sizes`."""

    def __init__(self, network: nn.Module, sizes: tuple[int, ...], side: int, capture: Capture) -> None:
        """
        Args:
            network: in eval mode, on the device on which it is to run.
            side: of the photos, pixels.
            capture: `cuda_capture`'s.
        """
        self._network = network  # the graphs read its weights' memory and do not keep it
        self._graphs: dict[int, tuple[Graph, Tensor, Tensor]] = {}
        device = next(network.parameters()).device
        # no_grad and not inference_mode: a tensor made there could not be written when a request comes
        with torch.no_grad():
            for size in sizes:
                photos = torch.zeros((size, 3, side, side), dtype=torch.uint8, device=device)

                def forward(photos: Tensor = photos) -> Tensor:
                    logits: Tensor = network(photos)
                    return logits

                graph, logits = capture(forward)
                self._graphs[size] = graph, photos, logits

    def __call__(self, photos: Tensor) -> Tensor:
        """Logits, float32 (N, classes), on the network's device; the next call with as many photos overwrites them."""
        graph, taken, logits = self._graphs[len(photos)]
        with torch.no_grad():
            taken.copy_(photos)
        graph.replay()
        return logits


def cuda_capture(device: torch.device) -> Capture:
    """Captures on a GPU, after a warm-up that chooses kernels and takes their memory.

    The order of waits is that of PyTorch's CUDA semantics, "CUDA Graphs": the side stream first waits for what was
    enqueued before (the weights' copies), then the current one for the warm-up.
    """

    def capture(forward: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
        current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(3):
                forward()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = forward()
        return graph, logits

    return capture


def captured(classifier: Classifier, side: int, half: torch.dtype, capture: Capture) -> CapturedNetwork:
    """A classifier's graphs for all `SIZES`, in half precision where that gives its answers, else in float32.

    Args:
        classifier: float32, in eval mode, on its device; it stays as it is.
        side: of the photos, pixels.
        half: bfloat16, or float16 on GPUs before Ampere.

    Raises:
        UserError: a graph's answers are not the float32 network's, or those are not finite.
    """
    network: nn.Module = MixedPrecision(classifier, half)
    photos = sample_photos(2 * SIZES[-1], side).to(next(classifier.parameters()).device)
    with torch.no_grad():
        parts = torch.split(photos, SIZES[-1])
        wanted = torch.cat([classifier(part) for part in parts])
        if not wanted.isfinite().all():
            raise UserError("the model's logits are not finite: train it again")
        found = torch.cat([network(part) for part in parts])
        error = difference(found, wanted, wanted)
        worst = max(
            difference(*pair, wanted) for pair in zip(torch.split(found, 1), torch.split(wanted, 1), strict=True)
        )
    if not (error <= HALF_LIMIT and worst <= 0.8 * LIMIT):  # of one photo alone, as `_verify` may judge by one
        _log.info("served in float32: %s differs by %.0f%%", str(half).removeprefix("torch."), 100 * error)
        network = MixedPrecision(classifier, torch.float32)
    graphs = CapturedNetwork(network, SIZES, side, capture)
    _verify(graphs, photos, wanted)
    return graphs


def difference(found: Tensor, wanted: Tensor, all_wanted: Tensor) -> float:
    """How far logits are off, as a share of how much they vary from photo to photo; NaN where any is.

    The root of the mean square of found - wanted, over that of all_wanted around each class's mean. Of a network that
    says nearly the same of every photo, a tenth of the logits' own size is taken instead.

    Args:
        found: float32 (N, classes); wanted likewise.
        all_wanted: the logits of a representative set of photos, (M, classes).
    """
    spread = (all_wanted - all_wanted.mean(dim=0)).square().mean().sqrt()
    scale = torch.maximum(spread, 0.1 * all_wanted.square().mean().sqrt())
    return float((found - wanted).square().mean().sqrt() / scale)


def sample_photos(count: int, side: int) -> Tensor:
    """uint8 (count, 3, side, side): smooth coloured areas, an edge or two and some grain, the same at every start."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(-60, 315, (count, 3, 6, 6)).astype(np.float32))
    photos = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    for photo in photos:
        top, left = rng.integers(0, side, 2)
        photo[:, top : top + side // 3, left : left + side // 3] = torch.from_numpy(rng.uniform(0, 255, (3, 1, 1)))
    grain = torch.from_numpy(rng.normal(0, 8, photos.shape).astype(np.float32))
    return (photos + grain).clamp(0, 255).to(torch.uint8)


def _verify(graphs: CapturedNetwork, photos: Tensor, wanted: Tensor) -> None:
    """Asks every size twice, by turns and each time about other photos: a graph must not depend on what ran before.

    Raises:
        UserError: one gives something else than the float32 network.
    """
    for turn in range(2):
        for size in SIZES:
            chosen = torch.arange(size, device=photos.device) * (turn + 1) + turn * (SIZES[-1] - size)
            chosen %= len(photos)
            error = difference(graphs(photos[chosen]).clone(), wanted[chosen], wanted)
            if not error <= LIMIT:
                raise UserError(
                    f"the GPU's captured answers to {size} photos differ from the float32 network's by "
                    f"{100 * error:.0f}% of their spread, more than {100 * LIMIT:.0f}%: serve with KENNEL_ENGINE=fp32, "
                    "and report the GPU and its driver"
                )
