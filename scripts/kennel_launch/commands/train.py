"""`kennel train`: one training job on SageMaker, shown before it is made, or by --local on this machine."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from kennel import hyperparameters
from kennel.errors import UserError
from kennel.hyperparameters import OF_TRACKING
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import inventory, session
from kennel_launch.console import flags
from kennel_launch.jobs import input_channels, training_job
from kennel_launch.local_mode import local_job
from kennel_launch.local_mode.command_lines import LocalTraining
from kennel_launch.machine import archive
from kennel_launch.settings import Settings

_LOCALLY = ("local", "out", "gpus", "name", "env", "image", "instance_count", *OF_TRACKING, "wait", "yes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "kennel train --data FOLDER|S3-URI [flags]"
    input_channels.add_flags(parser)
    parser.add_argument("--from-tuning-job", default="", metavar="NAME", help="take the settings of its best job")
    parser.add_argument("--from-model", default="", metavar="S3-URI", help="go on from an earlier job's model.tar.gz")
    parser.add_argument("--name", default="", help="of the job (kennel-<time>)")
    parser.add_argument("--debugger", action="store_true", help="AWS's debugger and profiler rules")
    parser.add_argument("--remote-debug", action="store_true", help="let aws ssm open a shell in its containers")
    parser.add_argument("--infra-check", action="store_true", help="have SageMaker test its machines before")
    local_job.add_flags(parser)
    local_job.add_gpus(parser)
    flags.add_doing(parser, wait="follow the log; exit code 1 where the job fails")
    flags.add_hyperparameters(parser)
    flags.add_training(parser)
    kennel_settings.add_flags(parser, kennel_settings.OF_A_JOB)


def run(options: argparse.Namespace) -> int:
    """Starts the job, with --wait until it ends.

    Raises:
        UserError: it can't be started as asked.
    """
    settings = kennel_settings.load(vars(options))
    given = kennel_settings.tracking(settings) | flags.hyperparameters_of(options)
    flags.refuse_without_local(options)
    if options.local:
        return run_locally(options, settings, given)
    if options.dry_run:
        session.dry_run(settings)
    if options.from_tuning_job:
        given = tuned(options.from_tuning_job, settings) | given
    return training_job.start(options, settings, given)


def run_locally(options: argparse.Namespace, settings: Settings, given: Mapping[str, str]) -> int:
    """On folders; nothing is sent to AWS. 0, and the model's folder on stdout; 1: the job failed.

    Raises:
        UserError: it can't be started.
    """
    if options.dry_run:
        raise UserError("--dry-run prints what AWS would be sent, and --local sends nothing: leave one of them out")
    flags.refuse_elsewhere(options, (*input_channels.CHANNELS, *_LOCALLY))
    flags.changed(given)
    channels = {}
    for flag, place in input_channels.places(options).items():
        if not Path(place).is_dir():
            raise UserError(f"--{flag.replace('_', '-')} {place}: --local reads a folder of this machine")
        channels[input_channels.CHANNELS[flag]] = Path(place)
    if "train" not in channels:
        raise UserError("say where the photos are: --data FOLDER")
    training = LocalTraining(
        channels,
        given,
        settings.image,
        options.gpus,
        settings.instance_count,
        training_job.new_name(options.name),
        flags.environment(options.env),
    )
    try:
        layout = local_job.run(training, options.out)
    except local_job.JobFailedError as error:
        kept = f" ({options.out / 'model'} is an earlier job's)" if local_job.image_of(options.out) is not None else ""
        print(f"kennel train: {error}{kept}", file=sys.stderr)
        return 1
    report = layout.output_data / archive.REPORT
    if report.is_file():
        print(f"report: {report}", file=sys.stderr)
    print(layout.model)
    return 0


def tuned(name: str, settings: Settings) -> dict[str, str]:
    """The hyperparameters of a tuning job's best training job.

    Raises:
        UserError: no such job, or none of its jobs has ended well.
    """
    found = inventory.find(name, settings, (inventory.TUNING,))
    best = inventory.best_training_job(found)
    shared = found.about.get("TrainingJobDefinition", {}).get("StaticHyperParameters", {})
    together = shared | best["TunedHyperParameters"]
    return {
        key: str(hyperparameters.unquote(value))
        for key, value in together.items()
        if not hyperparameters.is_platform_key(key)
    }
