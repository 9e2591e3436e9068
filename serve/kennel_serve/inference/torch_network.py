"""A network on torch: captured as CUDA graphs on a GPU, eager on a CPU. It is imported only when the engine is torch.

A CUDA graph replays a whole forward pass with one launch; torch.compile would need a C compiler, which the image does
not have.
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
from kennel_serve.inference import cuda_graphs
from kennel_serve.inference.predictor import Network, short


def load(weights: Path, backbone: str, image_size: int, num_classes: int, gpu: int | None = None) -> Network:
    """The trained weights in their backbone.

    Args:
        gpu: which one; None: the first, or the CPU where there is none.

    Raises:
        UserError: the weights do not fit the backbone of that name as this version builds it, or a GPU's captured
            answers differ from the float32 network's.
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
        forward = _eager(classifier)
    else:
        with torch.cuda.device(device):
            half = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
            forward = cuda_graphs.captured(classifier, image_size, half, cuda_graphs.cuda_capture(device))

    def run(photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = next(size for size in cuda_graphs.SIZES if size >= len(photos))
        batch = torch.zeros((size, *photos.shape[1:]), dtype=torch.uint8)
        batch[: len(photos)] = torch.from_numpy(photos)
        logits: NDArray[np.float32] = forward(batch)[: len(photos)].cpu().numpy()
        return logits

    return Network(str(weights), cuda_graphs.SIZES[-1], run)


def _eager(classifier: Classifier) -> Callable[[Tensor], Tensor]:
    @torch.inference_mode()
    def forward(photos: Tensor) -> Tensor:
        logits: Tensor = classifier(photos)
        return logits

    return forward
