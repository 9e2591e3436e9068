"""What the tests of the emulated AWS ask it for, and how they wait for what comes of it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from .client import Aws
from .runners import pictures

PATIENCE = 240  # seconds before a test calls a job hung


def caller(aws: Aws, service: str) -> Any:
    """A client as the commands have it, recorded and judged; it sends what botocore itself would refuse, too."""
    keys = {"aws_access_key_id": "someone", "aws_secret_access_key": "something"}
    config = Config(parameter_validation=False, retries={"max_attempts": 0})
    return boto3.session.Session().client(service, region_name=aws.region, endpoint_url=aws.url, config=config, **keys)


def job(aws: Aws, name: str = "job", **changes: Any) -> dict[str, Any]:
    """A CreateTrainingJob request that AWS would take."""
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{aws.bucket}/photos/train"}
    request = {
        "TrainingJobName": name,
        "RoleArn": aws.role,
        "AlgorithmSpecification": {
            "TrainingImage": aws.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "validation:accuracy", "Regex": r"validation:accuracy=([-+.0-9e]+)"}],
        },
        "HyperParameters": pictures.TINY,
        "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": f"s3://{aws.bucket}/out"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
    return {key: value for key, value in (request | changes).items() if value is not None}


def put_photos(aws: Aws, tmp_path: Path, counts: dict[str, int]) -> None:
    root = pictures.photos(tmp_path / "photos", counts)
    for path in root.rglob("*.png"):
        key = f"photos/{path.relative_to(root).as_posix()}"
        aws.client("s3").put_object(Bucket=aws.bucket, Key=key, Body=path.read_bytes())


def put(aws: Aws, key: str, body: bytes) -> None:
    aws.client("s3").put_object(Bucket=aws.bucket, Key=key, Body=body)


def keys(aws: Aws, prefix: str) -> list[str]:
    rows = aws.client("s3").list_objects_v2(Bucket=aws.bucket, Prefix=prefix).get("Contents", [])
    return [row["Key"] for row in rows]


def appears(aws: Aws, url: str) -> bytes:
    """An object that is written in a while."""
    key, end = url.removeprefix(f"s3://{aws.bucket}/"), time.monotonic() + PATIENCE
    while not keys(aws, key):
        assert time.monotonic() < end, url
        time.sleep(0.1)
    body: bytes = aws.client("s3").get_object(Bucket=aws.bucket, Key=key)["Body"].read()
    return body


def wait(describe: Callable[[], dict[str, Any]], member: str, *busy: str) -> dict[str, Any]:
    """What it shows when it is none of the busy statuses any more."""
    end = time.monotonic() + PATIENCE
    while (found := describe())[member] in busy:
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


def ended(aws: Aws, name: str) -> dict[str, Any]:
    sagemaker = aws.client("sagemaker")
    return wait(
        lambda: sagemaker.describe_training_job(TrainingJobName=name), "TrainingJobStatus", "InProgress", "Stopping"
    )


def log(aws: Aws, group: str, start: str = "") -> str:
    """All that the streams of a group say whose names begin so."""
    logs, lines = aws.client("logs"), []
    for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]:
        if stream["logStreamName"].startswith(start):
            page = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
            lines += [event["message"] for event in page["events"]]
    return "\n".join(lines)


def refused(call: Callable[..., Any], **params: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]
