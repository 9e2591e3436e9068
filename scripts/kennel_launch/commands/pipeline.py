"""`kennel pipeline`: a SageMaker pipeline that trains, and registers what is accurate; made, started or written."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.advice import access, adviser, costs
from kennel_launch.aws import manifests, session, sync
from kennel_launch.console import confirm, flags
from kennel_launch.hosting import rollout, specs
from kennel_launch.jobs import input_channels, pipeline, pipeline_run, training_job
from kennel_launch.jobs.pipeline import Registration
from kennel_launch.jobs.requests import Training
from kennel_launch.models import model_packages, package_requests
from kennel_launch.settings import Settings

_PARTS = f"{pipeline.TRAIN} -> {pipeline.CHECK} -> {pipeline.REGISTER}"


@dataclass(frozen=True)
class Planned:
    """A definition that is to be sent, or the one that is there."""

    definition: Mapping[str, Any]
    lines: list[str]
    calls: list[rollout.Call]
    uploads: list[sync.UploadPlan] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "kennel pipeline NAME --data PHOTOS --min-accuracy 0.9 [--start] [flags]\n"
        "       kennel pipeline NAME --start [--parameter NAME=VALUE]"
    )
    parser.add_argument("name", metavar="NAME", help="of the pipeline; with --data it is made, or changed")
    input_channels.add_flags(parser)
    parser.add_argument("--min-accuracy", default="", metavar="SHARE", help="of what is registered, as 0.9")
    parser.add_argument("--metric", default=pipeline.METRICS[0], choices=pipeline.METRICS, help="that it is judged by")
    parser.add_argument("--group", default="", help="of the model registry (default: the pipeline's name)")
    parser.add_argument("--approve", action="store_true", help="what is registered may be deployed at once")
    parser.add_argument("--start", action="store_true", help="an execution of it")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="of --start; repeat")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the definition there, make nothing")
    flags.add_doing(parser, wait="follow the execution; exit code 1 where it does not succeed")
    flags.add_hyperparameters(parser)
    flags.add_training(parser, folded="kennel train")
    kennel_settings.add_flags(parser, folded="kennel train")


def run(options: argparse.Namespace) -> int:
    """0: made, started or written, with --wait: succeeded; 1: it did not.

    Raises:
        UserError: it can't be done as asked; nothing is left behind.
    """
    settings = kennel_settings.load(vars(options))
    given = flags.hyperparameters_of(options)
    parameters = flags.environment(options.parameter, "--parameter")
    name = check(options, parameters)
    if options.dry_run:
        session.dry_run(settings)
    if options.write:
        return write(options, settings, given)
    there = pipeline_run.find(name, settings)
    plan = defined(options, settings, given, there) if options.data else existing(name, there)
    asked = pipeline.checked_parameters(plan.definition, parameters)
    calls, lines = [*plan.calls], [*plan.lines]
    if options.start:
        calls.append(pipeline_run.start_call(name, asked))
        lines += start_lines(plan, parameters, settings)
    confirm.ask(lines, options.yes or options.dry_run)
    training_job.send(plan.uploads, settings, dry_run=options.dry_run)
    answers = rollout.send(calls, settings, removal="kennel delete --pipeline {name}")
    if options.dry_run:
        return 0
    if not options.start:
        print(f"{name}\nstart it: kennel pipeline {name} --start")
        return 0
    execution = answers[-1]["PipelineExecutionArn"]
    print(execution)
    if options.wait:
        return pipeline_run.follow(execution, settings)
    print(f"see it: kennel status {name}", file=sys.stderr)
    return 0


def check(options: argparse.Namespace, parameters: Mapping[str, str]) -> str:
    """The pipeline's name.

    Raises:
        UserError: the flags do not go together.
    """
    if not options.data and (options.write or not options.start):
        raise UserError("say what it trains on, --data and --min-accuracy, or --start the one that is there")
    if options.data and not options.min_accuracy:
        raise UserError("say from which accuracy a model is registered: --min-accuracy 0.9")
    if (parameters or options.wait) and not options.start:
        raise UserError("--parameter and --wait are of an execution: add --start, or leave them out")
    if options.write and (options.start or options.dry_run):
        raise UserError("--write makes nothing: leave out --start and --dry-run")
    return specs.checked(options.name, "pipeline")


def write(options: argparse.Namespace, settings: Settings, given: Mapping[str, str]) -> int:
    """The definition as a file; nothing is uploaded.

    Raises:
        UserError: a setting is missing, or the file cannot be written.
    """
    training, plans = training_of(options, settings, given)
    made = pipeline.text(pipeline.definition(settings, training, registration(options)))
    try:
        options.write.write_text(made + "\n")
    except OSError as error:
        raise UserError(f"{options.write} cannot be written ({error.strerror}): name another file") from error
    for plan in plans.values():
        print(f"nothing is uploaded: kennel upload puts the photos into {plan.uri}", file=sys.stderr)
    print(options.write)
    return 0


def defined(
    options: argparse.Namespace,
    settings: Settings,
    given: Mapping[str, str],
    there: pipeline_run.PipelineInfo | None,
) -> Planned:
    """What makes the pipeline, or changes it.

    Raises:
        UserError: a setting is missing, or an execution would fail.
    """
    training, plans = training_of(options, settings, given)
    settings = replace(settings, role=session.role_arn(settings))
    asked = registration(options)
    definition = pipeline.definition(settings, training, asked)
    advice = adviser.check_training(settings, spot=training.spot, hours=training.max_run / 3600)
    volume = input_channels.check_volume(options, settings, plans, training.channels, given)
    calls = [pipeline_run.definition_call(options.name, pipeline.text(definition), there, settings)]
    lines = [
        f"{'updates' if there else 'creates'} pipeline {options.name}: {_PARTS}",
        f"hyperparameters: {flags.changed(given)}",
        "parameters: " + " ".join(f"{row['Name']}={row['DefaultValue']}" for row in definition["Parameters"]),
        f"registers in model package group {asked.group} from {asked.metric} {asked.threshold:g}",
    ]
    if not model_packages.group_is_there(asked.group, settings):
        calls.insert(0, package_requests.group_call(asked.group, settings))
        lines.append(f"also made: model package group {asked.group}")
    lines += [*input_channels.shown(training.channels, plans), *volume, *access.check_pipeline(settings)]
    return Planned(definition, [*lines, *advice.lines], calls, list(plans.values()))


def existing(name: str, there: pipeline_run.PipelineInfo | None) -> Planned:
    """The pipeline as it is.

    Raises:
        UserError: there is none.
    """
    if there is None:
        raise UserError(f"there is no pipeline {name}: --data and --min-accuracy make it")
    return Planned(there.definition, [], [])


def start_lines(plan: Planned, parameters: Mapping[str, str], settings: Settings) -> list[str]:
    """What an execution runs, and what it costs where the definition's own advice does not say it."""
    kind, count, hours = pipeline.machines(plan.definition, parameters)
    words = " ".join(f"{name}={value}" for name, value in parameters.items())
    lines = [f"starts an execution: {count} × {kind}{', ' if words else ''}{words}"]
    if plan.calls and pipeline.INSTANCE_TYPE not in parameters:
        return lines
    cost = costs.hourly(kind, session.region(settings), settings, costs.TRAINING)
    return [*lines, *costs.say(cost, kind, count, hours)]


def registration(options: argparse.Namespace) -> Registration:
    """
    Raises:
        UserError: the threshold is no share, or the group's name is none.
    """
    threshold = pipeline.share(options.min_accuracy, "--min-accuracy")
    group = specs.checked(options.group or options.name, "model package group")
    return Registration(group, threshold, options.metric, options.approve)


def training_of(
    options: argparse.Namespace, settings: Settings, given: Mapping[str, str]
) -> tuple[Training, dict[str, sync.UploadPlan]]:
    """The training of each execution, and what must be uploaded for it first.

    Raises:
        UserError: a setting is missing, or no job could be so.
    """
    flags.changed(given)
    more = flags.checked_training(options)
    kennel_settings.needed(settings, "role", "bucket", "image")
    manifests.check_mode(input_channels.photos_of(options), options.input_mode)
    plans, channels = input_channels.placed(options, settings)
    more["streamed"] = input_channels.streamed(channels, settings)
    return Training(options.name, channels, dict(given), **more), plans
