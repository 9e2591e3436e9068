"""How much of an endpoint there is, and what is kept of its requests: `kennel deploy`'s flags, checked and said."""

import argparse
import re
from collections.abc import Iterator
from dataclasses import replace

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import instance_types
from kennel_launch.hosting import scaling, specs
from kennel_launch.hosting.endpoint_info import EndpointInfo
from kennel_launch.hosting.scaling import Found
from kennel_launch.hosting.specs import ASYNC, REAL_TIME, SERVERLESS, Autoscale, EndpointPlan
from kennel_launch.settings import Settings

_TO_ZERO = Autoscale(0, 1, 1)  # one that nothing asks for a quarter of an hour is below one request a minute
_MOST_TYPES = 5  # botocore's service model, InstancePoolList
S3_PRICES = "https://aws.amazon.com/s3/pricing/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--instances", type=int, metavar="N", help="machines (1; at an update, as before)")
    parser.add_argument("--fallback", default="", metavar="TYPE,...", help="instance types where there is none of that")
    parser.add_argument("--autoscale", default="", metavar="MIN..MAX", help="as many as the requests need")
    parser.add_argument(
        "--invocations-per-instance",
        type=int,
        metavar="N",
        help="a minute, the target of --autoscale",
    )
    parser.add_argument("--scale-to-zero", action="store_true", help="none while idle, minutes for the next request")
    parser.add_argument("--provisioned", type=int, metavar="N", help="of a serverless one, always warm")
    parser.add_argument("--capture", default="", metavar="PERCENT", help="of photos and answers, kept in S3: 10%%")


def check(options: argparse.Namespace, settings: Settings) -> None:
    """Refuses what does not go together, before AWS is asked for anything.

    Raises:
        UserError: says what.
    """
    check_numbers(options)
    if options.mode == SERVERLESS:
        _check_serverless(options)
    elif options.provisioned is not None:
        raise UserError(f"--provisioned is of serverless endpoints: add --mode {SERVERLESS}, or write --instances N")
    if options.fallback:
        _check_fallback(options, settings)
    if options.scale_to_zero:
        _check_to_zero(options)
    if options.autoscale:
        _check_autoscale(options)
    elif options.invocations_per_instance is not None:
        raise UserError("--invocations-per-instance is what --autoscale aims at: add --autoscale MIN..MAX")
    if options.capture:
        percent(options.capture)
        if options.mode != REAL_TIME:
            # https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html (2026-11) excludes serverless,
            # .../dg/model-monitor.html many models; an asynchronous endpoint keeps its answers in S3 by itself.
            raise UserError(f"--capture is of real-time endpoints, and this one is {options.mode}: leave it out")
        kennel_settings.needed(settings, "bucket")


def check_numbers(options: argparse.Namespace) -> None:
    """
    Raises:
        UserError: fewer than one instance, or provisioned request.
    """
    for flag, value in (("--instances", options.instances), ("--provisioned", options.provisioned)):
        if value is not None and value < 1:
            raise UserError(f"{flag} {value}: write a whole number from 1")


def _check_serverless(options: argparse.Namespace) -> None:
    if options.instances is not None or options.autoscale:
        raise UserError(
            "a serverless endpoint has no instances and scales by itself: write --max-concurrency N instead"
        )
    concurrency = specs.CONCURRENCY if options.max_concurrency is None else options.max_concurrency
    if (options.provisioned or 0) > concurrency:
        raise UserError(
            f"--provisioned {options.provisioned}: the endpoint takes {concurrency} requests at once: write at most "
            f"that, or --max-concurrency {options.provisioned}"
        )


def _check_autoscale(options: argparse.Namespace) -> None:
    if options.mode == ASYNC:
        raise UserError("an asynchronous endpoint would scale by its backlog, not by requests: leave --autoscale out")
    if options.invocations_per_instance is None:
        raise UserError(
            "--autoscale needs to know what one instance carries: add --invocations-per-instance N, which kennel "
            "invoke ENDPOINT PHOTO --load measures"
        )
    if options.invocations_per_instance < 1:
        raise UserError(f"--invocations-per-instance {options.invocations_per_instance}: write a whole number from 1")
    wanted = scaling.parse(options.autoscale, options.invocations_per_instance)
    if options.scale_to_zero != (wanted.least == 0):
        raise UserError(f"--autoscale {options.autoscale}: zero is what --scale-to-zero begins at: write both, or none")
    if options.instances is not None and not wanted.least <= options.instances <= wanted.most:
        raise UserError(f"--instances {options.instances}: it is not within --autoscale {options.autoscale}")


def _check_fallback(options: argparse.Namespace, settings: Settings) -> None:
    if options.mode not in (REAL_TIME, ASYNC):
        raise UserError(f"--fallback is of real-time and async endpoints, and this one is {options.mode}: leave it out")
    if options.autoscale or options.scale_to_zero:
        raise UserError("--fallback and scaling: what one instance carries differs by its type: leave one of them out")
    kinds = [settings.endpoint_instance_type, *_kinds(options.fallback)]
    if "" in kinds or len(set(kinds)) < len(kinds) or len(kinds) > _MOST_TYPES:
        raise UserError(
            f"--fallback {options.fallback}: write up to {_MOST_TYPES - 1} other instance types than {kinds[0]}, by "
            "commas"
        )
    if settings.kms_key and len({instance_types.has_own_disk(kind) for kind in kinds}) > 1:
        raise UserError(
            f"--kms-key: of {', '.join(kinds)} some encrypt their own disks and take no key: choose types of one kind"
        )


def _kinds(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",")) if text else ()


def _check_to_zero(options: argparse.Namespace) -> None:
    if options.mode != REAL_TIME:
        raise UserError(f"--scale-to-zero is of real-time endpoints, and this one is {options.mode}: leave it out")
    if options.instances is not None:
        raise UserError("--scale-to-zero begins with one instance and has none while idle: leave --instances out")
    if options.ttl:
        raise UserError(
            "--ttl deletes an endpoint alone, and one that scales to zero has an inference component that goes first: "
            "leave one of --ttl, --scale-to-zero out"
        )


def percent(text: str) -> int:
    """`10%` or `10`.

    Raises:
        UserError: not a whole number from 1 to 100.
    """
    match = re.fullmatch(r"(\d{1,3}) ?%?", text.strip())
    if not match or not 1 <= int(match[1]) <= 100:
        raise UserError(f"--capture {text!r}: write a percentage of the requests, from 1% to 100%")
    return int(match[1])


def planned(plan: EndpointPlan, options: argparse.Namespace, there: EndpointInfo | None) -> EndpointPlan:
    """The plan with the number of instances, which an update keeps where none is given, and what else was asked for."""
    autoscale = scaling.parse(options.autoscale, options.invocations_per_instance) if options.autoscale else None
    if options.scale_to_zero and not autoscale:
        autoscale = _TO_ZERO
    usual = max(1, autoscale.least) if autoscale else 1
    kept = there is not None and plan.mode != SERVERLESS and options.instances is None
    now = there.instances if there and kept else 0
    return replace(
        plan,
        instances=options.instances or max(usual, min(now, autoscale.most) if autoscale else now),
        retain=kept and not autoscale,
        autoscale=autoscale,
        provisioned=options.provisioned,
        capture=percent(options.capture) if options.capture else 0,
        fallback=_kinds(options.fallback),
    )


def lines(
    plan: EndpointPlan, there: EndpointInfo | None, found: Found, settings: Settings, deleter: str
) -> Iterator[str]:
    """What of that is going to be made, changed or ended.

    Args:
        deleter: the role by which the endpoint is deleted in time, if it is.
    """
    if plan.autoscale:
        wanted = plan.autoscale
        yield (
            f"  scales automatically: {wanted.least} to {wanted.most} instances at {wanted.invocations} requests a "
            f"minute each" + (f", instead of {found}" if found else "")
        )
        if plan.to_zero:
            yield "  also made: an inference component, and an alarm, by which the first request starts an instance"
            yield "  that request is refused, and so are all others until it runs, for minutes: kennel invoke waits"
    elif found and not plan.retain:
        yield f"  scales no longer ({found}): --instances fixes the number"
    elif found and there and there.variants != {specs.VARIANT: plan.types}:
        yield f"  scales as before, {found}, but not while it changes"
        yield f"  that was for another instance type: kennel invoke {plan.name} PHOTO --load measures this one"
    elif found:
        yield f"  scales as before, {found}"
    if deleter and (plan.autoscale or (found and plan.retain)):
        # https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-delete-with-scaling.html (2026-11)
        yield f"  to delete it, {deleter} must have the right application-autoscaling:DeregisterScalableTarget"
    if plan.fallback:
        yield f"  where there is no {plan.instance_type}: {', then '.join(plan.fallback)}"
    if there and there.capture and not plan.capture:
        yield f"  captures no longer; what there is stays under {there.capture}"
    if plan.capture:
        folder = specs.capture_folder(plan.name, settings)
        yield f"  captures {plan.capture}% of the requests, photos and answers, under {folder}"
        yield f"  a million requests of 1 MB each: {plan.capture * 40 / 3:,.0f} GB there, by S3's prices ({S3_PRICES})"
        yield "  they may show people, and stay until kennel delete --data, or a rule of the bucket, removes them"


def range_of(plan: EndpointPlan, found: Found) -> tuple[int, int]:
    """The fewest and the most instances that it can have at a time, by what is asked for or stays registered."""
    if plan.autoscale:
        return plan.autoscale.least, plan.autoscale.most
    ours = [one for one in found.targets if one["ResourceId"] == scaling.resource(plan.name)] if plan.retain else []
    return (ours[0]["MinCapacity"], ours[0]["MaxCapacity"]) if ours else (plan.instances, plan.instances)
