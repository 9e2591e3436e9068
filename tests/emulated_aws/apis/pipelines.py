"""SageMaker Pipelines: a definition is judged when it is made, and an execution really runs.

https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-build.html (2026-11) and the schema that it links to.
"""

import uuid
from collections.abc import Callable
from typing import Any

from ..http import checks
from ..http.account import Account
from ..http.errors import AwsError, invalid
from ..http.resources import Record, page
from ..runners import pipelines as runner

Params = dict[str, Any]
_RUNS = ("Executing", "Stopping")


def _create(account: Account, params: Params) -> Params:
    checks.trusted_role(account, params["RoleArn"])
    runner.judged(params["PipelineDefinition"])
    return {"PipelineArn": account.store.add("Pipeline", params)["PipelineArn"]}


def _update(account: Account, params: Params) -> Params:
    record = account.store.get("Pipeline", params["PipelineName"])
    if "RoleArn" in params:
        checks.trusted_role(account, params["RoleArn"])
    if "PipelineDefinition" in params:
        runner.judged(params["PipelineDefinition"])
    account.store.change(record, **params)
    return {"PipelineArn": record["PipelineArn"]}


def _delete(account: Account, params: Params) -> Params:
    record = account.store.get("Pipeline", params["PipelineName"])
    rows = _executions(account, record)
    if any(row["PipelineExecutionStatus"] in _RUNS for row in rows):
        raise invalid(f"Pipeline {record['PipelineArn']} cannot be deleted: it has running executions.")
    for row in rows:
        account.store.remove("PipelineExecution", row["PipelineExecutionName"])
    return {"PipelineArn": account.store.remove("Pipeline", params["PipelineName"])["PipelineArn"]}


def _start(account: Account, params: Params) -> Params:
    pipeline = account.store.get("Pipeline", params["PipelineName"])
    definition = runner.judged(pipeline["PipelineDefinition"])
    given = {row["Name"]: row["Value"] for row in params.get("PipelineParameters", [])}
    values = runner.parameters(definition, given)
    name = uuid.uuid4().hex[:12]
    record = account.store.add(
        "PipelineExecution",
        params | {"PipelineExecutionName": name},
        PipelineArn=pipeline["PipelineArn"],
        PipelineExecutionArn=f"{pipeline['PipelineArn']}/execution/{name}",
        RoleArn=pipeline["RoleArn"],
        Steps=[],
    )
    record["StartTime"] = record["CreationTime"]
    account.store.change(pipeline, LastExecutionTime=record["CreationTime"], LastRunTime=record["CreationTime"])
    if not account.held:
        runner.start(account, record, definition, values)
    return {"PipelineExecutionArn": record["PipelineExecutionArn"]}


def _stop(account: Account, params: Params) -> Params:
    record = _execution(account, params["PipelineExecutionArn"])
    if record["PipelineExecutionStatus"] != "Executing":
        raise invalid(f"Execution {record['PipelineExecutionArn']} is {record['PipelineExecutionStatus']}.")
    account.store.change(record, PipelineExecutionStatus="Stopped" if account.held else "Stopping")
    if not account.held:
        runner.stop(account, record)
    return {"PipelineExecutionArn": record["PipelineExecutionArn"]}


def _describe_execution(account: Account, params: Params) -> Params:
    record = _execution(account, params["PipelineExecutionArn"])
    return account.store.describe("PipelineExecution", record["PipelineExecutionName"])


def _list_executions(account: Account, params: Params) -> Params:
    rows = _executions(account, account.store.get("Pipeline", params["PipelineName"]))
    return page("ListPipelineExecutions", rows, params, "PipelineExecution", ascending=False)


def _list_steps(account: Account, params: Params) -> Params:
    rows = _execution(account, params["PipelineExecutionArn"])["Steps"]
    return {"PipelineExecutionSteps": rows if params.get("SortOrder") == "Ascending" else rows[::-1]}


def _executions(account: Account, pipeline: Record) -> list[Record]:
    return [row for row in account.store.all("PipelineExecution") if row["PipelineArn"] == pipeline["PipelineArn"]]


def _execution(account: Account, arn: str) -> Record:
    for row in account.store.all("PipelineExecution"):
        if row["PipelineExecutionArn"] == arn:
            return row
    raise AwsError("ResourceNotFound", f"Pipeline execution with ARN {arn} does not exist.")


OPERATIONS: dict[str, Callable[[Account, Params], Params]] = {
    "CreatePipeline": _create,
    "UpdatePipeline": _update,
    "DeletePipeline": _delete,
    "StartPipelineExecution": _start,
    "StopPipelineExecution": _stop,
    "DescribePipelineExecution": _describe_execution,
    "ListPipelineExecutions": _list_executions,
    "ListPipelineExecutionSteps": _list_steps,
}
