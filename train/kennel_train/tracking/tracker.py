"""What of a job is logged to a tracking server while it runs; nothing, where none is named.

MLflow is imported only where one is named: that takes two seconds and 80 MB.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kennel.hyperparameters import Hyperparameters
from kennel.layout import Layout
from kennel.search.trials import TrialRow
from kennel_train.contract import failure
from kennel_train.measure.history import EpochRow

log = logging.getLogger("kennel")
EXPERIMENT = "kennel"
# MLflow's own variables, where the user has set none: a server that does not answer is given up after half a minute,
# and not after an hour; nothing is sent to MLflow's makers; a folder is a server, too.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class Destination:
    """Where a run goes, and what it is called there."""

    uri: str  # of the tracking server; may hold a password
    experiment: str
    name: str  # of the run: the job's
    run_id: str  # of a run that is there already, or ""
    tags: Mapping[str, str]
    secrets: tuple[str, ...]  # no log shows them

    @classmethod
    def find(cls, hp: Hyperparameters, environ: Mapping[str, str]) -> "Destination | None":
        """By the hyperparameters, else by MLflow's own variables; None: the job is not tracked."""
        uri = hp.mlflow or environ.get("MLFLOW_TRACKING_URI", "").strip()
        if not uri:
            return None
        tags = {"mlflow.source.type": "JOB", "mlflow.source.name": "kennel"}
        for name in ("TRAINING_JOB_NAME", "TRAINING_JOB_ARN"):
            if environ.get(name):
                tags[f"sagemaker.{name.lower()}"] = environ[name]
        return cls(
            uri,
            hp.mlflow_experiment or environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT,
            environ.get("TRAINING_JOB_NAME") or "kennel",
            environ.get("MLFLOW_RUN_ID", ""),
            tags,
            tuple(environ[name] for name in _SECRETS if environ.get(name, "").strip()),
        )


class Tracker:
    """A tracker that sends nothing. Called in this order; no call waits for a network, but `end`."""

    def parameters(self, hp: Hyperparameters) -> None:
        """The job's settings, as it trains with them."""

    def epoch(self, row: EpochRow) -> None:
        """An epoch is closed; one that was logged before, as after a restart, changes nothing."""

    def trial(self, row: TrialRow) -> None:
        """A trial of a search has ended; one that was logged before changes nothing."""

    def model(self, metrics: Mapping[str, Any]) -> None:
        """The model is written; `metrics` are its manifest's."""

    def end(self, status: str, reason: str = "") -> None:
        """The job has ended: FINISHED, FAILED for a reason, or KILLED by SIGTERM; waits a bounded time."""


@contextmanager
def tracking(destination: Destination | None, layout: Layout, stopped: Callable[[], bool]) -> Iterator[Tracker]:
    """The tracker of a job, from here to its end, however it ends.

    Args:
        stopped: whether SIGTERM has come.
    """
    tracker = _open(destination, layout, stopped) if destination else Tracker()
    try:
        yield tracker
    except BaseException as error:
        tracker.end("FAILED", failure.describe(error).splitlines()[0])
        raise
    tracker.end("KILLED" if stopped() else "FINISHED")


def _open(destination: Destination, layout: Layout, stopped: Callable[[], bool]) -> Tracker:
    try:
        from kennel_train.tracking.mlflow_run import MlflowRun

        return MlflowRun(destination, layout, stopped)
    except ImportError as error:
        log.warning("warning: MLflow: %s: install mlflow-skinny; the job goes on without it", error)
        return Tracker()
