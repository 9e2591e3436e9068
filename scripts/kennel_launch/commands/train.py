"""`kennel train`: one training job on SageMaker, or by --local in the SDK's local mode; shown before it is made."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from kennel import hyperparameters
from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import inventory, session
from kennel_launch.aws.sdk import Training
from kennel_launch.console import flags
from kennel_launch.jobs import input_channels, training_job
from kennel_launch.local_mode import local_job
from kennel_launch.settings import Settings

_LOCALLY = ("local", "out", "sdk_run", "name", "env", "image", "instance_count", "wait", "yes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "kennel train --data FOLDER|S3-URI [flags]"
    input_channels.add_flags(parser)
    parser.add_argument("--from-tuning-job", default="", metavar="NAME", help="take the settings of its best job")
    parser.add_argument("--from-model", default="", metavar="S3-URI", help="go on from an earlier job's model.tar.gz")
    parser.add_argument("--name", default="", help="of the job (kennel-<time>)")
    parser.add_argument("--debugger", action="store_true", help="AWS's debugger and profiler rules")
    local_job.add_arguments(parser)
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
    given = flags.hyperparameters_of(options)
    flags.refuse_without_local(options)
    if options.local:
        return run_locally(options, settings, given)
    if options.dry_run:
        session.dry_run(settings)
    if options.from_tuning_job:
        given = tuned(options.from_tuning_job, settings) | given
    return training_job.start(options, settings, given)


def run_locally(options: argparse.Namespace, settings: Settings, given: Mapping[str, str]) -> int:
    """The SDK's local mode, on folders; nothing is sent to AWS. Returns what local_job.run does.

    Raises:
        UserError: it can't be started.
    """
    if options.dry_run:
        raise UserError("--dry-run prints what AWS would be sent, and --local sends nothing: leave one of them out")
    flags.refuse_elsewhere(options, (*input_channels.CHANNELS, *_LOCALLY))
    flags.changed(given)
    kennel_settings.needed(settings, "image")
    channels = {}
    for flag, place in input_channels.places(options).items():
        if not Path(place).is_dir():
            raise UserError(f"--{flag.replace('_', '-')} {place}: local mode reads a folder of this machine")
        channels[input_channels.CHANNELS[flag]] = f"file://{Path(place).resolve()}"
    if "train" not in channels:
        raise UserError("say where the photos are: --data FOLDER")
    name = options.sdk_run or training_job.new_name(options.name)
    made = Training(name, channels, dict(given), environment=flags.environment(options.env))
    return (local_job.work if options.sdk_run else local_job.run)(local_job.nowhere(settings), made, options.out)


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
