"""`kennel register`: a job's model becomes a version of a group in SageMaker's model registry; or one is approved."""

import argparse
import json
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import inventory, job_output, s3, session
from kennel_launch.aws.inventory import TRAINING, Resource
from kennel_launch.console import confirm, flags
from kennel_launch.hosting import specs
from kennel_launch.hosting.rollout import Call, send
from kennel_launch.machine import archive
from kennel_launch.models import artifacts, model_packages, model_quality, package_requests
from kennel_launch.models.model_packages import APPROVED, PENDING, REJECTED
from kennel_launch.settings import Settings

_SETTINGS = ("region", "bucket", "prefix", "image", "tags", "kms_key", "profile")
_STATISTICS = "statistics.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "kennel register GROUP --job NAME|--tuning-job NAME [--approve]\n"
        "       kennel register GROUP/VERSION --approve|--reject"
    )
    parser.add_argument("group", metavar="GROUP[/VERSION]", help="of models; it is made where there is none")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--job", default="", metavar="NAME", help="the model of this training job")
    source.add_argument("--tuning-job", default="", metavar="NAME", help="the model of its best training job")
    state = parser.add_mutually_exclusive_group()
    state.add_argument("--approve", action="store_true", help=f"it may be deployed (without: {PENDING})")
    state.add_argument("--reject", action="store_true", help="a version that is there may not")
    serves = kennel_settings.ROWS["endpoint_instance_type"].default
    parser.add_argument(
        "--instance-type",
        dest="types",
        action="append",
        metavar="TYPE",
        help=f"it is served on; repeat ({serves})",
    )
    flags.add_doing(parser)
    kennel_settings.add_flags(parser, _SETTINGS)


def run(options: argparse.Namespace) -> int:
    """0: registered, or judged.

    Raises:
        UserError: it can't be done as asked; nothing is left behind.
    """
    settings = kennel_settings.load(vars(options))
    group, version = model_packages.split(options.group)
    if options.dry_run:
        session.dry_run(settings)
    if version is not None:
        return judge(options, settings)
    if options.reject:
        raise UserError(f"--reject is said of a version: kennel register {group}/VERSION --reject")
    kennel_settings.needed(settings, "bucket")
    job = model_job(options, settings)
    calls, lines = planned(group, job, options, settings)
    confirm.ask(lines, options.yes or options.dry_run)
    answers = send(calls, settings, removal="kennel delete --registry {name}")
    if not options.dry_run:
        package = model_packages.describe(answers[-1]["ModelPackageArn"], settings)
        print(f"registered {package}: {package.approval}")
        print(f"serve it:   kennel deploy --from-registry {package}")
    return 0


def judge(options: argparse.Namespace, settings: Settings) -> int:
    """Approves or rejects a version that is there.

    Raises:
        UserError: neither is asked for, more is, or there is no such version.
    """
    if options.job or options.tuning_job or options.types:
        raise UserError(f"{options.group} is a version that is there: leave its number out to register another")
    if not (options.approve or options.reject):
        raise UserError(f"say what is to become of {options.group}: --approve or --reject")
    package = model_packages.find(options.group, settings)
    status = APPROVED if options.approve else REJECTED
    confirm.ask([f"model package {package}: {package.approval} becomes {status}"], options.yes or options.dry_run)
    with session.translate_errors(f"model package {package}"):
        client = session.client("sagemaker", settings)
        client.update_model_package(ModelPackageArn=package.arn, ModelApprovalStatus=status)
    if not options.dry_run:
        print(f"{package}: {status}")
    return 0


def model_job(options: argparse.Namespace, settings: Settings) -> Resource:
    """The training job whose model is meant.

    Raises:
        UserError: none is named, or there is none.
    """
    name = options.job
    if options.tuning_job:
        search = inventory.find(options.tuning_job, settings, (inventory.TUNING,))
        name = inventory.best_training_job(search)["TrainingJobName"]
    if not name:
        raise UserError("say whose model: --job NAME or --tuning-job NAME")
    return inventory.find(name, settings, (TRAINING,))


def planned(group: str, job: Resource, options: argparse.Namespace, settings: Settings) -> tuple[list[Call], list[str]]:
    """The calls in order, and what to show of them.

    Raises:
        UserError: the job has no model, or AWS refuses.
    """
    artifact = artifacts.of_job(job.name, settings)
    if not artifact.image:
        raise UserError(f"training job {job.name} names no image: add --image")
    lines = [f"registers the model of {job.name} in group {group}", f"  model: {artifact.data}"]
    try:
        files = job_output.read(job, (archive.FIGURES, archive.REPORT), settings)
    except job_output.NoOutputError as error:
        files = {}
        lines.append(f"  {error}: its accuracy is what SageMaker read from its log")
    report = json.loads(files.get(archive.FIGURES, b"{}"))
    folder = f"{package_requests.folder(group, settings)}{specs.stamped(job.name, specs.stamp())}/"
    quality = model_quality.statistics(report, model_quality.finals(job.about))
    puts = [_put(folder + _STATISTICS, json.dumps(quality, indent=1).encode(), "application/json", settings)]
    properties = dict(kennel_settings.TAG)
    if archive.REPORT in files:
        puts.append(_put(folder + archive.REPORT, files[archive.REPORT], "text/html", settings))
        properties["report"] = f"s3://{settings.bucket}/{folder}{archive.REPORT}"
    properties = model_quality.properties(job.about, report, properties)
    container = {"Image": artifact.image, "ModelDataUrl": artifact.data}
    types = options.types or [settings.endpoint_instance_type]
    approval = APPROVED if options.approve else PENDING
    request = package_requests.request(group, container, types, approval, properties, settings)
    statistics = {"ContentType": "application/json", "S3Uri": f"s3://{settings.bucket}/{folder}{_STATISTICS}"}
    request["ModelMetrics"] = {"ModelQuality": {"Statistics": statistics}}
    lines += [f"  {name}: {value}" for name, value in properties.items() if name not in kennel_settings.TAG]
    lines.append(f"  served on {', '.join(types)}; {approval}")
    return [*puts, *_group(group, lines, settings), _create(request)], lines


def _put(key: str, body: bytes, kind: str, settings: Settings) -> Call:
    request = {"Bucket": settings.bucket, "Key": key, "Body": body, "ContentType": kind, **s3.encryption(settings)}
    return Call("s3", "put_object", request, "Key", "delete_object", {"Bucket": settings.bucket})


def _group(group: str, lines: list[str], settings: Settings) -> list[Call]:
    """What makes the group, where there is none."""
    if model_packages.group_is_there(group, settings):
        return []
    lines.append(f"  also made: model package group {group}")
    return [package_requests.group_call(group, settings)]


def _create(request: dict[str, Any]) -> Call:
    return Call("sagemaker", "create_model_package", request, "ModelPackageGroupName")
