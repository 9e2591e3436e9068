"""Which runtime predicts: int8 or fp32 on ONNX Runtime, torch where there is a GPU. Chosen once, by the server.

A runtime is imported when it is loaded and not before: a worker on a CPU never imports torch.
"""

import importlib.util
from pathlib import Path

from kennel.artifact import Manifest
from kennel.errors import UserError
from kennel.layout import INT8, ONNX, WEIGHTS
from kennel_serve.inference import model_folder
from kennel_serve.inference.predictor import Network

AUTO = "auto"
NONE = "none"  # no model of ours, but a user's own
FILES = {"int8": INT8, "fp32": ONNX, "torch": WEIGHTS}  # engine -> the file of the model folder that it loads


def choose(manifest: Manifest, wish: str, gpus: int) -> str:
    """The engine for a model: the one that is asked for, else the fastest that it and the machine have.

    Args:
        wish: one of `FILES`, or "auto".
        gpus: how many the container sees.

    Raises:
        UserError: the model or the image lacks what the wish needs.
    """
    has_torch = importlib.util.find_spec("torch") is not None
    if wish == AUTO:
        if gpus and has_torch and WEIGHTS in manifest.files:
            return "torch"
        return "int8" if INT8 in manifest.files else "fp32"
    if FILES[wish] not in manifest.files:
        reason = f" ({manifest.int8['reason']})" if wish == "int8" and manifest.int8.get("reason") else ""
        raise UserError(f"KENNEL_ENGINE={wish}: the model has no {FILES[wish]}{reason}: leave it out, or train again")
    if wish == "torch" and not has_torch:
        raise UserError("KENNEL_ENGINE=torch: this image has no torch: use the full image, or leave it out")
    return wish


def file(engine: str, folder: Path) -> Path:
    return folder / FILES[engine]


def size(engine: str, folder: Path) -> int:
    """The bytes of what a worker loads; those that a user's code loads are unknown."""
    return model_folder.size(folder) if engine == NONE else file(engine, folder).stat().st_size


def load(
    engine: str, folder: Path, backbone: str, image_size: int, num_classes: int, gpu: int | None = None
) -> Network:
    """Load the engine's file of a model folder.

    Args:
        gpu: which one, for torch; None: the first, or the CPU where there is none.

    Raises:
        UserError: the runtime cannot load it.
    """
    if engine == "torch":
        from kennel_serve.inference import torch_network

        return torch_network.load(file(engine, folder), backbone, image_size, num_classes, gpu)
    from kennel_serve.inference import onnx_network

    return onnx_network.load(file(engine, folder))
