"""An execution of a pipeline: its steps in order, each by the API call that SageMaker makes of it.

Training, Condition, RegisterModel and Fail are emulated. A definition is judged by the same code before it runs, with
its default parameters and with placeholders for what only a step knows.
"""

import json
import operator
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from ..http import validation
from ..http.account import Account
from ..http.errors import AwsError, invalid
from ..http.recognition import service_model
from ..http.resources import Record, now

_POLL = 0.2  # seconds
_VERSION = "2020-12-01"
_TYPES: dict[str, Callable[[Any], Any]] = {"String": str, "Float": float, "Integer": int}
_CONDITIONS = {
    "Equals": operator.eq,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
_CALLS = {"Training": "CreateTrainingJob", "RegisterModel": "CreateModelPackage"}
_REFERENCE = re.compile(r"Steps\.(?P<step>[\w-]+)(?P<path>[\w.\['\]:-]+)")
_PART = re.compile(r"\.(\w+)|\['([^']+)'\]|\[(\d+)\]")
_FAILED = "Step failure: One or multiple steps failed."


class StepError(Exception):
    """A step failed, with its reason."""


class StoppedError(Exception):
    """By StopPipelineExecution, or with the account."""


def start(account: Account, record: Record, definition: Record, values: Mapping[str, Any]) -> None:
    """In the background.

    Args:
        values: of the parameters.
    """
    account.stops[record["PipelineExecutionArn"]] = threading.Event()
    run = _Run(account, record, values)
    account.background.start(lambda: run.all(definition["Steps"]), f"execution {record['PipelineExecutionName']}")


def stop(account: Account, record: Record) -> None:
    account.stops[record["PipelineExecutionArn"]].set()


def parameters(definition: Record, given: Mapping[str, str]) -> dict[str, Any]:
    """Values by name, of their types.

    Raises:
        AwsError: one is not known, missing, or of another type.
    """
    rows = {row["Name"]: row for row in definition.get("Parameters", [])}
    unknown = [name for name in given if name not in rows]
    if unknown:
        raise invalid(f"Unknown parameters: {', '.join(unknown)}.")
    found = {}
    for name, row in rows.items():
        value = given.get(name, row.get("DefaultValue"))
        if value is None or value not in row.get("EnumValues", [value]):
            raise invalid(f"Parameter {name} has no value, or one that is not allowed: {value}.")
        try:
            found[name] = _TYPES[row["Type"]](value)
        except (KeyError, ValueError) as error:
            raise invalid(f"Parameter {name}: {value} is no {row['Type']}.") from error
    return found


def judged(text: str) -> Record:
    """The definition.

    Raises:
        AwsError: it could not run.
    """
    try:
        definition: Record = json.loads(text)
        steps = list(_steps(definition["Steps"]))
        version = definition["Version"]
    except (ValueError, KeyError, TypeError) as error:
        raise invalid(f"Unable to parse pipeline definition. {error!r}") from error
    names = [step["Name"] for step in steps]
    if version != _VERSION or len(names) > len(set(names)):
        raise invalid("Unable to parse pipeline definition. The version is unknown, or two steps have one name.")
    resolver = _Placeholders(parameters(definition, {}), names)
    for step in steps:
        arguments = resolver.value({k: v for k, v in step["Arguments"].items() if not k.endswith("Steps")})
        if step["Type"] in _CALLS:
            _judge(step["Type"], arguments)
        elif step["Type"] == "Condition":
            unknown = [one["Type"] for one in arguments["Conditions"] if one["Type"] not in _CONDITIONS]
            if unknown:
                raise invalid(f"Unknown condition {unknown[0]}.")
        elif step["Type"] != "Fail":
            raise invalid(f"The emulated AWS has no step of type {step['Type']}.")
    return definition


def _steps(rows: list[Record]) -> Iterator[Record]:
    """With those inside conditions."""
    for row in rows:
        yield row
        for branch in ("IfSteps", "ElseSteps"):
            yield from _steps(row["Arguments"].get(branch, []))


def _judge(kind: str, arguments: Record) -> Record:
    """What is asked of the API, by the service's own model of it."""
    if kind == "Training":
        if "TrainingJobName" in arguments:
            raise invalid("TrainingJobName is SageMaker's own in a pipeline.")
        arguments = arguments | {"TrainingJobName": f"pipelines-{uuid.uuid4().hex[:20]}"}
    known = service_model("sagemaker")
    assert known
    validation.check(known.operation_model(_CALLS[kind]), arguments)
    return arguments


class _Resolver:
    """Puts values in the place of variables."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def value(self, given: Any) -> Any:
        if isinstance(given, dict):
            if set(given) == {"Get"}:
                return self._get(given["Get"])
            if set(given) == {"Std:Join"}:
                join = given["Std:Join"]
                return join["On"].join(str(self.value(one)) for one in join["Values"])
            return {name: self.value(one) for name, one in given.items()}
        return [self.value(one) for one in given] if isinstance(given, list) else given

    def _get(self, path: str) -> Any:
        scope, _, name = path.partition(".")
        if scope == "Parameters" and name in self._values:
            return self._values[name]
        if scope == "Execution":
            return self._of_execution(name)
        reference = _REFERENCE.fullmatch(path)
        if not reference:
            raise invalid(f"Unable to parse pipeline definition. {path} names nothing that there is.")
        return self._of_step(reference["step"], reference["path"])

    def _of_execution(self, name: str) -> str:
        raise NotImplementedError

    def _of_step(self, step: str, path: str) -> Any:
        raise NotImplementedError


class _Placeholders(_Resolver):
    """Before anything runs."""

    def __init__(self, values: Mapping[str, Any], steps: list[str]) -> None:
        super().__init__(values)
        self._names = steps

    def _of_execution(self, name: str) -> str:
        return "execution"

    def _of_step(self, step: str, path: str) -> Any:
        if step not in self._names:
            raise invalid(f"Unable to parse pipeline definition. There is no step {step}.")
        return "s3://bucket/model.tar.gz" if path.endswith("S3ModelArtifacts") else 0.5 if "Value" in path else "some"


class _Run(_Resolver):
    """One execution."""

    def __init__(self, account: Account, record: Record, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._account, self._record = account, record
        self._made: dict[str, Record] = {}  # step -> what its Describe call says
        self._stop = account.stops[record["PipelineExecutionArn"]]

    def all(self, steps: list[Record]) -> None:
        members: Record = {"PipelineExecutionStatus": "Succeeded"}
        try:
            self._in_order(steps)
        except StepError:
            members = {"PipelineExecutionStatus": "Failed", "FailureReason": _FAILED}
        except StoppedError:
            members = {"PipelineExecutionStatus": "Stopped"}
        if not self._account.background.closing.is_set():
            self._account.store.change(self._record, **members)

    def _in_order(self, steps: list[Record]) -> None:
        for step in steps:
            row: Record = {"StepName": step["Name"], "StartTime": now(), "StepStatus": "Executing", "AttemptCount": 1}
            self._record["Steps"].append(row)
            try:
                branch = self._step(step, row)
            except StoppedError:
                row |= {"StepStatus": "Stopped", "EndTime": now()}
                raise
            except (StepError, AwsError, ClientError, LookupError, TypeError) as error:
                row |= {"StepStatus": "Failed", "EndTime": now(), "FailureReason": str(error)}
                raise StepError from error
            row |= {"StepStatus": "Succeeded", "EndTime": now()}
            self._in_order(branch)

    def _step(self, step: Record, row: Record) -> list[Record]:
        """Does it; what comes next of a condition."""
        kind, arguments = step["Type"], step["Arguments"]
        if kind == "Condition":
            holds = all(map(self._holds, arguments["Conditions"]))
            row["Metadata"] = {"Condition": {"Outcome": "True" if holds else "False"}}
            found: list[Record] = arguments["IfSteps" if holds else "ElseSteps"]
            return found
        arguments = self.value(arguments)
        if kind == "Fail":
            row["Metadata"] = {"Fail": {"ErrorMessage": arguments["ErrorMessage"]}}
            raise StepError(arguments["ErrorMessage"])
        request = _judge(kind, arguments)
        if kind == "Training":
            execution, own = self._record["PipelineExecutionName"], uuid.uuid4().hex[:10]
            name = request["TrainingJobName"] = f"pipelines-{execution}-{step['Name']}-{own}"
            made = self._account.client("sagemaker").create_training_job(**request)
            row["Metadata"] = {"TrainingJob": {"Arn": made["TrainingJobArn"]}}
            self._made[step["Name"]] = self._trained(name)
        else:
            made = self._account.client("sagemaker").create_model_package(**request)
            row["Metadata"] = {"RegisterModel": {"Arn": made["ModelPackageArn"]}}
        return []

    def _trained(self, name: str) -> Record:
        """The job, once it has ended well."""
        while True:
            job = self._account.store.describe("TrainingJob", name)
            if self._account.background.closing.is_set():
                raise StoppedError
            if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
                break
            if self._stop.is_set():
                with suppress(ClientError):  # it ends just now
                    self._account.client("sagemaker").stop_training_job(TrainingJobName=name)
            time.sleep(_POLL)
        if self._stop.is_set():
            raise StoppedError
        if job["TrainingJobStatus"] != "Completed":
            raise StepError(job.get("FailureReason", "The training job was stopped."))
        return job

    def _holds(self, condition: Record) -> bool:
        left, right = self.value(condition["LeftValue"]), self.value(condition["RightValue"])
        return bool(_CONDITIONS[condition["Type"]](left, right))

    def _of_execution(self, name: str) -> str:
        arn = self._record["PipelineExecutionArn"]
        known = {"PipelineExecutionId": self._record["PipelineExecutionName"], "PipelineExecutionArn": arn}
        return str((known | {"PipelineName": self._record["PipelineName"]})[name])

    def _of_step(self, step: str, path: str) -> Any:
        found: Any = self._made[step]
        for member, key, index in _PART.findall(path):
            if key:  # of a list: the row of that name
                found = next(row for row in found if key in (row.get("MetricName"), row.get("ChannelName")))
            else:
                found = found[member] if member else found[int(index)]
        return found
