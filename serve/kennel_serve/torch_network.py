"""A network on torch, for a GPU: bf16 (fp16 before Ampere), channels_last, one CUDA graph for each batch size.

The only module that imports torch, and it is imported only when the engine is torch. A CUDA graph replays a whole
forward pass with one launch; torch.compile would need a C compiler, which the image does not have.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from kennel import backbones
from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel_serve.predictor import Network, short

SIZES = (1, 2, 4, 8, 16, 32)  # a batch is filled up to the next of these
_Forward = Callable[[Tensor], Tensor]


def load(weights: Path, backbone: str, image_size: int, num_classes: int, gpu: int | None = None) -> Network:
    """The trained weights in their backbone.

    Args:
        gpu: which one; None: the first, or the CPU where there is none.

    Raises:
        UserError: the weights do not fit the backbone of that name as this version builds it.
    """
    device = torch.device(f"cuda:{gpu or 0}" if torch.cuda.is_available() else "cpu")
    classifier = Classifier(backbones.load(backbone, image_size, False, None, None), num_classes)
    try:
        classifier.load_state_dict(safetensors.torch.load_file(weights))
    except Exception as error:  # a torn file, or tensors of another network
        raise UserError(f"{weights} cannot be loaded ({short(error)}): train the model again") from error
    classifier.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cpu":
        torch.set_num_threads(1)
        forward: _Forward = _eager(classifier)
    else:
        forward = _graphs(classifier, image_size, device)

    def run(photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = next(size for size in SIZES if size >= len(photos))
        batch = torch.zeros((size, *photos.shape[1:]), dtype=torch.uint8)
        batch[: len(photos)] = torch.from_numpy(photos)
        logits: NDArray[np.float32] = forward(batch)[: len(photos)].float().cpu().numpy()
        return logits

    return Network(str(weights), SIZES[-1], run)


def _eager(classifier: Classifier) -> _Forward:
    @torch.inference_mode()
    def forward(photos: Tensor) -> Tensor:
        logits: Tensor = classifier(photos)
        return logits

    return forward


def _graphs(classifier: Classifier, side: int, device: torch.device) -> _Forward:
    """A graph for each of `SIZES`, captured now, so that no client waits for it."""
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    captured: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    @torch.inference_mode()
    def capture(size: int) -> None:
        photos = torch.zeros((size, 3, side, side), dtype=torch.uint8, device=device)
        with torch.autocast("cuda", dtype):
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):  # kernels are chosen and memory taken before the capture
                for _ in range(3):
                    classifier(photos)
            torch.cuda.current_stream(device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = classifier(photos)
        captured[size] = graph, photos, logits

    with torch.cuda.device(device):
        for size in reversed(SIZES):  # the largest first: the others fit into its memory
            capture(size)

    def forward(photos: Tensor) -> Tensor:
        graph, taken, logits = captured[len(photos)]
        taken.copy_(photos)
        graph.replay()
        return logits

    return forward
