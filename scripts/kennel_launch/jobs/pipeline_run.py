"""Pipelines as they are in the account: which one there is of a name, what sends one, how an execution ends."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import inventory, session
from kennel_launch.hosting.rollout import Call
from kennel_launch.settings import Settings

_POLL = 5.0  # seconds
_KEY = "PipelineName"
_SHOWN = 5  # executions


@dataclass(frozen=True)
class PipelineInfo:
    """One pipeline as AWS describes it."""

    name: str
    role: str
    definition: Mapping[str, Any]


def find(name: str, settings: Settings) -> PipelineInfo | None:
    """None: there is no pipeline of that name.

    Raises:
        UserError: it is not ours, or AWS does not say.
    """
    client = session.client("sagemaker", settings)
    with session.translate_errors(f"pipeline {name}"):
        about = session.describe(client, "describe_pipeline", PipelineName=name)
        if about is None:
            return None
        if not inventory.is_tagged(client, about["PipelineArn"]):
            raise UserError(f"pipeline {name} was not made by kennel (it lacks the tag kennel=1): choose another name")
    return PipelineInfo(name, about["RoleArn"], json.loads(about["PipelineDefinition"]))


def definition_call(name: str, definition: str, there: PipelineInfo | None, settings: Settings) -> Call:
    """What creates a pipeline, or updates the one that is there.

    Args:
        settings: with the role's whole ARN.
    """
    request: dict[str, Any] = {_KEY: name, "PipelineDefinition": definition, "RoleArn": settings.role}
    if there is None:
        request["Tags"] = kennel_settings.tags(settings)
        return Call("sagemaker", "create_pipeline", request, _KEY, "delete_pipeline")
    before = {"PipelineDefinition": json.dumps(there.definition), "RoleArn": there.role}
    return Call("sagemaker", "update_pipeline", request, _KEY, "update_pipeline", before)


def start_call(name: str, parameters: Sequence[Mapping[str, str]]) -> Call:
    """What starts an execution."""
    request: dict[str, Any] = {_KEY: name}
    if parameters:
        request["PipelineParameters"] = list(parameters)
    return Call("sagemaker", "start_pipeline_execution", request, _KEY)


def follow(arn: str, settings: Settings) -> int:
    """A line whenever a step begins or ends, then how the execution ended: 0 succeeded, 1 not.

    Raises:
        UserError: AWS refuses.
    """
    client = session.client("sagemaker", settings)
    said: set[str] = set()
    try:
        while True:
            with session.translate_errors(f"pipeline execution {arn}"):
                about = client.describe_pipeline_execution(PipelineExecutionArn=arn)
                lines = [step_line(step) for step in steps(client, arn)]
            for line in lines:
                if line not in said:
                    print(line, flush=True)
            said.update(lines)
            if about["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
                return _ended(about)
            time.sleep(kennel_settings.pause(_POLL))
    except KeyboardInterrupt:
        stop = f"aws sagemaker stop-pipeline-execution --pipeline-execution-arn {arn}"
        print(f"the execution goes on, and costs: end it by {stop}", file=sys.stderr)
        raise


def details(about: Mapping[str, Any], settings: Settings) -> Iterator[tuple[str, str]]:
    """Key and value, line by line: parameters, the newest executions, and the steps of the last.

    Args:
        about: as DescribePipeline says it.

    Raises:
        UserError: AWS refuses.
    """
    for row in json.loads(about["PipelineDefinition"]).get("Parameters", []):
        yield f"parameter {row['Name']}", str(row.get("DefaultValue", ""))
    client = session.client("sagemaker", settings)
    with session.translate_errors(f"the executions of pipeline {about['PipelineName']}"):
        order = {"SortBy": "CreationTime", "SortOrder": "Descending"}
        found = client.list_pipeline_executions(PipelineName=about["PipelineName"], MaxResults=_SHOWN, **order)
        rows = found["PipelineExecutionSummaries"]
        last = list(steps(client, rows[0]["PipelineExecutionArn"])) if rows else []
    for row in rows:
        when = row["StartTime"].astimezone().strftime("%Y-%m-%d %H:%M")
        yield "execution", f"{when} {row['PipelineExecutionStatus']}, {row['PipelineExecutionArn'].rpartition('/')[2]}"
    for step in last:
        yield "last execution", step_line(step)


def steps(client: Any, arn: str) -> Iterator[Mapping[str, Any]]:
    """The steps of an execution that have begun, the first first."""
    pages = client.get_paginator("list_pipeline_execution_steps")
    for page in pages.paginate(PipelineExecutionArn=arn, SortOrder="Ascending"):
        yield from page["PipelineExecutionSteps"]


def step_line(step: Mapping[str, Any]) -> str:
    """`Train: Succeeded, training-job/pipelines-...`."""
    made = next((part["Arn"].rpartition(":")[2] for part in step.get("Metadata", {}).values() if "Arn" in part), "")
    outcome = step.get("Metadata", {}).get("Condition", {}).get("Outcome", "")
    more = made or outcome or " ".join(step.get("FailureReason", "").split())
    return f"{step['StepName']}: {step['StepStatus']}{', ' if more else ''}{more}"


def _ended(about: Mapping[str, Any]) -> int:
    status = about["PipelineExecutionStatus"]
    if status == "Succeeded":
        return 0
    reason = " ".join(about.get("FailureReason", "").split())
    print(f"the execution is {status}{': ' if reason else ''}{reason}", file=sys.stderr)
    return 1
