"""Refuses what would fail on SageMaker before it costs anything, and says what a launch costs.

What the checks know of hosts, images, rights, quotas and prices lies in modules of those names. By itself,
`python -m kennel_launch.adviser train|deploy|transform`, it checks and creates nothing.
"""

import argparse
import sys
from dataclasses import dataclass, field

from kennel.errors import UserError
from kennel_launch import access, aws, costs, fit, hosts, images, quotas, reads, settings
from kennel_launch.images import Image
from kennel_launch.settings import Settings

REAL_TIME, SERVERLESS, ASYNC, MULTI_MODEL = MODES = ("real-time", "serverless", "async", "multi-model")
MEMORIES = range(1024, 6145, 1024)  # MB, of a serverless endpoint
CONCURRENCIES = range(1, 201)  # requests at once, of a serverless endpoint


@dataclass(frozen=True)
class Advice:
    """`add`: fields for the request (InferenceAmiVersion of a variant, TransformAmiVersion of a transform job's
    resources); `lines`: what to show before the question."""

    lines: tuple[str, ...]
    add: dict[str, str] = field(default_factory=dict)


def check_training(settings: Settings, *, spot: bool = False, jobs: int = 1, hours: float | None = None) -> Advice:
    """
    Args:
        jobs: that run at the same time, of a search.
        hours: the longest that all of it can take, by the clock: instances and jobs are multiplied in here.

    Raises:
        UserError: it would fail, or the account may not.
    """
    kind, count = settings.instance_type, settings.instance_count * jobs
    hosts.check_known(kind, _types(settings, "TrainingInstanceType"), "training")
    lines, image = _common(settings)
    if image:
        lines += fit.check_training(image, settings.image, kind)
    lines += quotas.check(settings, quotas.SPOT if spot else quotas.TRAINING, kind, count)
    cost = costs.hourly(kind, aws.region(settings), settings, costs.TRAINING)
    return Advice((*lines, *costs.say(cost, kind, count, hours, spot=spot)))


def check_endpoint(
    settings: Settings, mode: str, *, count: int = 1, memory: int = 2048, concurrency: int = 5
) -> Advice:
    """
    Args:
        mode: one of MODES.
        count: instances; not of a serverless endpoint.
        memory: MB, and
        concurrency: of a serverless endpoint.

    Raises:
        UserError: it would fail, or the account may not.
    """
    if mode == SERVERLESS:
        return _check_serverless(settings, memory, concurrency)
    kind = settings.endpoint_instance_type
    hosts.check_known(kind, _types(settings, "ProductionVariantInstanceType"), "endpoints")
    lines, image = _common(settings)
    add = {}
    if image:
        told, ami = fit.check_serving(image, settings.image, kind, transform=False)
        lines += told
        add = {"InferenceAmiVersion": ami} if ami else {}
    lines += quotas.check(settings, quotas.ENDPOINT, kind, count)
    cost = costs.hourly(kind, aws.region(settings), settings, costs.ASYNC if mode == ASYNC else costs.HOSTING)
    return Advice((*lines, *costs.say(cost, kind, count, kept=True)), add)


def check_transform(settings: Settings, *, count: int = 1, hours: float | None = None) -> Advice:
    """
    Args:
        count: instances.
        hours: the longest that the job can take, by the clock, where that is known.

    Raises:
        UserError: it would fail, or the account may not.
    """
    kind = settings.endpoint_instance_type
    hosts.check_known(kind, _types(settings, "TransformInstanceType"), "batch transform")
    lines, image = _common(settings)
    add = {}
    if image:
        told, ami = fit.check_serving(image, settings.image, kind, transform=True)
        lines += told
        add = {"TransformAmiVersion": ami} if ami else {}
    lines += quotas.check(settings, quotas.TRANSFORM, kind, count)
    cost = costs.hourly(kind, aws.region(settings), settings, costs.TRANSFORM)
    return Advice((*lines, *costs.say(cost, kind, count, hours)), add)


def _check_serverless(settings: Settings, memory: int, concurrency: int) -> Advice:
    """What fit.SERVERLESS_PAGE excludes."""
    if memory not in MEMORIES:
        raise UserError(f"a serverless endpoint can't have {memory} MB: write one of {', '.join(map(str, MEMORIES))}")
    if concurrency not in CONCURRENCIES:
        raise UserError(f"a serverless endpoint can't answer {concurrency} requests at once: write 1 to 200")
    if settings.subnets or settings.security_groups:
        raise UserError("a serverless endpoint can't lie in a VPC: leave out subnets and security groups")
    lines, image = _common(settings)
    if image:
        lines += fit.check_serverless(image, settings.image)
    return Advice((*lines, costs.say_serverless(memory)))


def _common(wanted: Settings) -> tuple[list[str], Image | None]:
    """What every launch needs; the image where it could be looked at."""
    settings.needed(wanted, "role", "image")
    where, here = images.address(wanted.image), aws.region(wanted)
    if where.region != here:
        raise UserError(
            f"image {wanted.image} lies in {where.region}, the launch in {here}: push it there with make push "
            f"TO={wanted.image.partition('@')[0].replace(where.region, here, 1)}, or name the region by --region"
        )
    account = access.account(wanted)
    lines = [f"account {account}, region {here}, image {wanted.image}"]
    if where.account != account:
        lines.append(f"the image is of account {where.account}, whose repository must let {account} pull")
    image = None
    with reads.if_allowed("the image", lines):
        image = images.read(wanted.image, wanted)
    lines += access.check_role(wanted, where)
    if wanted.bucket:
        lines += access.check_bucket(wanted)
    return lines, image


def _types(settings: Settings, shape: str) -> list[str]:
    """The API's own list of instance types, from botocore's model of it."""
    return list(aws.client("sagemaker", settings).meta.service_model.shape_for(shape).enum)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("launch", choices=("train", "deploy", "transform"))
    parser.add_argument("--mode", choices=MODES, default=REAL_TIME, help="of the endpoint")
    parser.add_argument("--memory", type=int, default=2048, metavar="MB", help="of a serverless endpoint")
    parser.add_argument("--concurrency", type=int, default=5, metavar="N", help="requests at once, of that one")
    parser.add_argument("--spot", action="store_true", help="train on spot capacity")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="training jobs that run at the same time")
    parser.add_argument("--hours", type=float, metavar="N", help="the longest that it can take")
    settings.add_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Shows the advice, and what it would add to the request.

    Raises:
        UserError: the launch would fail.
    """
    wanted = settings.load(vars(options))
    if options.launch == "train":
        advice = check_training(wanted, spot=options.spot, jobs=options.jobs, hours=options.hours)
    elif options.launch == "deploy":
        advice = check_endpoint(wanted, options.mode, memory=options.memory, concurrency=options.concurrency)
    else:
        advice = check_transform(wanted, hours=options.hours)
    for line in (*advice.lines, *(f"{name}: {value}" for name, value in advice.add.items())):
        print(line)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except UserError as error:
        print(f"adviser: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
