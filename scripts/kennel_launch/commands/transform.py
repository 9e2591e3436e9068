"""`kennel transform`: a batch transform job over a folder or an S3 prefix of photos, its answers as predictions.csv."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.advice import adviser
from kennel_launch.aws import instance_types, s3, s3_upload, session, sync
from kennel_launch.console import confirm, flags, terminal
from kennel_launch.console.steps import Steps
from kennel_launch.hosting import rollout, specs
from kennel_launch.hosting.specs import REAL_TIME, EndpointPlan, Source
from kennel_launch.inference import photo_sources, predictions
from kennel_launch.inference.photo_sources import Photo
from kennel_launch.models import artifacts
from kennel_launch.models.artifacts import Artifact
from kennel_launch.settings import Settings

_ENDED = ("Completed", "Failed", "Stopped")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "kennel transform --job NAME|--from-registry GROUP --data PHOTOS [flags]"
    artifacts.add_arguments(parser)
    parser.add_argument("--data", required=True, metavar="FOLDER|s3://...", help="photos; a folder is uploaded")
    parser.add_argument("--out", default="", metavar="s3://...", help="their answers go to a folder there")
    parser.add_argument("--name", default="", help="the transform job's; default: the training job's and the time")
    parser.add_argument("--csv", type=Path, default=Path(predictions.CSV), metavar="FILE", help="%(default)s")
    flags.add_serving_instance_type(parser)
    parser.add_argument("--engine", default="", choices=specs.ENGINES, help="what predicts (default: by the host)")
    flags.add_doing(parser, wait="until it has ended, then fetch the answers")
    kennel_settings.add_flags(parser, kennel_settings.OF_AN_ENDPOINT)


def run(options: argparse.Namespace) -> int:
    """0: started, or with --wait: every photo has an answer; 1: the job failed.

    Raises:
        UserError: it can't be started as asked.
    """
    settings = kennel_settings.load(vars(options))
    kennel_settings.needed(settings, "role", "bucket")
    if options.dry_run:
        session.dry_run(settings)
    settings = replace(settings, role=session.role_arn(settings))
    artifact = artifacts.find(options, settings)
    settings = replace(settings, image=artifact.image)
    plan = planned(options, artifact)
    name, out = plan.name, output(plan.name, options.out, settings)
    if not s3.is_address(options.data) and not Path(options.data).is_dir():
        raise UserError(f"--data {options.data} is no folder: name one with photos, or s3://BUCKET/PREFIX")
    advice = adviser.check_transform(settings)
    photos = photo_sources.find(options.data, settings)
    sent = None
    if not s3.is_address(options.data):
        sent = sync.plan(Path(options.data), settings)
        photos = [Photo(key, file.path) for key, file in sent.files.items() if photo_sources.is_photo(key)]
    lines = [*summary_lines(name, artifact, photos, options.data, out), *([f"  {sent}"] if sent else [])]
    confirm.ask([*lines, *(f"  {line}" for line in advice.lines)], options.yes or options.dry_run)
    if sent and sent.changed and not options.dry_run:  # as for a training job, a dry run shows the job's requests alone
        print(s3_upload.send(sent, settings), file=sys.stderr)
    request = job(name, plan.version, source(options.data, photos, sent, name, settings), out, settings, advice.add)
    model = rollout.model_call(plan, settings)
    start = rollout.Call("sagemaker", "create_transform_job", request, "TransformJobName")
    rollout.send([model, start], settings)
    if options.dry_run:
        return 0
    if not options.wait:
        print(f"started: kennel status {name}")
        print(f"answers: {out}")
        print(f"then remove its model: kennel delete {name}")
        return 0
    return ended(name, [model], out, len(photos), options.csv, settings)


def planned(options: argparse.Namespace, artifact: Artifact) -> EndpointPlan:
    """The model that the job makes its answers with; it has the job's name."""
    stamp = specs.stamp()
    name = specs.checked(options.name, "transform job") if options.name else specs.stamped(artifact.name, stamp)
    return EndpointPlan(
        name, stamp, REAL_TIME, Source(artifact.data, artifact.image, artifact.package), engine=options.engine
    )


def output(name: str, given: str, settings: Settings) -> str:
    """Where the answers go: a folder of the job's own, so that no other job's lie there."""
    return f"{folder(given)}{name}/" if given else f"s3://{settings.bucket}/{settings.prefix}/transform/{name}/out/"


def job(
    name: str, model: str, source: dict[str, Any], out: str, settings: Settings, advised: dict[str, str]
) -> dict[str, Any]:
    """CreateTransformJob's request: a photo a record, and a record a request.

    How many at once and how large they may be is left to the model, which says so by /execution-parameters.
    """
    resources = {"InstanceType": settings.endpoint_instance_type, "InstanceCount": 1, **advised}
    answers = {"S3OutputPath": out, "Accept": "application/jsonlines", "AssembleWith": "None"}
    if settings.kms_key:
        answers["KmsKeyId"] = settings.kms_key
        if not instance_types.has_own_disk(settings.endpoint_instance_type):
            resources["VolumeKmsKeyId"] = settings.kms_key
    return {
        "TransformJobName": name,
        "ModelName": model,
        "BatchStrategy": "SingleRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": source},
            "ContentType": photo_sources.ANY_PHOTO,
            "SplitType": "None",
            "CompressionType": "None",
        },
        "TransformOutput": answers,
        "TransformResources": resources,
        "Tags": kennel_settings.tags(settings),
    }


def source(
    address: str, photos: list[Photo], uploaded: sync.UploadPlan | None, name: str, settings: Settings
) -> dict[str, str]:
    """The job's S3DataSource: all of a prefix, or a list of its photos where other files lie there.

    Args:
        uploaded: what was, or in a dry run would be, sent of a folder; then `address` is the folder's.

    One object that is no photo would fail the whole job.
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TransformOutput.html
    """
    alone = photos[0].name == address
    beside = f"{address.rpartition('/')[0]}/" if alone else ""
    root = uploaded.uri if uploaded else beside or folder(address)
    client = session.client("s3", settings)
    with session.translate_errors(root):
        there = s3.keys(client, *s3.split(root), markers=True)
        keys = {*uploaded.files, *uploaded.gone} if uploaded else {key.removeprefix(s3.split(root)[1]) for key in there}
        if not alone and keys == {photo.name for photo in photos}:
            return {"S3DataType": "S3Prefix", "S3Uri": root}
        manifest = f"{settings.prefix}/transform/{name}/photos.manifest"
        names = [photo.address.removeprefix(root) if photo.address else photo.name for photo in photos]
        listed = json.dumps([{"prefix": root}, *names])
        client.put_object(Bucket=settings.bucket, Key=manifest, Body=listed.encode(), **s3.encryption(settings))
    return {"S3DataType": "ManifestFile", "S3Uri": f"s3://{settings.bucket}/{manifest}"}


def summary_lines(name: str, artifact: Artifact, photos: list[Photo], data: str, out: str) -> Iterator[str]:
    """What is going to be made."""
    yield f"creates transform job {name}: {len(photos)} photos of {data}"
    yield f"  model: {artifact.data}"
    yield f"  answers: {out}"


def ended(name: str, made: list[rollout.Call], out: str, count: int, path: Path, settings: Settings) -> int:
    """Waits, removes the model, fetches the answers; says how it ended."""
    steps = Steps(terminal.err())
    try:
        with steps.phase("batch", f"{count} photos") as show:
            found = _wait(name, settings, lambda status: show(f"{name}: {status}", 0))
    except (KeyboardInterrupt, SystemExit):
        print(f"transform job {name} goes on: kennel status {name}", file=sys.stderr)
        raise
    rollout.undo(made, settings)  # a model costs nothing, and is of no use any more
    with session.translate_errors(out):
        answers = predictions.fetch(session.client("s3", settings), out, steps)
    good = [answer for answer in answers if not answer.error]
    if answers:
        predictions.write(answers, path)
        terminal.out().print(predictions.summary(good))
        print(f"{len(good)} of {count} photos have an answer: {path}")
    for answer in answers:
        if answer.error:
            print(f"refused: {answer.photo} ({answer.error})", file=sys.stderr)
    if found["TransformJobStatus"] == "Completed" and len(good) >= count:
        return 0
    if found["TransformJobStatus"] == "Completed":
        print(f"kennel transform: {count - len(good)} of {count} photos have no answer", file=sys.stderr)
        return 1
    reason = found.get("FailureReason") or "SageMaker gives no reason"
    print(f"kennel transform: {name} is {found['TransformJobStatus']}: {reason}", file=sys.stderr)
    return 1


def folder(address: str) -> str:
    """An address in S3 that ends with a slash."""
    s3.split(address)
    return address if address.endswith("/") else f"{address}/"


def _wait(name: str, settings: Settings, show: Any) -> dict[str, Any]:
    client = session.client("sagemaker", settings)
    for pause in rollout.pauses():
        with session.translate_errors(f"transform job {name}"):
            found: dict[str, Any] = client.describe_transform_job(TransformJobName=name)
        show(found["TransformJobStatus"])
        if found["TransformJobStatus"] in _ENDED:
            return found
        time.sleep(pause)
    raise AssertionError("unreachable")
