"""`kennel deploy`: a trained model becomes an endpoint or its next version; shown and asked about before it costs."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.advice import adviser
from kennel_launch.aws import instance_types, s3, session
from kennel_launch.console import confirm, flags, terminal
from kennel_launch.console.steps import Steps
from kennel_launch.hosting import capacity, components, endpoint_info, rollout, scaling, specs, ttl
from kennel_launch.hosting.endpoint_info import EndpointInfo
from kennel_launch.hosting.specs import ASYNC, MULTI_MODEL, REAL_TIME, SERVERLESS, EndpointPlan, Source
from kennel_launch.local_mode import local_endpoint, local_job
from kennel_launch.models import artifacts
from kennel_launch.models.artifacts import Artifact
from kennel_launch.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "kennel deploy --job JOB|--from-registry GROUP|--model URI|--local [flags]"
    parser.epilog = "--local serves what kennel train --local left in --out, or --model FILE.tar.gz|FOLDER"
    artifacts.add_arguments(parser)
    parser.add_argument("--mode", default=REAL_TIME, choices=specs.MODES)
    parser.add_argument("--name", default="", help="the endpoint's (default: the training job's)")
    flags.add_serving_instance_type(parser)
    parser.add_argument("--memory", type=int, metavar="MB", help=f"of a serverless endpoint ({specs.MEMORY})")
    parser.add_argument(
        "--max-concurrency",
        type=int,
        metavar="N",
        help=f"requests that it takes at once ({specs.CONCURRENCY})",
    )
    capacity.add_arguments(parser)
    parser.add_argument("--engine", default="", choices=specs.ENGINES, help="what predicts (default: by the host)")
    parser.add_argument("--ttl", default="", metavar="TIME", help="delete it after so long: 90m, 2h, 1d")
    parser.add_argument("--scheduler-role", default="", metavar="ARN", help="by which --ttl deletes it")
    local_job.add_flags(parser)
    local_job.add_gpus(parser)
    parser.add_argument("--port", type=int, default=8080, help="of --local, on loopback (%(default)s)")
    flags.add_doing(parser)
    kennel_settings.add_flags(parser, kennel_settings.OF_AN_ENDPOINT, folded="kennel transform")


def run(options: argparse.Namespace) -> int:
    """0: in service; 1: it could not be started.

    Raises:
        UserError: it can't be deployed as asked; nothing is left behind.
    """
    length = ttl.parse(options.ttl) if options.ttl else None
    settings = kennel_settings.load(vars(options))
    flags.refuse_without_local(options)
    if options.local:
        return local_endpoint.deploy(options, settings)
    check_flags(options, settings)
    if options.dry_run:
        session.dry_run(settings)
    settings = replace(settings, role=session.role_arn(settings))
    artifact = artifacts.find(options, settings)
    settings = replace(settings, image=artifact.image)
    plan = planned(options, settings, artifact)
    check_models(plan, artifact, settings)
    there = endpoint_info.find(plan.name, settings)
    plan = capacity.planned(plan, options, there)
    check_change(plan, there)
    scaled = scaling.of_plan(plan, there, settings)
    advice = advised(plan, scaled, settings)
    plan = replace(plan, ami=advice.add)
    by = ttl.role(options.scheduler_role, settings) if length else ""
    scheduled = ttl.find(plan.name, settings) if length or there else None
    copies = plan.mode == MULTI_MODEL and artifact.data != plan.source.data
    if copies and there and there.data == plan.source.data and not length:
        return added(plan, artifact, settings, options)
    confirm.ask(
        (
            *summary_lines(plan, options, settings, artifact, there, scheduled is not None),
            *capacity.lines(plan, there, scaled, settings, by),
            *advice.lines,
        ),
        options.yes or options.dry_run,
    )
    if copies:
        copy_model(artifact, plan, settings)
    end = ttl.schedule(plan.name, length, by) if length else None
    before = ttl.as_request(scheduled) if scheduled else None
    wanted = rollout.calls(plan, settings, update=there is not None, schedule=end, before=before)
    first, then = scaling.calls(plan, there, scaled)
    wanted[-1:] = [*first, wanted[-1]]
    rollout.send(wanted, settings)
    if options.dry_run:
        rollout.send(then, settings)
        if plan.to_zero:
            components.put(plan, settings, None)
        return 0
    return watched(plan, artifact, settings, wanted, then, there)


def check_flags(options: argparse.Namespace, settings: Settings) -> None:
    """Refuses what does not go together, before AWS is asked for anything.

    Raises:
        UserError: says what.
    """
    if options.mode != SERVERLESS:
        for flag, value in (("--memory", options.memory), ("--max-concurrency", options.max_concurrency)):
            if value is not None:
                raise UserError(f"{flag} is of serverless endpoints: add --mode {SERVERLESS}, or leave it out")
    elif options.endpoint_instance_type:
        raise UserError("a serverless endpoint has no instance type: write --memory MB instead")
    capacity.check(options, settings)
    kennel_settings.needed(settings, "role", *(("bucket",) if options.mode in (ASYNC, MULTI_MODEL) else ()))
    if options.scheduler_role and not options.ttl:
        raise UserError("--scheduler-role is what --ttl deletes by: add --ttl, or leave it out")


def planned(options: argparse.Namespace, settings: Settings, artifact: Artifact) -> EndpointPlan:
    """The deployment that is asked for."""
    name = specs.checked(options.name or artifact.name, "endpoint")
    data = artifact.data
    if options.mode == MULTI_MODEL and not data.endswith("/"):  # a folder is served as it is
        data = f"s3://{settings.bucket}/{settings.prefix}/models/{name}/"
    return EndpointPlan(
        name,
        specs.stamp(),
        options.mode,
        Source(data, artifact.image, "" if options.mode == MULTI_MODEL else artifact.package),
        "" if options.mode == SERVERLESS else settings.endpoint_instance_type,
        specs.MEMORY if options.memory is None else options.memory,
        specs.CONCURRENCY if options.max_concurrency is None else options.max_concurrency,
        options.engine,
    )


def advised(plan: EndpointPlan, scaled: scaling.Found, settings: Settings) -> adviser.Advice:
    """What the adviser says of it, at the number of instances that it can have.

    Raises:
        UserError: it would fail, or the account may not.
    """
    return adviser.check_endpoint(
        settings,
        plan.mode,
        memory=plan.memory,
        concurrency=plan.concurrency,
        provisioned=plan.provisioned or 0,
        instances=capacity.range_of(plan, scaled),
        fallback=plan.fallback,
    )


def check_models(plan: EndpointPlan, artifact: Artifact, settings: Settings) -> None:
    """What a multi-model endpoint of kennel's image cannot do.

    Raises:
        UserError: a GPU, or a folder without a model.
    """
    if plan.mode != MULTI_MODEL:
        return
    if instance_types.has_gpu(plan.instance_type):
        raise UserError(f"many models are served on CPUs, and {plan.instance_type} has a GPU: take ml.c7i.large")
    if artifact.data == plan.source.data:
        with session.translate_errors(artifact.data):
            names = list(s3.keys(session.client("s3", settings), *s3.split(artifact.data)))
        if not any(name.endswith(".tar.gz") for name in names):
            raise UserError(f"{artifact.data} holds no .tar.gz: name a folder of models, or one model.tar.gz")


def check_change(plan: EndpointPlan, there: EndpointInfo | None) -> None:
    """Refuses an update that AWS would refuse or undo.

    Raises:
        UserError: says why.
    """
    if there is None:
        return
    if there.status not in ("InService", "OutOfService"):
        how = "wait until it is in service" if there.status.endswith("ing") else f"kennel delete {plan.name}"
        raise UserError(
            f"endpoint {plan.name} is {there.status} and cannot be changed: {how}, or choose another --name"
        )
    if plan.to_zero or there.component:
        raise UserError(
            f"endpoint {plan.name} can't be updated to or from --scale-to-zero: choose another --name, or kennel "
            f"delete {plan.name} first"
        )
    if (there.mode == SERVERLESS) != (plan.mode == SERVERLESS) or (there.mode == ASYNC) != (plan.mode == ASYNC):
        raise UserError(
            f"endpoint {plan.name} is {there.mode} and cannot become {plan.mode}: "
            f"choose another --name, or kennel delete {plan.name} first"
        )


def summary_lines(
    plan: EndpointPlan,
    options: argparse.Namespace,
    settings: Settings,
    artifact: Artifact,
    there: EndpointInfo | None,
    scheduled: bool,
) -> Iterator[str]:
    """What is going to be made, and what it costs."""
    verb = f"updates endpoint {plan.name} (now {', '.join(there.models)})" if there else f"creates endpoint {plan.name}"
    yield f"{verb}: {plan.mode}"
    yield f"  model: {artifact.data}"
    if plan.source.package:
        yield f"  of model package {plan.source.package}"
    if plan.instance_type and artifact.types and plan.instance_type not in artifact.types:
        yield f"  {plan.instance_type} is not what it was registered for: {', '.join(artifact.types)}"
    yield f"  also made: model and endpoint configuration {plan.version}"
    if options.ttl:
        yield f"  deleted automatically after {options.ttl}"
    elif scheduled:
        yield "  deleted automatically when an earlier --ttl said: that stays, a new --ttl changes it"
    if settings.kms_key and instance_types.has_own_disk(plan.instance_type):
        yield f"  {plan.instance_type} encrypts its own disks and takes no key: {settings.kms_key} is not used for them"


def added(plan: EndpointPlan, artifact: Artifact, settings: Settings, options: argparse.Namespace) -> int:
    """Another model in a multi-model endpoint's folder: the endpoint itself stays as it is and loads it when asked."""
    line = f"adds {artifact.data} to endpoint {plan.name} as {artifact.name}.tar.gz; an earlier file of that name goes"
    confirm.ask([line], options.yes or options.dry_run)
    copy_model(artifact, plan, settings)
    if not options.dry_run:
        print(f"added {artifact.name}: {asking(plan, artifact)}")
    return 0


def copy_model(artifact: Artifact, plan: EndpointPlan, settings: Settings) -> None:
    """Copies a model into a multi-model endpoint's folder, under its job's name.

    Raises:
        UserError: S3 refuses.
    """
    bucket, key = s3.split(artifact.data)
    target, folder = s3.split(plan.source.data)
    with session.translate_errors(f"copying {artifact.data}"):
        session.client("s3", settings).copy({"Bucket": bucket, "Key": key}, target, f"{folder}{artifact.name}.tar.gz")


def watched(
    plan: EndpointPlan,
    artifact: Artifact,
    settings: Settings,
    sent: list[rollout.Call],
    then: list[rollout.Call],
    before: EndpointInfo | None,
) -> int:
    """Waits, sends what only an endpoint in service takes, and says how it ended and what comes next.

    Raises:
        UserError: AWS refuses the latter: a new endpoint is gone again, an updated one stays.
    """
    steps = Steps(terminal.out())
    try:
        with steps.phase("endpoint", f"{plan.name} starts", None) as show:
            rollout.wait(plan.name, plan.version, settings, lambda text, done: show(f"{plan.name}: {text}", done))
            if plan.to_zero:
                components.put(plan, settings, show)
    except rollout.FailedError as error:
        rollout.undo(sent, settings)
        print(f"kennel deploy: {error}; see its log, /aws/sagemaker/Endpoints/{plan.name}", file=sys.stderr)
        return 1
    except UserError:
        if plan.to_zero:
            rollout.undo(sent, settings)
        raise
    except (KeyboardInterrupt, SystemExit):
        print(f"endpoint {plan.name} goes on starting, and costs: kennel delete {plan.name} ends it", file=sys.stderr)
        if then:
            print("it will not scale automatically until it is deployed again with --autoscale", file=sys.stderr)
        raise
    if before and specs.is_version(before.config, plan.name):
        rollout.undo(earlier(before, plan), settings)
    scale(plan, settings, sent, then, before)
    print(f"in service: {asking(plan, artifact)}")
    print(f"end it:     kennel delete {plan.name}")
    return 0


def scale(
    plan: EndpointPlan,
    settings: Settings,
    sent: list[rollout.Call],
    then: list[rollout.Call],
    before: EndpointInfo | None,
) -> None:
    """Sends what registers an endpoint's scaling.

    Raises:
        UserError: AWS refuses; a new endpoint is gone again, an updated one stays, and that is said.
    """
    try:
        rollout.send(then, settings)
    except BaseException:  # Ctrl-C, too
        if before:
            print(f"endpoint {plan.name} is in service, and does not scale automatically", file=sys.stderr)
        else:
            rollout.undo(sent, settings)
        raise


def earlier(before: EndpointInfo, plan: EndpointPlan) -> list[rollout.Call]:
    """The configuration and the models that an update left unused, as calls to undo."""
    names = [name for name in before.models if specs.is_version(name, plan.name)]
    config: dict[str, Any] = {"EndpointConfigName": before.config}
    return [
        *(rollout.Call("sagemaker", "create_model", {"ModelName": n}, "ModelName", "delete_model") for n in names),
        rollout.Call("sagemaker", "create_endpoint_config", config, "EndpointConfigName", "delete_endpoint_config"),
    ]


def asking(plan: EndpointPlan, artifact: Artifact) -> str:
    """The command that asks it."""
    target = "FILE" if artifact.data == plan.source.data else f"{artifact.name}.tar.gz"
    target = f" --target-model {target}" if plan.mode == MULTI_MODEL else ""
    return f"kennel invoke {plan.name} PHOTO{target}"
