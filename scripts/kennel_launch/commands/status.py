"""`kennel status [NAME]`: a table of our jobs, endpoints, pipelines and models, or one in detail. Changes nothing."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kennel_launch import settings as kennel_settings
from kennel_launch.advice import costs
from kennel_launch.aws import inventory, session
from kennel_launch.aws.inventory import ENDPOINT, GROUP, PIPELINE, TRAINING, TRANSFORM, TUNING, Resource
from kennel_launch.console import terminal
from kennel_launch.hosting import endpoint_info, scaling
from kennel_launch.jobs import pipeline_run
from kennel_launch.models import model_packages
from kennel_launch.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"Failed": "red", "InProgress": "cyan", "Creating": "cyan", "InService": "green"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", default="", help="of a job, endpoint, pipeline or model package; none: a table"
    )
    parser.add_argument("--json", action="store_true", help="all that SageMaker says, as JSON")
    kennel_settings.add_flags(parser, kennel_settings.OF_ACCESS)


def run(options: argparse.Namespace) -> int:
    """Prints to stdout.

    Raises:
        UserError: nothing of that name, or AWS refuses.
    """
    settings = kennel_settings.load(vars(options))
    console = terminal.out(160)
    if options.name:
        about, lines = one(options.name, settings)
        if options.json:
            print(_json(about))
            return 0
        for key, value in lines:
            console.print(f"{key + ':':<21}{value}", markup=False, highlight=False, soft_wrap=True)
        return 0
    ours = inventory.ours(settings)
    if options.json:
        print(_json([row.about for row in ours]))
    elif ours:
        console.print(table(ours))
    else:
        print("nothing of ours: kennel train starts a job", file=sys.stderr)
    return 0


def one(name: str, settings: Settings) -> tuple[Mapping[str, Any], Iterator[tuple[str, str]]]:
    """(all that SageMaker says of it, the lines for a person).

    Raises:
        UserError: nothing of that name, or AWS refuses.
    """
    if "/" in name:  # GROUP/VERSION
        package = model_packages.find(name, settings)
        return model_packages.described(package.arn, settings), model_packages.details(package)
    found = inventory.find(name, settings, inventory.ALL)
    return found.about, details(found, settings)


def table(ours: list[Resource]) -> "Table":
    """The newest first; what costs by the hour stands out by its status."""
    from rich.table import Table
    from rich.text import Text

    made = Table("kind", "name", "status", "created", "minutes", "")
    for row in ours:
        cells = (row.kind.shown, row.name, row.status, _moment(row.created), _minutes(row), _remark(row))
        made.add_row(*map(Text, cells), style=_STYLES.get(row.status, ""))
    return made


def details(found: Resource, settings: Settings) -> Iterator[tuple[str, str]]:
    """Key and value, line by line: what a person asks first comes first."""
    about = found.about
    yield found.kind.shown, found.name
    secondary = about.get("SecondaryStatus", found.status)
    yield "status", found.status if secondary == found.status else f"{found.status} ({secondary})"
    if reason := about.get("FailureReason"):
        yield "reason", " ".join(str(reason).split())
    yield "created", _moment(found.created)
    if found.kind is TRAINING:
        yield from _of_training(about, settings)
    elif found.kind is TUNING:
        yield from _of_tuning(about)
    elif found.kind is ENDPOINT:
        yield from _of_endpoint(found.name, about, settings)
    elif found.kind is PIPELINE:
        yield from pipeline_run.details(about, settings)
    elif found.kind is GROUP:
        yield from model_packages.group_details(found.name, settings)
    else:
        yield from _of_transform(about)
    if found.kind in (TRAINING, TRANSFORM, ENDPOINT):
        yield "log", f"kennel logs {found.name}"


def _of_training(about: Mapping[str, Any], settings: Settings) -> Iterator[tuple[str, str]]:
    for row in about.get("FinalMetricDataList", []):
        yield row["MetricName"], f"{row['Value']:.4f}"
    if artifact := about.get("ModelArtifacts", {}).get("S3ModelArtifacts"):
        yield "model", artifact
    machines = about.get("ResourceConfig", {})
    count, kind = machines.get("InstanceCount", 1), machines.get("InstanceType", "?")
    yield "machines", f"{count} × {kind}"
    if (billed := about.get("BillableTimeInSeconds")) is not None:
        used = about.get("TrainingTimeInSeconds") or billed
        saved = f", {1 - billed / used:.0%} saved by spot" if about.get("EnableManagedSpotTraining") and used else ""
        yield "seconds billed", f"{billed} of {used}{saved}"
        yield "cost", costs.say_billed(costs.hourly(kind, session.region(settings), settings), kind, billed * count)
    for channel in about.get("InputDataConfig", []):
        yield f"channel {channel['ChannelName']}", channel["DataSource"]["S3DataSource"]["S3Uri"]
    given = about.get("HyperParameters", {})
    yield "hyperparameters", " ".join(f"{name}={value}" for name, value in sorted(given.items())) or "by default"
    yield "image", about.get("AlgorithmSpecification", {}).get("TrainingImage", "?")


def _of_tuning(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    config = about.get("HyperParameterTuningJobConfig", {})
    limits = config.get("ResourceLimits", {})
    yield "strategy", f"{config.get('Strategy', '?')}, {limits.get('MaxNumberOfTrainingJobs', '?')} jobs at most"
    yield "jobs", inventory.counts(about)
    if best := about.get("BestTrainingJob"):
        yield "best job", best["TrainingJobName"]
        yield from inventory.objective(best)
        tuned = best.get("TunedHyperParameters", {})
        yield "found", " ".join(f"{name}={value}" for name, value in sorted(tuned.items()))


def _of_endpoint(name: str, about: Mapping[str, Any], settings: Settings) -> Iterator[tuple[str, str]]:
    yield "configuration", str(about.get("EndpointConfigName", "?"))
    served = endpoint_info.find(name, settings)
    if served and served.package:
        yield "model package", model_packages.name_of(served.package)
    variants = about.get("ProductionVariants", [])
    for variant in variants:
        count, serverless = variant.get("CurrentInstanceCount"), variant.get("CurrentServerlessConfig", {})
        warm = f", {serverless['ProvisionedConcurrency']} provisioned" if "ProvisionedConcurrency" in serverless else ""
        pools = variant.get("InstancePools", [])
        each = ", ".join(f"{pool['CurrentInstanceCount']} × {pool['InstanceType']}" for pool in pools)
        machines = f"{count} machines" + (f" ({each})" if each else "")
        yield f"variant {variant['VariantName']}", f"serverless{warm}" if count is None else machines
    if scaled := scaling.of_endpoint(name, [variant["VariantName"] for variant in variants], settings):
        yield "scales", str(scaled)
    if capture := about.get("DataCaptureConfig"):
        yield (
            "captures",
            f"{capture['CurrentSamplingPercentage']}% of the requests, under {capture['DestinationS3Uri']}",
        )


def _of_transform(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", str(about.get("ModelName", "?"))
    yield "output", str(about.get("TransformOutput", {}).get("S3OutputPath", "?"))


def _remark(row: Resource) -> str:
    if row.kind is TUNING:
        return inventory.counts(row.about)
    return "costs by the hour until it is deleted" if row.kind is ENDPOINT and row.status == "InService" else ""


def _minutes(row: Resource) -> str:
    if row.kind in (PIPELINE, GROUP):
        return ""
    ends = ("TrainingEndTime", "TransformEndTime", "HyperParameterTuningEndTime")
    end = next((row.about[key] for key in ends if row.about.get(key)), None)
    end = end or (row.about.get("LastModifiedTime") if row.ended else None) or datetime.now(UTC)
    return f"{(end - row.created).total_seconds() / 60:.0f}"


def _moment(when: datetime) -> str:
    return when.astimezone().strftime("%Y-%m-%d %H:%M")


def _json(value: object) -> str:
    return json.dumps(
        value, indent=2, default=lambda other: other.isoformat() if isinstance(other, datetime) else str(other)
    )
