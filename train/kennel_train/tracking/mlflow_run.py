"""One run in MLflow, sent by a thread of its own: the training never waits for a server, and none can fail it.

What the server did not take is kept and sent again, with all that has come since, until the job's end. The run's id
lies among the checkpoints, so that a job that is started again goes on with its run.
"""

import dataclasses
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import requests
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from kennel import files, mlflow_uri
from kennel.hyperparameters import OF_TRACKING, Hyperparameters, text
from kennel.layout import MANIFEST, Layout
from kennel.search.trials import TrialRow
from kennel_train.measure.history import EpochRow
from kennel_train.tracking.tracker import Destination, Tracker

log = logging.getLogger("kennel")
FILE = "mlflow.json"  # among the checkpoints
AGAIN = 30.0  # seconds between attempts at a server that did not answer
LATE = 20.0  # seconds that a stopped job waits for it at its end: SageMaker kills it 120 s after SIGTERM
_PATIENCE = 90.0  # seconds that another one does, and
_SLOWEST = 1e6  # bytes/s, of its files
_AT_ONCE = 1000  # metrics of one request (MLflow's REST API, "Log Batch", 2026-11)
_STATES = {"complete": "FINISHED", "same": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}  # of trials
_NOTE = "mlflow.note.content"  # the tag that MLflow shows as a run's description

Send = Callable[[], None]


@dataclasses.dataclass
class _Sent:
    """What of a job is in MLflow already, as the file says it."""

    uri: str
    run_id: str = ""
    experiment_id: str = ""
    epoch: int = 0  # the last one
    trials: list[int] = dataclasses.field(default_factory=list)


class MlflowRun(Tracker):
    """A job's run; rank 0's."""

    def __init__(self, destination: Destination, layout: Layout, stopped: Callable[[], bool]) -> None:
        for name in ("mlflow", "urllib3.connectionpool", "urllib3.util.retry"):
            logging.getLogger(name).setLevel(logging.ERROR)  # their warnings, one an attempt: ours is one in all
        self._to, self._layout, self._stopped = destination, layout, stopped
        self._file = layout.checkpoints / FILE
        self._sent = self._read()
        self._rows: list[tuple[int, EpochRow]] = []  # (ms, row) of the epochs that are not sent yet
        self._children: dict[int, str] = {}  # trials whose run is made
        self._client: Any = None
        self._open = self._has_model = self._warned = False
        self._todo: deque[tuple[str, Send]] = deque()
        self._lost: list[tuple[str, Send]] = []  # what was not taken at the end
        self._new, self._ending = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._put("the run", lambda: None)
        self._thread.start()

    def parameters(self, hp: Hyperparameters) -> None:
        values = {name: text(value) for name, value in dataclasses.asdict(hp).items() if name not in OF_TRACKING}
        self._put("the settings", lambda: self._send_parameters(values))

    def epoch(self, row: EpochRow) -> None:
        with self._new:
            self._rows.append((_now(), row))
            waiting = len(self._rows) > 1  # for the request that will take this one along
        if not waiting:
            self._put("metrics of epochs", self._send_epochs)

    def trial(self, row: TrialRow) -> None:
        self._put(f"trial {row['number']}", lambda: self._send_trial(row))

    def model(self, metrics: Mapping[str, Any]) -> None:
        self._has_model = True
        step, now = int(metrics["epoch"]), _now()
        values = [Metric(_of_model(key), float(value), now, step) for key, value in metrics.items()]
        self._put("the model's metrics", lambda: self._log(self._sent.run_id, values))

    def end(self, status: str, reason: str = "") -> None:
        if self._ending:
            return
        late, paths = self._stopped(), self._files()
        last = [("files", lambda: self._send_files(paths)), ("the end", lambda: self._send_end(status, reason))]
        for what, send in reversed(last) if late else last:
            self._put(what, send)
        with self._new:
            self._ending = True
            self._new.notify()
        size = sum(path.stat().st_size for path, _ in paths)
        self._thread.join(LATE if late else _PATIENCE + size / _SLOWEST)
        with self._new:
            left = dict.fromkeys(what for what, _ in [*self._lost, *self._todo])
        if left:
            log.info("mlflow: not sent: %s", ", ".join(left))

    def _put(self, what: str, send: Send) -> None:
        with self._new:
            self._todo.append((what, send))
            self._new.notify()

    def _work(self) -> None:
        """Send in turn what there is to send; at the job's end each thing once, until two in a row are not taken."""
        failed = 0
        while True:
            with self._new:
                self._new.wait_for(lambda: self._todo or self._ending)
                if not self._todo or (self._ending and failed > int(self._open)):  # one, of a server never seen
                    return
                (what, send), ending = self._todo[0], self._ending
            try:
                self._connect()
                send()
                failed = 0
            except Exception as error:  # noqa: BLE001 - whatever MLflow raises: the job has nothing to do with it
                self._warn(error)
                if not ending:
                    with self._new:
                        self._todo.rotate(-1)  # what this server will never take holds up nothing else
                        self._new.wait_for(lambda: self._ending, AGAIN)
                    continue
                failed += 1
                self._lost.append((what, send))
            with self._new:
                self._todo.popleft()

    def _connect(self) -> None:
        """The run, as it was or new."""
        if self._open:
            return
        mlflow.set_tracking_uri(self._to.uri)  # SageMaker's plugin signs for the server that is named so
        self._client = MlflowClient(self._to.uri)
        known = self._to.run_id or self._sent.run_id
        found = known and self._run(known)
        if found:
            self._client.update_run(found.info.run_id, status="RUNNING")
            self._log(found.info.run_id, tags=self._to.tags)
        else:
            experiment = self._client.get_experiment_by_name(self._to.experiment)
            where = experiment.experiment_id if experiment else self._client.create_experiment(self._to.experiment)
            found = self._client.create_run(where, tags=dict(self._to.tags), run_name=self._to.name)
        if found.info.run_id != self._sent.run_id:
            self._sent = _Sent(self._sent.uri)
        self._sent.run_id, self._sent.experiment_id = found.info.run_id, found.info.experiment_id
        self._write()
        self._open = True
        where = f"{self._to.experiment}, run {self._sent.run_id}"
        if self._to.uri.startswith("http"):
            page = f"experiments/{self._sent.experiment_id}/runs/{self._sent.run_id}"
            where += f": {self._sent.uri.rstrip('/')}/#/{page}"
        log.info("mlflow: experiment %s", where)

    def _run(self, run_id: str) -> Any:
        """None: the server has no such run any more."""
        try:
            return self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _send_parameters(self, values: Mapping[str, str]) -> None:
        """Those of a run never change: what is there, of an earlier start, stays."""
        there = self._client.get_run(self._sent.run_id).data.params
        self._log(self._sent.run_id, params={key: value for key, value in values.items() if key not in there})

    def _send_epochs(self) -> None:
        with self._new:
            taken = list(self._rows)
        new = {row["epoch"]: (at, row) for at, row in reversed(taken) if row["epoch"] > self._sent.epoch}
        if new:
            self._log(self._sent.run_id, [metric for at, row in new.values() for metric in _metrics(row, at)])
            self._sent.epoch = max(new)
            self._write()
        with self._new:
            del self._rows[: len(taken)]
            if self._rows:  # closed meanwhile
                self._todo.append(("metrics of epochs", self._send_epochs))

    def _send_trial(self, row: TrialRow) -> None:
        number = row["number"]
        if number in self._sent.trials:
            return
        if number not in self._children:
            tags = {"mlflow.parentRunId": self._sent.run_id, "trial.state": row["state"]}
            where, name = self._sent.experiment_id, f"{self._to.name}, trial {number}"
            self._children[number] = self._client.create_run(where, tags=tags, run_name=name).info.run_id
        child, now = self._children[number], _now()
        reason = row["reason"] or (f"as trial {row['same_as']}" if row["same_as"] is not None else "")
        metrics = [metric for point in row["curve"] for metric in _metrics(point, now)]
        best = [Metric(_of_model(key), value, now, row["epoch"] or 0) for key, value in row["metrics"].items()]
        params = {key: text(value) for key, value in row["hyperparameters"].items()}
        self._log(child, [*metrics, *best], params, {_NOTE: reason} if reason else {})
        self._client.set_terminated(child, _STATES[row["state"]])
        self._sent.trials.append(number)
        self._write()

    def _send_files(self, paths: Sequence[tuple[Path, str]]) -> None:
        for path, folder in paths:
            self._client.log_artifact(self._sent.run_id, str(path), folder or None)

    def _send_end(self, status: str, reason: str) -> None:
        if reason:
            self._log(self._sent.run_id, tags={_NOTE: self._masked(reason)})
        self._client.set_terminated(self._sent.run_id, status)

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """All in one request, where there are not too many."""
        more = {
            "params": [Param(key, value) for key, value in (params or {}).items()],
            "tags": [RunTag(key, value) for key, value in (tags or {}).items()],
        }
        for at in range(0, max(len(metrics), 1), _AT_ONCE):
            self._client.log_batch(run_id, metrics=metrics[at : at + _AT_ONCE], **({} if at else more))

    def _files(self) -> list[tuple[Path, str]]:
        """(path, folder of the run) of the report and what lies beside it, and of a model that is whole."""
        found = [(path, "") for path in _sorted(self._layout.output_data) if path.is_file()]
        if self._has_model and (self._layout.model / MANIFEST).is_file():
            found += [(path, "model") for path in _sorted(self._layout.model) if path.is_file()]
        return found

    def _warn(self, error: Exception) -> None:
        """Once: it is tried again and again."""
        if not self._warned:
            said = self._masked(" ".join(str(error).split()) or repr(error))[:300]
            if isinstance(error.__context__, requests.ConnectionError | requests.Timeout):  # a page on connection pools
                said = f"it does not answer ({type(error.__context__).__name__})"
            log.warning(
                "warning: MLflow at %s: %s; the job goes on, and tries again until it ends", self._sent.uri, said
            )
        self._warned = True

    def _masked(self, said: str) -> str:
        for secret in self._to.secrets:
            said = said.replace(secret, "***").replace(secret.strip(), "***")
        return mlflow_uri.shown(said)

    def _read(self) -> _Sent:
        """What an earlier start has sent to the same server."""
        uri = mlflow_uri.shown(self._to.uri)
        try:
            found = _Sent(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return _Sent(uri)
        return found if found.uri == uri else _Sent(uri)

    def _write(self) -> None:
        with suppress(OSError):  # a full disk: a job that is started again then has a second run
            files.put(self._file, json.dumps(dataclasses.asdict(self._sent)))


def _metrics(row: Mapping[str, Any], at: int) -> list[Metric]:
    """Every number of an epoch, at its step, the epoch."""
    numbers: Iterable[tuple[str, Any]] = row.items()
    return [
        Metric(_name(key), float(value), at, row["epoch"])
        for key, value in numbers
        if isinstance(value, int | float) and "epoch" not in key
    ]


def _name(metric: str) -> str:
    """`validation:loss` is validation/loss: MLflow draws a group together, and older servers refuse a colon."""
    return metric.replace(":", "/")


def _of_model(metric: str) -> str:
    """One group: the numbers of the best epoch, not of the last one."""
    return f"model/{metric.replace(':', '_')}"


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _now() -> int:
    """Milliseconds since 1970."""
    return int(1000 * time.time())
