"""SageMaker's training contract: environment and signals in, failure file and exit code out.

The one place of the training side that reads the environment, and the one boundary that catches everything. Torch is
imported late: it takes seconds, in which SIGTERM must already be heard and which a user's script need not wait for.
"""

import atexit
import contextlib
import functools
import gc
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sagemaker_training.errors import ClientError

from kennel import files, hyperparameters
from kennel.layout import Layout
from kennel_train.contract import failure, user_hook
from kennel_train.contract.config import JobConfig

if TYPE_CHECKING:
    from kennel_train.distributed.cluster import Cluster


class JobFailedError(ClientError):  # type: ignore[misc]
    """What the toolkit is given to end a job with exit code 1; the failure file is already written."""


class Stop:
    """Whether SIGTERM has come: SageMaker stops a job so, and kills it 120 s later."""

    def __init__(self) -> None:
        self.at = float("inf")  # on the monotonic clock
        signal.signal(signal.SIGTERM, self._request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # a rank is started with it blocked

    def _request(self, *_: object) -> None:
        self.at = min(self.at, time.monotonic())
        logging.getLogger("kennel").info("stopping: SIGTERM came")

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
    atexit.register(gc.freeze)  # Python's own end looks at a million objects that go with the process: 1.3 s
    try:
        _run(layout, stop)
    except BaseException as error:  # noqa: BLE001 - the contract's boundary: nothing may pass as "Completed"
        text = failure.describe(error)
        if not (isinstance(error, failure.ScriptError) and layout.failure.exists()):  # a script's own word stays
            files.put(layout.failure, text)
        # What a script or another process printed is in the log already.
        raise JobFailedError(text.splitlines()[0] if isinstance(error, failure.ScriptError) else text) from None


def _run(layout: Layout, stop: Stop) -> None:
    """A user's script where one was sent, else this image's own training, in as many processes as there are GPUs."""
    given = hyperparameters.load(layout.hyperparameters)
    program = user_hook.fetch(given, layout.code)
    if program and not user_hook.find(given, layout):
        from kennel_train.contract import user_script

        user_script.run(program, layout, stop)
        return
    # A lost connection is a page of C++ frames otherwise. Torch reads it once, when imported; the ranks inherit it.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with _importing():
        from kennel_train.data import pipe_mode
        from kennel_train.distributed import launcher
        from kennel_train.distributed.cluster import Cluster

    config = JobConfig.read(layout)  # before a stream is read, which takes as long as its photos
    machines = launcher.machines(layout)
    say = logging.getLogger("kennel").info
    with tempfile.TemporaryDirectory(prefix="kennel-") as scratch:
        if machines.processes == 1:
            _train(config, layout, pipe_mode.spool(layout.config, layout.data, Path(scratch), say), stop, Cluster())
            return
        with machines.meet() as hosts:
            root = pipe_mode.spool(layout.config, layout.data, Path(scratch), say)  # a stream can be read once only
            launcher.launch(machines, hosts, "kennel_train.job", {"KENNEL_DATA": str(root)}, stop)


def _train(config: JobConfig, layout: Layout, root: Path, stop: Stop, cluster: "Cluster") -> None:
    with _importing():
        from kennel_train import training
        from kennel_train.context import JobEnvironment
        from kennel_train.tracking import tracker

    if tracked := tracker.Destination.find(config.hp, os.environ):
        for name, value in tracker.DEFAULTS.items():
            os.environ.setdefault(name, value)
    weights = os.environ.get("KENNEL_WEIGHTS")
    # https://docs.aws.amazon.com/sagemaker/latest/dg/train-warm-pools.html, persistent cache
    cache = os.environ.get("SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY")
    environment = JobEnvironment(
        config,
        layout,
        root,
        name=os.environ.get("TRAINING_JOB_NAME", "kennel"),
        weights=Path(weights) if weights else None,
        cuda_compat=os.environ.get("KENNEL_CUDA_COMPAT_CHOICE", ""),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        cache=Path(cache) / "kennel" if cache else None,
        tracked=tracked,
        give_up=functools.partial(_give_up, layout),
    )
    training.run(environment, cluster, stop)


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Without garbage collection: what torch and the others make stays, and each collection goes through all of it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _give_up(layout: Layout, reason: str) -> None:
    """End this process from another thread than the one that stands still, with the reason where it is looked for."""
    if "RANK" in os.environ:
        from kennel_train.distributed import launcher

        launcher.leave_reason(reason, RuntimeError(reason))
    else:
        files.put(layout.failure, reason)
    sys.stdout.flush()
    os._exit(1)


def _rank() -> int:
    """One process of several, started by `launcher.launch`; its exit code."""
    stop = Stop()
    _log_to_stdout(logging.WARNING)
    with _importing():
        from kennel_train.distributed import launcher
        from kennel_train.distributed.cluster import Cluster

    try:
        cluster = Cluster.join()
        if cluster.is_rank_zero:
            _log_to_stdout(logging.INFO)
        layout = _layout()
        _train(JobConfig.read(layout), layout, Path(os.environ["KENNEL_DATA"]), stop, cluster)
        cluster.leave()
    except BaseException as error:  # noqa: BLE001 - the launcher is to hear the reason, whatever it is
        text = failure.describe(error)
        logging.getLogger("kennel").error("process %s failed: %s", os.environ.get("RANK"), text)
        launcher.leave_reason(text, error)
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


if __name__ == "__main__":
    code = _rank()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: while Python takes itself apart a SIGTERM kills it, and gloo's threads now and then abort it.
    os._exit(code)
