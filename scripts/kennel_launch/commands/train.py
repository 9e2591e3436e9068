"""`kennel train`: one training job on SageMaker, or by --local in the SDK's local mode; shown before it is made."""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from kennel import hyperparameters
from kennel.errors import UserError
from kennel_launch import settings
from kennel_launch.advice import adviser
from kennel_launch.aws import inventory, manifests, sdk, session, sync
from kennel_launch.aws.sdk import Training
from kennel_launch.commands import logs, upload
from kennel_launch.console import confirm, flags
from kennel_launch.jobs import channels as inputs
from kennel_launch.local_mode import local_job
from kennel_launch.settings import Settings

OF_A_JOB = tuple(name for name in settings.ROWS if name != "endpoint_instance_type")
_NEEDED = ("role", "bucket", "image")
_LOCALLY = ("local", "out", "sdk_run", "name", "env", "image", "instance_count", "wait", "yes")
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")  # botocore's service model, TrainingJobName


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "kennel train --data FOLDER|S3-URI [flags]"
    add_channels(parser)
    parser.add_argument("--from-tuning-job", default="", metavar="NAME", help="take the settings of its best job")
    parser.add_argument("--from-model", default="", metavar="S3-URI", help="go on from an earlier job's model.tar.gz")
    parser.add_argument("--name", default="", help="of the job (kennel-<time>)")
    parser.add_argument("--debugger", action="store_true", help="AWS's debugger and profiler rules")
    local_job.add_arguments(parser)
    flags.add_doing(parser, wait="follow the log; exit code 1 where the job fails")
    flags.add_hyperparameters(parser)
    flags.add_training(parser)
    settings.add_flags(parser, OF_A_JOB)


def add_channels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="", metavar="PHOTOS", help="a folder, which is uploaded, or s3://...")
    parser.add_argument("--val", default="", metavar="PHOTOS", help="validation, where it is not inside the data")
    parser.add_argument("--test", default="", metavar="PHOTOS", help="photos that judge the model at the end")
    parser.add_argument(
        "--pretrained", default="", metavar="WEIGHTS", help="a folder or s3://... with weights; or false"
    )


def run(options: argparse.Namespace) -> int:
    """Starts the job, with --wait until it ends.

    Raises:
        UserError: it can't be started as asked.
    """
    told = settings.load(vars(options))
    given = flags.hyperparameters_of(options)
    if options.local:
        return run_locally(options, told, given)
    if options.dry_run:
        session.dry_run(told)
    if options.from_tuning_job:
        given = tuned(options.from_tuning_job, told) | given
    return start(options, told, given)


def start(options: argparse.Namespace, told: Settings, given: Mapping[str, str]) -> int:
    """One training job with these hyperparameters; also that of `kennel tune --one-job`.

    Raises:
        UserError: as `run`.
    """
    differs = flags.changed(given)
    more = flags.checked_training(options)
    settings.needed(told, *_NEEDED)
    manifests.check_mode(inputs.photos_of(options), options.input_mode)
    name = new_name(options.name)
    advice = adviser.check_training(told, spot=options.spot, hours=options.max_run / 3600)
    plans, channels = inputs.placed(options, told)
    lines = inputs.check_volume(options, told, plans, channels, given)
    more["streamed"] = inputs.streamed(channels, told)
    made = Training(name, channels, dict(given), **more, debugger=getattr(options, "debugger", False))
    if made.spot and not made.checkpoints:
        made = replace(made, checkpoints=f"s3://{told.bucket}/{told.prefix}/checkpoints/{name}")
    first = [f"training job {name}: {told.instance_count} × {told.instance_type}", f"hyperparameters: {differs}"]
    agree([*first, *inputs.shown(channels, plans), *lines, *advice.lines], options)
    send(plans.values(), told, dry_run=options.dry_run)
    sdk.train(told, made)
    if options.dry_run:
        return 0
    print(name)
    if not options.wait:
        print(f"follow it: kennel logs {name} --follow; see it: kennel status {name}", file=sys.stderr)
        return 0
    return logs.follow(inventory.find(name, told, (inventory.TRAINING,)), told)


def run_locally(options: argparse.Namespace, told: Settings, given: Mapping[str, str]) -> int:
    """The SDK's local mode, on folders; nothing is sent to AWS. Returns what local_job.run does.

    Raises:
        UserError: it can't be started.
    """
    if options.dry_run:
        raise UserError("--dry-run prints what AWS would be sent, and --local sends nothing: leave one of them out")
    flags.refuse_elsewhere(options, (*inputs.CHANNELS, *_LOCALLY))
    flags.changed(given)
    settings.needed(told, "image")
    channels = {}
    for flag, place in inputs.places(options).items():
        if not Path(place).is_dir():
            raise UserError(f"--{flag.replace('_', '-')} {place}: local mode reads a folder of this machine")
        channels[inputs.CHANNELS[flag]] = f"file://{Path(place).resolve()}"
    if "train" not in channels:
        raise UserError("say where the photos are: --data FOLDER")
    name = options.sdk_run or new_name(options.name)
    made = Training(name, channels, dict(given), environment=flags.environment(options.env))
    return (local_job.work if options.sdk_run else local_job.run)(local_job.nowhere(told), made, options.out)


def new_name(given: str) -> str:
    """The name as given, or one of the time that no other job has.

    Raises:
        UserError: SageMaker takes no such name.
    """
    if given and not _NAME.fullmatch(given):
        raise UserError(f"--name {given}: letters, digits and single hyphens, 63 at most")
    return given or f"{inventory.PREFIX}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"[:-3]


def agree(lines: Iterable[str], options: argparse.Namespace) -> None:
    """Asks, unless nothing will be created anyway.

    Raises:
        UserError: the answer is no.
    """
    confirm.ask(lines, yes=options.yes or options.dry_run)


def send(plans: Iterable[sync.Plan], told: Settings, *, dry_run: bool) -> None:
    """Uploads what a job will read; a dry run shows the job's request alone."""
    for plan in () if dry_run else plans:
        if plan.changed:
            print(upload.send(plan, told), file=sys.stderr)


def tuned(name: str, told: Settings) -> dict[str, str]:
    """The hyperparameters of a tuning job's best training job.

    Raises:
        UserError: no such job, or none of its jobs has ended well.
    """
    found = inventory.find(name, told, (inventory.TUNING,))
    best = found.about.get("BestTrainingJob")
    if not best:
        raise UserError(f"tuning job {name} has no best training job yet ({found.status}): see kennel status {name}")
    shared = found.about.get("TrainingJobDefinition", {}).get("StaticHyperParameters", {})
    together = shared | best["TunedHyperParameters"]
    return {
        key: str(hyperparameters.unquote(value))
        for key, value in together.items()
        if not hyperparameters.is_platform_key(key)
    }
