"""SageMaker's training contract: environment and signals in, failure file and exit code out.

The one place of the training side that reads the environment, and the one boundary that catches everything. Torch is
imported late: it takes seconds, in which SIGTERM must already be heard and which a user's script need not wait for.
"""

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sagemaker_training.errors import ClientError

from kennel import hyperparameters
from kennel.layout import Layout
from kennel_train import failure, hooks

if TYPE_CHECKING:
    from kennel_train.cluster import Cluster


class JobFailedError(ClientError):  # type: ignore[misc]
    """What the toolkit is given to end a job with exit code 1; the failure file is already written."""


class Stop:
    """Whether SIGTERM has come: SageMaker stops a job so, and kills it 120 s later."""

    def __init__(self) -> None:
        self.at = float("inf")  # on the monotonic clock
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, *_: object) -> None:
        self.at = min(self.at, time.monotonic())
        logging.getLogger("kennel").info("stopping: SIGTERM came")
        if "torch.distributed.launcher" in sys.modules:
            from kennel_train import ranks

            ranks.terminate()

    def __call__(self) -> bool:
        return self.at != float("inf")

    def ago(self, seconds: float) -> bool:
        """Whether it came so many seconds ago."""
        return time.monotonic() - self.at >= seconds


def main() -> None:
    """What the toolkit's `train` calls (SAGEMAKER_TRAINING_MODULE=kennel_train.job:main).

    Raises:
        JobFailedError: after any exception, SystemExit and KeyboardInterrupt included: the toolkit alone would call a
            `sys.exit` "Completed".
    """
    stop = Stop()
    _log_to_stdout(logging.INFO)
    layout = _layout()
    try:
        _run(layout, stop)
    except BaseException as error:  # noqa: BLE001 - the contract's boundary: nothing may pass as "Completed"
        text = failure.describe(error)
        failure.write(layout.failure, text)
        # What a script or another process printed is in the log already.
        raise JobFailedError(text.splitlines()[0] if isinstance(error, failure.ScriptError) else text) from None


def _run(layout: Layout, stop: Stop) -> None:
    """A user's script where one was sent, else this image's own training, in as many processes as there are GPUs."""
    program = hooks.fetch(hyperparameters.load(layout.hyperparameters), layout.code)
    if program and not hooks.is_hook(layout.code / program):
        from kennel_train import script

        script.run(program, layout, stop)
        return
    from kennel_train import ranks
    from kennel_train.cluster import Cluster

    machines = ranks.machines(layout)
    if machines.processes > 1:
        ranks.launch(machines, "kennel_train.job")
    else:
        _train(layout, stop, Cluster())


def _train(layout: Layout, stop: Stop, cluster: "Cluster") -> None:
    from kennel_train import training

    weights = os.environ.get("KENNEL_WEIGHTS")
    training.run(
        layout,
        stop,
        weights=Path(weights) if weights else None,
        compat=os.environ.get("KENNEL_CUDA_COMPAT_CHOICE", ""),
        name=os.environ.get("TRAINING_JOB_NAME", "kennel"),
        cluster=cluster,
    )


def _rank() -> int:
    """One process of several, started by `ranks.launch`; its exit code."""
    stop = Stop()
    from kennel_train import ranks
    from kennel_train.cluster import Cluster

    try:
        cluster = Cluster.join()
        _log_to_stdout(logging.INFO if cluster.leads else logging.WARNING)
        _train(_layout(), stop, cluster)
        cluster.leave()
    except BaseException as error:  # noqa: BLE001 - the launcher is to hear the reason, whatever it is
        ranks.leave_reason(failure.describe(error), error)
        return 1
    return 0


def _layout() -> Layout:
    return Layout(Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")))


def _log_to_stdout(level: int) -> None:
    """Lines as they are, at once: SageMaker's metric regexes read stdout."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("kennel")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
    for chatty in ("onnx_ir", "onnxscript", "torch.onnx"):  # the exporter tells every constant that it merges
        logging.getLogger(chatty).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(_rank())
