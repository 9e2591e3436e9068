"""SageMaker's training contract: environment and signals in, failure file and exit code out.

The one place of the training side that reads the environment, and the one boundary that catches everything.
"""

import logging
import os
import signal
import sys
from pathlib import Path

from sagemaker_training.errors import ClientError

from kennel.layout import Layout
from kennel_train import failure, training


class JobFailedError(ClientError):  # type: ignore[misc]
    """What the toolkit is given to end a job with exit code 1; the failure file is already written."""


class Stop:
    """Whether SIGTERM has come: SageMaker stops a job so, and kills it 120 s later."""

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, *_: object) -> None:
        self.requested = True
        logging.getLogger("kennel").info("stopping: SIGTERM came; the best epoch so far becomes the model")

    def __call__(self) -> bool:
        return self.requested


def main() -> None:
    """What the toolkit's `train` calls (SAGEMAKER_TRAINING_MODULE=kennel_train.job:main).

    Raises:
        JobFailedError: after any exception, SystemExit and KeyboardInterrupt included: the toolkit alone would call a
            `sys.exit` "Completed".
    """
    stop = Stop()
    _log_to_stdout()
    layout = Layout(Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")))
    weights = os.environ.get("KENNEL_WEIGHTS")
    try:
        training.run(layout, stop, Path(weights) if weights else None, os.environ.get("KENNEL_CUDA_COMPAT_CHOICE", ""))
    except BaseException as error:  # noqa: BLE001 - the contract's boundary: nothing may pass as "Completed"
        text = failure.describe(error)
        failure.write(layout.failure, text)
        raise JobFailedError(text) from None


def _log_to_stdout() -> None:
    """Lines as they are, at once: SageMaker's metric regexes read stdout."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("kennel")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for chatty in ("onnx_ir", "onnxscript", "torch.onnx"):  # the exporter tells every constant that it merges
        logging.getLogger(chatty).setLevel(logging.ERROR)
