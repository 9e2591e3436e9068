"""A training job: the real `train` on a laid-out /opt/ml, from Downloading to Completed, Failed or Stopped."""

import re
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from kennel.layout import Layout
from kennel_launch.local_mode.command_lines import TRAINING_GRACE
from kennel_launch.machine import processes

from ..apis import objects
from ..apis.logs import TRAINING, Stream
from ..http.account import Account
from ..http.resources import Record, now
from . import opt_ml, programs

_INTERRUPTED = "Interrupted"
_POLL = 0.2  # seconds
_SYNC = 1.0  # seconds between looks at the checkpoints
_REASON = 1024  # characters that SageMaker keeps
_DAY = 86400  # the default of MaxRuntimeInSeconds


def start(account: Account, record: Record) -> None:
    """In the background."""
    name = record["TrainingJobName"]
    account.stops[name] = threading.Event()
    account.background.start(lambda: run(account, record), f"training job {name}")


def run(account: Account, record: Record) -> None:
    """The whole job; its record says what became of it."""
    try:
        _run(account, record)
    except Exception as error:
        if not account.background.closing.is_set():
            _conclude(account, record, "Failed", f"InternalServerError: the emulated SageMaker failed: {error!r}")
            raise


def _run(account: Account, record: Record) -> None:
    if not programs.executable("train").is_file():
        _conclude(account, record, "Failed", f"InternalServerError: there is no {programs.executable('train')}")
        return
    why = _INTERRUPTED
    while why == _INTERRUPTED:
        _enter(account, record, "Downloading", "Downloading input data")
        try:
            layout = opt_ml.lay_out(account, record)
        except opt_ml.DownloadError as error:
            _conclude(account, record, "Failed", str(error))
            return
        account.store.change(record, TrainingStartTime=record.get("TrainingStartTime", now()))
        _enter(account, record, "Training", "Training image download completed. Training in progress.")
        code, why = _train(account, record, layout)
        if account.background.closing.is_set():
            return
    account.store.change(record, TrainingEndTime=now())
    _enter(account, record, "Uploading", "Uploading generated training model")
    _upload(account, record, layout, good=why != "" or code == 0)
    if why:
        _conclude(account, record, "Stopped", secondary=why)
    elif code:
        reason = layout.failure.read_text(errors="replace")[:_REASON] if layout.failure.is_file() else ""
        _conclude(account, record, "Failed", f"AlgorithmError: {reason}, exit code: {code}"[:_REASON])
    else:
        _conclude(account, record, "Completed")


def _train(account: Account, record: Record, layout: Layout) -> tuple[int, str]:
    """(exit code, why it was stopped from outside: a secondary status, or nothing)."""
    log = layout.base.with_name(layout.base.name + ".log")
    stream = Stream(account, TRAINING, f"{record['TrainingJobName']}/algo-1-{int(time.time())}", log)
    mirror = opt_ml.checkpoints(account, record, layout)
    limit = time.monotonic() + record.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", _DAY)
    stop, why, synced = account.stops[record["TrainingJobName"]], "", 0.0
    run = programs.run(account, "train", layout.base, TRAINING_GRACE, opt_ml.environment(record))
    with processes.started(run, log) as process:
        while process.poll() is None:
            _metrics(account, record, stream.pump())
            if account.background.closing.is_set():
                programs.kill(layout.base)
            elif not why and (why := _end(account, record, stop.is_set(), time.monotonic() > limit)):
                process.terminate()
            if mirror and time.monotonic() - synced > _SYNC:
                mirror.push()
                synced = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)
    if not account.background.closing.is_set():
        _metrics(account, record, stream.pump(ended=True))
        if mirror:
            mirror.push()
    return process.returncode, why


def _end(account: Account, record: Record, stopped: bool, late: bool) -> str:
    """The secondary status by which a job that runs is to end, if it is."""
    name = record["TrainingJobName"]
    if stopped or late:
        account.store.change(record, TrainingJobStatus="Stopping")
        _enter(account, record, "Stopping", "Stopping the training job")
        return "Stopped" if stopped else "MaxRuntimeExceeded"
    if name in account.interrupted:
        account.interrupted.remove(name)
        _enter(account, record, _INTERRUPTED, "The instance was taken away, the job waits for another")
        return _INTERRUPTED
    return ""


def _metrics(account: Account, record: Record, lines: list[str]) -> None:
    """The last value of each metric that a regex finds, as AMT and FinalMetricDataList take it."""
    definitions = record["AlgorithmSpecification"].get("MetricDefinitions", [])
    found = {row["MetricName"]: row for row in record.get("FinalMetricDataList", [])}
    for line in lines:
        for definition in definitions:
            for match in re.finditer(definition["Regex"], line):
                with suppress(ValueError, IndexError):
                    value = float(match[1])
                    name = definition["Name"]
                    found[name] = {"MetricName": name, "Value": value, "Timestamp": now()}
    if found:
        account.store.change(record, FinalMetricDataList=list(found.values()))


def _upload(account: Account, record: Record, layout: Layout, good: bool) -> None:
    url = _output_url(record)
    plain = record["OutputDataConfig"].get("CompressionType") == "NONE"
    for folder, name, wanted in ((layout.model, "model", good), (layout.output_data, "output", True)):
        if not wanted or not _holds(folder):
            continue
        if plain:
            objects.upload_tree(account, folder, f"{url}/{'data' if name == 'output' else name}/")
        else:
            objects.upload_packed(account, folder, f"{url}/{name}.tar.gz")
    tensorboard = record.get("TensorBoardOutputConfig")
    if tensorboard and _holds(layout.base / "output" / "tensorboard"):
        objects.upload_tree(account, layout.base / "output" / "tensorboard", tensorboard["S3OutputPath"])


def model_url(params: Record) -> str:
    """Where a job's model will lie; DescribeTrainingJob says so from the beginning."""
    plain = params["OutputDataConfig"].get("CompressionType") == "NONE"
    return f"{_output_url(params)}/model{'/' if plain else '.tar.gz'}"


def _output_url(params: Record) -> str:
    return f"{params['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{params['TrainingJobName']}/output"


def _holds(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _enter(account: Account, record: Record, status: str, message: str) -> None:
    moment = now()
    transitions: list[dict[str, Any]] = list(record.get("SecondaryStatusTransitions", []))
    if transitions:
        transitions[-1] = transitions[-1] | {"EndTime": moment}
    transitions.append({"Status": status, "StartTime": moment, "StatusMessage": message})
    account.store.change(record, SecondaryStatus=status, SecondaryStatusTransitions=transitions)


def _conclude(account: Account, record: Record, status: str, reason: str = "", secondary: str = "") -> None:
    _enter(account, record, secondary or status, reason or f"Training job {status.lower()}")
    members: dict[str, Any] = {"FailureReason": reason} if reason else {}
    if "TrainingStartTime" in record:
        end = record.setdefault("TrainingEndTime", now())
        seconds = max(1, round((end - record["TrainingStartTime"]).total_seconds()))
        members |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
    else:
        members["TrainingEndTime"] = now()
    account.store.change(record, **members, TrainingJobStatus=status)
