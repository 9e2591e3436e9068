"""The exported model on ONNX Runtime: uint8 photos in, probabilities out. Knows nothing of requests."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kennel.errors import UserError

CHUNK = 8  # photos per run: more gains nothing on a CPU and costs memory


class Predictor:
    """A loaded model; one thread by default, so that N workers keep N cores busy."""

    def __init__(self, model: Path, num_classes: int, threads: int = 1, temperature: float = 1.0) -> None:
        """Load an ONNX file.

        Args:
            temperature: the manifest's, which the logits are divided by.

        Raises:
            UserError: ONNX Runtime cannot load it.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._model = model
        self._num_classes = num_classes
        self._temperature = temperature
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a family of its own, straight from Exception
            raise UserError(f"{model} cannot be loaded ({_short(error)}): export the model again") from error

    def predict(self, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities, (N, classes), of photos, (N, 3, S, S).

        Raises:
            UserError: the model cannot run, or gives something else than one finite number per photo and class.
        """
        return np.concatenate([self._run(photos[at : at + CHUNK]) for at in range(0, len(photos), CHUNK)])

    def _run(self, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            logits = np.asarray(self._session.run(["logits"], {"photos": photos})[0])
        except Exception as error:  # as above
            raise UserError(f"{self._model} cannot run ({_short(error)}): export the model again") from error
        wanted = (len(photos), self._num_classes)
        if logits.shape != wanted or not np.isfinite(logits).all():
            what = f"logits {logits.shape}, not {wanted}" if logits.shape != wanted else "numbers that are not finite"
            raise UserError(f"{self._model} gives {what}: export the model again")
        return softmax(logits / self._temperature)


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Each row as probabilities that sum to 1; the largest logit is taken off first, so that none overflows."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _short(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200] or type(error).__name__
