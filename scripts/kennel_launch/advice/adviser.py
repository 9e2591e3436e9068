"""Refuses what would fail on SageMaker before it costs anything, and says what a launch costs.

What the checks know of hosts, images, rights, quotas and prices lies in modules of those names; `kennel check` shows
what they say.
"""

from dataclasses import dataclass, field, replace

from kennel.errors import UserError
from kennel_launch import settings
from kennel_launch.advice import access, costs, image_fit, images, quotas
from kennel_launch.advice.images import Image
from kennel_launch.aws import instance_types, readonly, session
from kennel_launch.hosting import specs
from kennel_launch.settings import Settings

MEMORIES = range(1024, 6145, 1024)  # MB, of a serverless endpoint
CONCURRENCIES = range(1, 201)  # requests at once, of a serverless endpoint


@dataclass(frozen=True)
class Advice:
    """`add`: fields for the request (InferenceAmiVersion of a variant, TransformAmiVersion of a transform job's
    resources); `lines`: what to show before the question."""

    lines: tuple[str, ...]
    add: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Serving:
    """An endpoint or a transform job: the API's list of its types, how a refusal and a quota call it, the field that
    names its host's system."""

    types: str
    what: str
    quota: str
    ami: str
    transform: bool = False


_ENDPOINT = _Serving("ProductionVariantInstanceType", "endpoints", quotas.ENDPOINT, "InferenceAmiVersion")
_TRANSFORM = _Serving(
    "TransformInstanceType", "batch transform", quotas.TRANSFORM, "TransformAmiVersion", transform=True
)


def check_training(
    settings: Settings,
    *,
    spot: bool = False,
    jobs: int = 1,
    hours: float | None = None,
    remote_debug: bool = False,
) -> Advice:
    """
    Args:
        jobs: that run at the same time, of a search.
        hours: the longest that all of it can take, by the clock: instances and jobs are multiplied in here.
        remote_debug: whether the role must let a shell be opened.

    Raises:
        UserError: it would fail, or the account may not.
    """
    kind, count = settings.instance_type, settings.instance_count * jobs
    instance_types.check_known(kind, _types(settings, "TrainingInstanceType"), "training")
    lines, image = _common(settings)
    if remote_debug:
        access.check_remote_debug(settings, lines)
    if image:
        lines += image_fit.check_training(image, settings.image, kind)
    lines += quotas.check(settings, quotas.SPOT if spot else quotas.TRAINING, kind, count)
    cost = costs.hourly(kind, session.region(settings), settings, costs.TRAINING)
    return Advice((*lines, *costs.say(cost, kind, count, hours, spot=spot)))


def check_endpoint(
    settings: Settings,
    mode: str,
    *,
    memory: int = specs.MEMORY,
    concurrency: int = specs.CONCURRENCY,
    provisioned: int = 0,
    instances: tuple[int, int] = (1, 1),
    fallback: tuple[str, ...] = (),
) -> Advice:
    """
    Args:
        mode: one of models.MODES.
        memory: MB, and
        concurrency: of a serverless endpoint, and
        provisioned: of that what is always warm.
        instances: the fewest and the most of another one, and
        fallback: other types that these may be of.

    Raises:
        UserError: it would fail, or the account may not.
    """
    if mode == specs.SERVERLESS:
        return _check_serverless(settings, memory, concurrency, provisioned)
    price = costs.ASYNC if mode == specs.ASYNC else costs.HOSTING
    advice = _check_serving(settings, _ENDPOINT, price, kept=True, instances=instances)
    lines = list(advice.lines)
    for kind in fallback:
        other = _check_serving(
            replace(settings, endpoint_instance_type=kind), _ENDPOINT, price, kept=True, instances=instances
        )
        if other.add != advice.add:
            raise UserError(
                f"{kind} needs another system than {settings.endpoint_instance_type} ({other.add or 'the usual'}, "
                f"{advice.add or 'the usual'}): an endpoint has one, choose types of one generation"
            )
        lines += [line for line in other.lines if line not in lines]
    return Advice(tuple(lines), advice.add)


def check_transform(settings: Settings, *, hours: float | None = None) -> Advice:
    """
    Args:
        hours: the longest that the job can take, by the clock, where that is known.

    Raises:
        UserError: it would fail, or the account may not.
    """
    return _check_serving(settings, _TRANSFORM, costs.TRANSFORM, hours=hours)


def _check_serving(
    settings: Settings,
    serving: _Serving,
    price: str,
    *,
    hours: float | None = None,
    kept: bool = False,
    instances: tuple[int, int] = (1, 1),
) -> Advice:
    """Instances of the type that serves: the fewest and the most of them."""
    kind = settings.endpoint_instance_type
    instance_types.check_known(kind, _types(settings, serving.types), serving.what)
    lines, image = _common(settings)
    add = {}
    if image:
        notes, ami = image_fit.check_serving(image, settings.image, kind, serving.transform)
        lines += notes
        add = {serving.ami: ami} if ami else {}
    least, most = instances
    lines += quotas.check(settings, serving.quota, kind, most)
    cost = costs.hourly(kind, session.region(settings), settings, price)
    said = (
        costs.say(cost, kind, most, hours, kept=kept) if least == most else costs.say_between(cost, kind, least, most)
    )
    return Advice((*lines, *said), add)


def _check_serverless(settings: Settings, memory: int, concurrency: int, provisioned: int) -> Advice:
    """What fit.SERVERLESS_PAGE excludes."""
    if memory not in MEMORIES:
        raise UserError(f"a serverless endpoint can't have {memory} MB: write one of {', '.join(map(str, MEMORIES))}")
    if concurrency not in CONCURRENCIES:
        raise UserError(f"a serverless endpoint can't answer {concurrency} requests at once: write 1 to 200")
    if settings.subnets or settings.security_groups:
        raise UserError("a serverless endpoint can't lie in a VPC: leave out subnets and security groups")
    lines, image = _common(settings)
    if image:
        lines += image_fit.check_serverless(image, settings.image)
    return Advice((*lines, costs.say_serverless(memory, provisioned)))


def _common(wanted: Settings) -> tuple[list[str], Image | None]:
    """What every launch needs; the image where it could be looked at."""
    settings.needed(wanted, "role", "image")
    where, here = images.address(wanted.image), session.region(wanted)
    if where.region != here:
        raise UserError(
            f"image {wanted.image} lies in {where.region}, the launch in {here}: push it there with kennel push "
            f"IMAGE --to {wanted.image.partition('@')[0].replace(where.region, here, 1)}, or name the region by "
            "--region"
        )
    account = access.account(wanted)
    lines = [f"account {account}, region {here}, image {wanted.image}"]
    if where.account != account:
        lines.append(f"the image is of account {where.account}, whose repository must let {account} pull")
    image = None
    with readonly.if_allowed("the image", lines):
        image = images.read(wanted.image, wanted)
    lines += access.check_role(wanted, where)
    if wanted.bucket:
        lines += access.check_bucket(wanted)
    return lines, image


def _types(settings: Settings, shape: str) -> list[str]:
    """The API's own list of instance types, from botocore's model of it."""
    return list(session.client("sagemaker", settings).meta.service_model.shape_for(shape).enum)
