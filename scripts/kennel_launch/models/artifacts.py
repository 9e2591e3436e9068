"""Which model is meant: by a training job, a search's best, a package of the model registry, its address in S3."""

import argparse
from dataclasses import dataclass
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import inventory, s3, session
from kennel_launch.models import model_packages
from kennel_launch.settings import Settings

_USABLE = ("Completed", "Stopped")  # a stopped job leaves its best epoch so far


@dataclass(frozen=True)
class Artifact:
    """A model.tar.gz, the image that made it, and what to call what is made from it."""

    name: str
    data: str  # s3://
    image: str
    package: str = ""  # of the model registry, its ARN
    types: tuple[str, ...] = ()  # instance types that the package says to be served on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--job", default="", metavar="NAME", help="the model of this training job")
    source.add_argument("--tuning-job", default="", metavar="NAME", help="the model of its best training job")
    source.add_argument("--model", default="", metavar="s3://", help="a model.tar.gz")
    source.add_argument(
        "--from-registry", default="", metavar="GROUP[/N]", help="its newest approved version, or that version"
    )


def find(options: argparse.Namespace, settings: Settings) -> Artifact:
    """The model that the command's flags name, with the settings' image or else the job's own.

    Raises:
        UserError: none is named, there is no such job, or it left no model.
    """
    if options.model:
        _, key = s3.split(options.model)
        if not settings.image:
            raise UserError("--model says nothing of the image that serves it: add --image")
        return Artifact(_last_folder(key), options.model, settings.image)
    if options.tuning_job:
        search = inventory.find(options.tuning_job, settings, (inventory.TUNING,))
        return of_job(inventory.best_training_job(search)["TrainingJobName"], settings)
    if options.job:
        return of_job(options.job, settings)
    if options.from_registry:
        return of_package(options, settings)
    raise UserError(
        "say which model: --job NAME, --tuning-job NAME, --from-registry GROUP or --model s3://BUCKET/.../model.tar.gz"
    )


def of_job(name: str, settings: Settings) -> Artifact:
    """A training job's model.

    Raises:
        UserError: there is no such job, or it left no model.
    """
    with session.translate_errors(f"training job {name}"):
        job: dict[str, Any] = session.client("sagemaker", settings).describe_training_job(TrainingJobName=name)
    status = job["TrainingJobStatus"]
    data = job.get("ModelArtifacts", {}).get("S3ModelArtifacts", "")
    if status not in _USABLE or not data:
        why = f" ({job['FailureReason'].splitlines()[0]})" if job.get("FailureReason") else ""
        ended = "wait until it has ended" if status in ("InProgress", "Stopping") else "name another one"
        raise UserError(f"training job {name} is {status}{why} and has no model to serve: {ended}")
    return Artifact(name, data, settings.image or job["AlgorithmSpecification"].get("TrainingImage", ""))


def of_package(options: argparse.Namespace, settings: Settings) -> Artifact:
    """The model of a package, with the image that it was registered with.

    Raises:
        UserError: there is none that is approved, or another image is asked for.
    """
    package = model_packages.to_serve(options.from_registry, settings)
    if options.image and options.image != package.image:
        raise UserError(
            f"--image {options.image}: model package {package} names its own, {package.image}: leave it out"
        )
    return Artifact(package.group, package.data, package.image, package.arn, package.instance_types)


def _last_folder(key: str) -> str:
    """What a model's address says of it: of kennel/JOB/output/model.tar.gz the job; SageMaker takes it as a name."""
    parts = [part for part in key.split("/") if part not in ("", "output", "model.tar.gz")]
    name = (parts[-1] if parts else "model").removesuffix(".tar.gz")
    cleaned = "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in name).split())
    return cleaned[:63].rstrip("-") or "model"
