"""A SageMaker pipeline as plain data, as CreatePipeline takes it: train, check the accuracy, register the model.

Its training step is `requests.training_job`'s request, its package `package_requests.request`'s, with variables where
executions may differ. The condition reads the training step's own FinalMetricDataList, so that no processing job is
needed. Field by field what version 2 of SageMaker's SDK writes: tests/launch/jobs/test_pipeline.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kennel import metrics
from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.jobs import requests
from kennel_launch.jobs.requests import Training
from kennel_launch.models import package_requests
from kennel_launch.models.model_packages import APPROVED, PENDING
from kennel_launch.settings import Settings

TRAIN, CHECK, REGISTER, FAIL = "Train", "CheckAccuracy", "Register", "TooInaccurate"
THRESHOLD, INSTANCE_TYPE, APPROVAL = "AccuracyThreshold", "InstanceType", "ModelApprovalStatus"
METRICS = (metrics.VALIDATION_ACCURACY.name, metrics.TEST_ACCURACY.name)
_VERSION = (
    "2020-12-01"  # of the definition's schema: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-build.html
)
_EXECUTION = "Execution.PipelineExecutionId"


@dataclass(frozen=True)
class Registration:
    """Which models are registered, and where."""

    group: str
    threshold: float  # the least accuracy, of 1
    metric: str = METRICS[0]
    approved: bool = False


def definition(settings: Settings, training: Training, registration: Registration) -> dict[str, Any]:
    """The definition, of which CreatePipeline takes the JSON.

    Raises:
        UserError: the role cannot be found, or no endpoint has the instance type.
    """
    accuracy = _get(f"Steps.{TRAIN}.FinalMetricDataList['{registration.metric}'].Value")
    condition = {"Type": "GreaterThanOrEqualTo", "LeftValue": accuracy, "RightValue": _parameter(THRESHOLD)}
    said = (f"{registration.metric} is ", accuracy, ", less than ", _parameter(THRESHOLD), ": nothing was registered")
    branches = {
        "Conditions": [condition],
        "IfSteps": [_step(REGISTER, "RegisterModel", _package(settings, registration, accuracy))],
        "ElseSteps": [_step(FAIL, "Fail", {"ErrorMessage": _join(*said)})],
    }
    return {
        "Version": _VERSION,
        "Metadata": {},
        "Parameters": _parameters(settings, training, registration),
        "Steps": [
            _step(TRAIN, "Training", _training(settings, training)),
            _step(CHECK, "Condition", branches),
        ],
    }


def text(definition: Mapping[str, Any]) -> str:
    """As a file, and as a request has it."""
    return json.dumps(definition, indent=2)


def checked_parameters(definition: Mapping[str, Any], given: Mapping[str, str]) -> list[dict[str, str]]:
    """PipelineParameters of StartPipelineExecution.

    Raises:
        UserError: the pipeline has no such parameter, or it takes no such value.
    """
    rows = {row["Name"]: row for row in definition.get("Parameters", [])}
    for name, value in given.items():
        if name not in rows:
            raise UserError(f"--parameter {name}: the pipeline has none of that name, but {', '.join(rows)}")
        row = rows[name]
        if value not in row.get("EnumValues", [value]):
            raise UserError(f"--parameter {name}={value}: write one of {', '.join(row['EnumValues'])}")
        if row["Type"] == "Float":
            share(value, f"--parameter {name}")
    return [{"Name": name, "Value": value} for name, value in given.items()]


def share(value: str, where: str) -> float:
    """A threshold of accuracy, 0 to 1.

    Raises:
        UserError: it is none.
    """
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise UserError(f"{where}={value}: write a share of the photos, as 0.9")
    return found


def machines(definition: Mapping[str, Any], given: Mapping[str, str]) -> tuple[str, int, float]:
    """(instance type, how many, the most hours) of an execution's training.

    Args:
        given: parameters of the execution.
    """
    defaults = {row["Name"]: row["DefaultValue"] for row in definition["Parameters"]}
    request = next(step for step in definition["Steps"] if step["Name"] == TRAIN)["Arguments"]
    resources = request["ResourceConfig"]
    kind = given.get(INSTANCE_TYPE) or defaults.get(INSTANCE_TYPE) or resources["InstanceType"]
    return kind, resources["InstanceCount"], request["StoppingCondition"]["MaxRuntimeInSeconds"] / 3600


def _parameters(settings: Settings, training: Training, registration: Registration) -> list[dict[str, Any]]:
    approval = APPROVED if registration.approved else PENDING
    rows: list[dict[str, Any]] = [
        {"Name": THRESHOLD, "Type": "Float", "DefaultValue": registration.threshold},
        {"Name": APPROVAL, "Type": "String", "DefaultValue": approval, "EnumValues": [APPROVED, PENDING]},
    ]
    if _any_type(settings):
        rows.append({"Name": INSTANCE_TYPE, "Type": "String", "DefaultValue": settings.instance_type})
    channels = training.channels.items()
    return rows + [{"Name": _uri(name), "Type": "String", "DefaultValue": uri} for name, uri in channels]


def _training(settings: Settings, training: Training) -> dict[str, Any]:
    """`kennel train`'s request without the job's name, which SageMaker makes of the execution's."""
    spot = training.spot and not training.checkpoints
    request = requests.training_job(settings, replace(training, checkpoints="") if spot else training)
    del request["TrainingJobName"]
    if _any_type(settings):
        request["ResourceConfig"]["InstanceType"] = _parameter(INSTANCE_TYPE)
    for channel in request["InputDataConfig"]:
        channel["DataSource"]["S3DataSource"]["S3Uri"] = _parameter(_uri(channel["ChannelName"]))
    if spot:  # a folder for each execution
        folder = f"s3://{settings.bucket}/{settings.prefix}/checkpoints/{training.name}/"
        request["CheckpointConfig"] = {"S3Uri": _join(folder, _get(_EXECUTION))}
    return request


def _package(settings: Settings, registration: Registration, accuracy: dict[str, Any]) -> dict[str, Any]:
    """No ModelMetrics: their file would have to lie in S3 by itself, and a job's report lies in its output.tar.gz."""
    model = _get(f"Steps.{TRAIN}.ModelArtifacts.S3ModelArtifacts")
    properties = kennel_settings.TAG | {
        "training_job": _get(f"Steps.{TRAIN}.TrainingJobName"),
        registration.metric: _join(accuracy),  # a number as text
        "pipeline_execution": _get(_EXECUTION),
    }
    container = {"Image": settings.image, "ModelDataUrl": model}
    types = [settings.endpoint_instance_type]
    approval = _parameter(APPROVAL)
    return package_requests.request(registration.group, container, types, approval, properties, settings)


def _any_type(settings: Settings) -> bool:
    """Whether an execution may choose the instance type: with a key, the request differs by the host's own disks."""
    return not settings.kms_key


def _step(name: str, kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"Name": name, "Type": kind, "Arguments": dict(arguments)}


def _uri(channel: str) -> str:
    """`TrainS3Uri`."""
    return f"{channel.title()}S3Uri"


def _get(path: str) -> dict[str, str]:
    return {"Get": path}


def _parameter(name: str) -> dict[str, str]:
    return _get(f"Parameters.{name}")


def _join(*values: Any) -> dict[str, Any]:
    return {"Std:Join": {"On": "", "Values": list(values)}}
