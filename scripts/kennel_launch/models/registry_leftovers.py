"""What `kennel delete` finds of pipelines and of the model registry; what others made there stays. Removes nothing."""

from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import inventory, s3, session
from kennel_launch.hosting.leftovers import Leftover
from kennel_launch.hosting.rollout import Call
from kennel_launch.models import model_packages, package_requests
from kennel_launch.models.model_packages import ModelPackage
from kennel_launch.settings import Settings

_RUNS = ("Executing", "Stopping")


def of_pipeline(name: str, settings: Settings) -> list[Leftover]:
    """A pipeline, with its executions; what they have made stays.

    Raises:
        UserError: it is not ours, or one of its executions still runs.
    """
    client = session.client("sagemaker", settings)
    with session.translate_errors(f"pipeline {name}"):
        about = session.describe(client, "describe_pipeline", PipelineName=name)
        if about is None:
            return []
        if not inventory.is_tagged(client, about["PipelineArn"]):
            raise UserError(f"pipeline {name} was not made by kennel (it lacks the tag kennel=1): it stays")
        newest = client.list_pipeline_executions(PipelineName=name, SortOrder="Descending")
        rows = newest["PipelineExecutionSummaries"]
    if running := next((row for row in rows if row["PipelineExecutionStatus"] in _RUNS), None):
        arn = running["PipelineExecutionArn"]
        stop = f"aws sagemaker stop-pipeline-execution --pipeline-execution-arn {arn}"
        raise UserError(f"an execution of pipeline {name} runs: wait for it, or end it by {stop}")
    return [Leftover("pipeline", Call("sagemaker", "delete_pipeline", {"PipelineName": name}, "PipelineName"))]


def of_registry(text: str, settings: Settings) -> tuple[list[Leftover], list[str]]:
    """(what of GROUP, or of GROUP/VERSION, is ours; lines: what stays).

    Raises:
        UserError: that version is not ours, or there is none.
    """
    group, version = model_packages.split(text)
    if version is not None:
        package = model_packages.find(text, settings)
        if not package.ours:
            raise UserError(f"model package {package} was not made by kennel: it stays")
        return [_package(package)], []
    client = session.client("sagemaker", settings)
    with session.translate_errors(f"model package group {group}"):
        about = session.describe(client, "describe_model_package_group", ModelPackageGroupName=group)
    return _group(client, group, about["ModelPackageGroupArn"], settings) if about else ([], [])


def tagged(settings: Settings) -> tuple[list[Leftover], list[str]]:
    """(all pipelines and groups with our tag, and our versions in them; lines: what stays).

    Raises:
        UserError: AWS refuses.
    """
    client = session.client("sagemaker", settings)
    found: list[Leftover] = []
    stays: list[str] = []
    try:
        with session.translate_errors("what there is of pipelines and model packages"):
            pipelines = _ours(client, "list_pipelines", "PipelineSummaries", "Pipeline")
            groups = _ours(client, "list_model_package_groups", "ModelPackageGroupSummaryList", "ModelPackageGroup")
    except UserError as error:  # what costs by the hour can go without these rights
        if not session.is_denied(error):
            raise
        return [], [f"not known: {error}"]
    for name, _ in pipelines:
        try:
            found += of_pipeline(name, settings)
        except UserError as error:  # all else can go
            stays.append(f"pipeline {name} stays: {error}")
    for name, arn in groups:
        more, lines = _group(client, name, arn, settings)
        found, stays = found + more, stays + lines
    return found, stays


def data(text: str, found: list[Leftover], settings: Settings) -> list[str]:
    """The S3 prefixes of what is removed of GROUP or GROUP/VERSION: statistics and reports, never the models."""
    group, version = model_packages.split(text)
    place = f"s3://{settings.bucket}/{package_requests.folder(group, settings)}"
    folders = [place]
    if version is not None or all(item.what == "model package" for item in found):
        packages = [model_packages.describe(item.call.name, settings) for item in found]
        folders = [package.statistics.rpartition("/")[0] + "/" for package in packages]
    client = session.client("s3", settings)
    with session.translate_errors(place):
        return [
            folder
            for folder in folders
            if folder.startswith(place) and any(True for _ in s3.keys(client, *s3.split(folder)))
        ]


def _group(client: Any, group: str, arn: str, settings: Settings) -> tuple[list[Leftover], list[str]]:
    with session.translate_errors(f"model package group {group}"):
        rows = list(model_packages.listed(client, group))
        ours = inventory.is_tagged(client, arn)
    packages = [model_packages.describe(row["ModelPackageArn"], settings) for row in rows]
    found = [_package(package) for package in packages if package.ours]
    others = len(packages) - len(found)
    if others:
        return found, [f"model package group {group} stays, {others} of its versions were not made by kennel"]
    if not ours:
        return found, [f"model package group {group} stays, it was not made by kennel"]
    key = "ModelPackageGroupName"
    call = Call("sagemaker", "delete_model_package_group", {key: group}, key)
    return [*found, Leftover("model package group", call)], []


def _package(package: ModelPackage) -> Leftover:
    key = "ModelPackageName"
    call = Call("sagemaker", "delete_model_package", {key: package.arn}, key)
    return Leftover("model package", call, str(package))


def _ours(client: Any, operation: str, rows: str, noun: str) -> list[tuple[str, str]]:
    """(name, ARN) of each with our tag."""
    found = [row for page in client.get_paginator(operation).paginate() for row in page[rows]]
    return [(row[f"{noun}Name"], row[f"{noun}Arn"]) for row in found if inventory.is_tagged(client, row[f"{noun}Arn"])]
