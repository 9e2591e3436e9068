"""`kennel tune` on SageMaker: its own tuner, or by --one-job one training job that tries all settings itself."""

import argparse
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from kennel.errors import UserError
from kennel.search import sagemaker_tuner
from kennel_launch import settings as kennel_settings
from kennel_launch.advice import adviser
from kennel_launch.aws import inventory, log_stream, manifests, session
from kennel_launch.console import flags
from kennel_launch.jobs import input_channels, requests, training_job
from kennel_launch.jobs.requests import Training
from kennel_launch.settings import Settings

_STRATEGIES = " or ".join(sagemaker_tuner.STRATEGIES)
_POLL = 5.0  # seconds
_NEEDED = ("role", "bucket", "image")
_LONGEST_NAME = 32  # botocore's service model, HyperParameterTuningJobName


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SageMaker's tuner, beside what a search by ourselves has."""
    group = parser.add_argument_group("SageMaker's tuner")
    group.add_argument("--one-job", action="store_true", help="no tuner: one job that tries --trials settings")
    group.add_argument(
        "--tuner", choices=sagemaker_tuner.STRATEGIES, default="Bayesian", metavar="NAME", help=_STRATEGIES
    )
    group.add_argument("--jobs", type=int, metavar="N", help="training jobs in all (20, or a grid's points)")
    group.add_argument("--parallel", type=int, default=1, metavar="N", help="at a time (1)")
    group.add_argument("--early-stopping", choices=("on", "off"), help="(on, where the strategy allows it)")
    group.add_argument("--target", type=float, metavar="ACCURACY", help="end when a job reaches it")
    group.add_argument("--no-improvement", type=int, metavar="N", help="end after so many jobs that are not better")
    group.add_argument("--convergence", action="store_true", help="end when nothing better is to come")
    group.add_argument("--max-runtime", type=int, metavar="SECONDS", help="of the whole search")
    group.add_argument("--tuner-seed", type=int, metavar="N", help="of what the tuner tries")
    group.add_argument(
        "--warm-start", action="append", default=[], metavar="NAME", help="learn from a tuning job; repeat"
    )
    group.add_argument("--transfer", action="store_true", help="with --warm-start, from other data or image")


def run(options: argparse.Namespace, given: Mapping[str, str]) -> int:
    """Starts the search, with --wait until it ends.

    Args:
        given: the hyperparameters that all jobs share, or those of the one job.

    Raises:
        UserError: it can't be started as asked.
    """
    settings = kennel_settings.load(vars(options))
    if options.dry_run:
        session.dry_run(settings)
    if options.one_job:
        return training_job.start(options, settings, given)
    request = sagemaker_tuner.tuning_request(given, options.search_space, asked(options))
    more = flags.checked_training(options)
    kennel_settings.needed(settings, *_NEEDED)
    manifests.check_mode(input_channels.photos_of(options), options.input_mode)
    name = training_job.new_name(options.name)
    if len(name) > _LONGEST_NAME:
        raise UserError(f"--name {name}: a tuning job's has {_LONGEST_NAME} letters at most")
    limits = request["HyperParameterTuningJobConfig"]["ResourceLimits"]
    turns = math.ceil(limits["MaxNumberOfTrainingJobs"] / limits["MaxParallelTrainingJobs"])
    hours = turns * options.max_run / 3600
    advice = adviser.check_training(settings, spot=options.spot, jobs=options.parallel, hours=hours)
    plans, channels = input_channels.placed(options, settings)
    shared = request["TrainingJobDefinition"]["StaticHyperParameters"]
    more["streamed"] = input_channels.streamed(channels, settings)
    found = input_channels.check_volume(options, settings, plans, channels, shared)
    made = Training(name, channels, shared, **_spot(more, settings, name))
    lines = _lines(made, request, settings)
    training_job.agree([*lines, *input_channels.shown(channels, plans), *found, *advice.lines], options)
    training_job.send(plans.values(), settings, dry_run=options.dry_run)
    with session.translate_errors(f"tuning job {name}"):
        client = session.client("sagemaker", settings)
        client.create_hyper_parameter_tuning_job(**requests.tuning_job(settings, made, request))
    if options.dry_run:
        return 0
    print(name)
    if options.wait:
        return follow(name, settings)
    print(f"see it: kennel status {name}", file=sys.stderr)
    return 0


def asked(options: argparse.Namespace) -> sagemaker_tuner.Options:
    """The flags as kennel.search.sagemaker_tuner has them."""
    return sagemaker_tuner.Options(
        strategy=options.tuner,
        jobs=options.jobs,
        parallel=options.parallel,
        early_stopping=None if options.early_stopping is None else options.early_stopping == "on",
        target=options.target,
        no_improvement=options.no_improvement,
        convergence=options.convergence,
        max_runtime=options.max_runtime,
        seed=options.tuner_seed,
        parents=tuple(options.warm_start),
        warm_start=sagemaker_tuner.WARM_STARTS[1 if options.transfer else 0],
    )


def follow(name: str, settings: Settings) -> int:
    """A line whenever a job begins or ends, then how the search ended: 0 completed, 1 failed or stopped.

    Raises:
        UserError: AWS refuses.
    """
    said = ""
    try:
        while True:
            now = inventory.find(name, settings, (inventory.TUNING,))
            line = inventory.tuning_progress(now.about)
            if line != said:
                print(line, flush=True)
                said = line
            if now.ended:
                return _ended(now)
            time.sleep(kennel_settings.pause(_POLL))
    except KeyboardInterrupt:
        stop = f"aws sagemaker stop-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name {name}"
        print(f"{name} goes on: kennel status {name}, or end it: {stop}", file=sys.stderr)
        raise


def _ended(now: inventory.Resource) -> int:
    code = log_stream.ended(now)
    if now.about.get("BestTrainingJob"):
        print(f"train with it: kennel train --from-tuning-job {now.name} --data ...", file=sys.stderr)
    return code


def _lines(made: Training, request: Mapping[str, Any], settings: Settings) -> list[str]:
    """What is going to be searched, where, and on how many machines."""
    config = request["HyperParameterTuningJobConfig"]
    limits = config["ResourceLimits"]
    return [
        f"tuning job {made.name}: {config['Strategy']}, {limits['MaxNumberOfTrainingJobs']} training jobs, "
        f"{limits['MaxParallelTrainingJobs']} at a time, each {settings.instance_count} × {settings.instance_type}",
        f"searched: {_space(config['ParameterRanges'])}",
        f"shared: {flags.changed(made.hyperparameters)}",
    ]


def _spot(more: dict[str, Any], settings: Settings, name: str) -> dict[str, Any]:
    """SageMaker adds each training job's name to the place of the checkpoints."""
    if more["spot"] and not more["checkpoints"]:
        return more | {"checkpoints": f"s3://{settings.bucket}/{settings.prefix}/checkpoints/{name}"}
    return more


def _space(ranges: Mapping[str, Any]) -> str:
    words = []
    for rows in ranges.values():
        for row in rows:
            span = ",".join(row["Values"]) if "Values" in row else f"{row['MinValue']}..{row['MaxValue']}"
            words.append(f"{row['Name']}={span}")
    return " ".join(words)
