"""A loaded network asked in pieces, its answers checked and calibrated. Knows neither requests nor runtimes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kennel.errors import UserError


@dataclass(frozen=True)
class Network:
    """A model on some runtime: `run` maps uint8 (N, 3, S, S), N up to `largest`, to float32 logits (N, classes)."""

    origin: str  # its file, for the reader of a log
    largest: int  # more photos at once gain nothing and cost memory
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Predictor:
    """Photos in, probabilities out."""

    def __init__(self, network: Network, num_classes: int, temperature: float = 1.0) -> None:
        """
        Args:
            temperature: the manifest's, which the logits are divided by.
        """
        self._network = network
        self._num_classes = num_classes
        self._temperature = temperature

    def predict(self, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities, (N, classes), of photos, (N, 3, S, S).

        Raises:
            UserError: the model cannot run, or gives something else than one finite number per photo and class.
        """
        step = self._network.largest
        return np.concatenate([self._part(photos[at : at + step]) for at in range(0, len(photos), step)])

    def _part(self, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            logits = self._network.run(photos)
        except Exception as error:  # each runtime raises a family of its own, straight from Exception
            raise UserError(f"{self._network.origin} cannot run ({short(error)}): export the model again") from error
        wanted = (len(photos), self._num_classes)
        if logits.shape != wanted or not np.isfinite(logits).all():
            what = f"logits {logits.shape}, not {wanted}" if logits.shape != wanted else "numbers that are not finite"
            raise UserError(f"{self._network.origin} gives {what}: export the model again")
        return softmax(logits / self._temperature)


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Each row as probabilities that sum to 1; the largest logit is taken off first, so that none overflows."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def short(error: Exception) -> str:
    """The first line of a runtime's message."""
    return str(error).split("\n", 1)[0][:200] or type(error).__name__
