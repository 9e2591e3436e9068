"""A training job's /opt/ml, as SageMaker lays it out: channels, configuration, checkpoints, environment."""

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from kennel.layout import Layout
from kennel_launch.machine import opt_ml

from ..apis import objects
from ..apis.objects import Mirror
from ..http.account import Account
from ..http.resources import Record
from . import programs

# Member of the request -> the file that the platform writes of it.
_FILES = {
    "CheckpointConfig": "checkpointconfig.json",
    "DebugHookConfig": "debughookconfig.json",
    "ProfilerConfig": "profilerconfig.json",
    "TensorBoardOutputConfig": "tensorboardoutputconfig.json",
}
_LOCAL = {"DebugHookConfig": "output/tensors", "TensorBoardOutputConfig": "output/tensorboard"}


class DownloadError(Exception):
    """A channel did not come; the text is the job's FailureReason."""


def lay_out(account: Account, record: Record) -> Layout:
    """
    Raises:
        DownloadError: a channel has nothing, or a kind of source that is not emulated.
    """
    channels = {row["ChannelName"]: row for row in record.get("InputDataConfig", [])}
    base = account.folder / record["TrainingJobName"]
    layout = opt_ml.lay_out(base, dict.fromkeys(channels, base), record.get("HyperParameters", {}), [programs.HOST])
    rows = {name: _row(row, record) for name, row in channels.items()}
    (layout.config / "inputdataconfig.json").write_text(json.dumps(rows))
    for member, file in _FILES.items():
        if member in record:
            local = {"LocalPath": str(base / _LOCAL[member])} if member in _LOCAL else {}
            (layout.config / file).write_text(json.dumps(record[member] | local))
    for row in channels.values():
        _fetch(account, record, row, layout)
    mirror = checkpoints(account, record, layout)
    if mirror:
        mirror.restore()
    return layout


def checkpoints(account: Account, record: Record, layout: Layout) -> Mirror | None:
    """Copied both ways where the job has a configuration for it."""
    config = record.get("CheckpointConfig")
    return Mirror(account, layout.checkpoints, config["S3Uri"]) if config else None


def environment(record: Record) -> dict[str, str]:
    """What the platform sets, and the job's own."""
    given: Mapping[str, str] = record.get("Environment", {})
    return {
        "SAGEMAKER_TRAINING_MODULE": "kennel_train.job:main",
        "USE_SMDEBUG": "0",  # as in the image
        "PYTHONUNBUFFERED": "1",
        "TRAINING_JOB_NAME": record["TrainingJobName"],
        "TRAINING_JOB_ARN": record["TrainingJobArn"],
        **given,
    }


def _row(channel: Record, record: Record) -> dict[str, Any]:
    source = channel["DataSource"].get("S3DataSource", {})
    return {
        "TrainingInputMode": channel.get("InputMode", record["AlgorithmSpecification"]["TrainingInputMode"]),
        "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
    }


def _fetch(account: Account, record: Record, channel: Record, layout: Layout) -> None:
    name = channel["ChannelName"]
    source = channel["DataSource"].get("S3DataSource", {})
    kind = source.get("S3DataType", "a file system")
    mode = channel.get("InputMode", record["AlgorithmSpecification"]["TrainingInputMode"])
    if kind == "AugmentedManifestFile" and channel.get("RecordWrapperType") == "RecordIO":
        layout.data.mkdir(parents=True, exist_ok=True)
        (layout.data / f"{name}_0").write_bytes(b"".join(_records(account, source)))
        return
    if kind != "S3Prefix" or mode == "Pipe":
        raise DownloadError(f"ClientError: the emulated SageMaker has no {mode} mode of {kind} (channel {name})")
    if not objects.download(account, source["S3Uri"], layout.data / name):
        raise DownloadError(
            f"ClientError: Data download failed:No S3 objects found under S3 URL {source['S3Uri']} given in input data "
            f"source of channel {name}"
        )


def _records(account: Account, source: Record) -> Iterator[bytes]:
    """What Pipe mode streams of an augmented manifest: a record an attribute, `-ref` as the file's bytes."""
    for line in (objects.read_url(account, source["S3Uri"]) or b"").splitlines():
        row = json.loads(line)
        for name in source["AttributeNames"]:
            body = objects.read_url(account, row[name]) if name.endswith("-ref") else json.dumps(row[name]).encode()
            if body is None:
                raise DownloadError(f"ClientError: Data download failed: {row[name]} does not exist")
            yield struct.pack("<II", 0xCED7230A, len(body)) + body + bytes(-len(body) % 4)
