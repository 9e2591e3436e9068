"""A network on ONNX Runtime, on the CPU."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kennel.errors import UserError
from kennel_serve.inference.predictor import Network, short

_LARGEST = 8


def load(model: Path, threads: int = 1) -> Network:
    """An exported model, fp32 or int8.

    Args:
        threads: one by default, so that N workers keep N cores busy.

    Raises:
        UserError: ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a family of its own, straight from Exception
        raise UserError(f"{model} cannot be loaded ({short(error)}): export the model again") from error

    def run(photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(session.run(["logits"], {"photos": photos})[0])

    return Network(str(model), _LARGEST, run)
