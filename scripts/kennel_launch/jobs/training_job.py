"""One training job on SageMaker: checked, shown, asked about, its photos uploaded, started, and followed."""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.advice import adviser
from kennel_launch.aws import inventory, log_stream, manifests, s3_upload, session, sync
from kennel_launch.console import confirm, flags
from kennel_launch.jobs import input_channels, requests
from kennel_launch.jobs.requests import Training
from kennel_launch.settings import Settings

_NEEDED = ("role", "bucket", "image")
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")  # botocore's service model, TrainingJobName


def start(options: argparse.Namespace, settings: Settings, given: Mapping[str, str]) -> int:
    """One training job with these hyperparameters; also that of `kennel tune --one-job`.

    Raises:
        UserError: as `run`.
    """
    differs = flags.changed(given)
    more = flags.checked_training(options)
    kennel_settings.needed(settings, *_NEEDED)
    manifests.check_mode(input_channels.photos_of(options), options.input_mode)
    name = new_name(options.name)
    more |= {flag: getattr(options, flag, False) for flag in ("debugger", "remote_debug", "infra_check")}
    if more["remote_debug"] and options.network_isolation:
        raise UserError("--remote-debug and --network-isolation: a shell needs a way in: leave one of them out")
    advice = adviser.check_training(
        settings, spot=options.spot, hours=options.max_run / 3600, remote_debug=more["remote_debug"]
    )
    plans, channels = input_channels.placed(options, settings)
    lines = input_channels.check_volume(options, settings, plans, channels, given)
    more["streamed"] = input_channels.streamed(channels, settings)
    made = Training(name, channels, dict(given), **more)
    if made.spot and not made.checkpoints:
        made = replace(made, checkpoints=f"s3://{settings.bucket}/{settings.prefix}/checkpoints/{name}")
    first = [
        f"training job {name}: {settings.instance_count} × {settings.instance_type}",
        f"hyperparameters: {differs}",
    ]
    agree([*first, *input_channels.shown(channels, plans), *lines, *advice.lines], options)
    send(plans.values(), settings, dry_run=options.dry_run)
    with session.translate_errors(f"training job {name}"):
        session.client("sagemaker", settings).create_training_job(**requests.training_job(settings, made))
    if options.dry_run:
        return 0
    print(name)
    if made.remote_debug:
        print(f"a shell in it: aws ssm start-session --target sagemaker-training-job:{name}_algo-1", file=sys.stderr)
    if not options.wait:
        print(f"follow it: kennel logs {name} --follow; see it: kennel status {name}", file=sys.stderr)
        return 0
    return log_stream.follow(inventory.find(name, settings, (inventory.TRAINING,)), settings)


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


def send(plans: Iterable[sync.UploadPlan], settings: Settings, *, dry_run: bool) -> None:
    """Uploads what a job will read; a dry run shows the job's request alone."""
    for plan in () if dry_run else plans:
        if plan.changed:
            print(s3_upload.send(plan, settings), file=sys.stderr)
