"""What `kennel delete` finds to remove: by an endpoint's name, or all that has our tag. Removes nothing itself."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import inventory, s3, session
from kennel_launch.hosting import components, endpoint_info, specs, ttl
from kennel_launch.hosting.endpoint_info import EndpointInfo
from kennel_launch.hosting.rollout import Call
from kennel_launch.settings import Settings

# What it is called -> operation, member, and the list's operation and member. An endpoint goes first: it costs; before
# it goes what would add instances to it, without which AWS deletes none that is scaled.
# https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-delete-with-scaling.html (2026-11)
_KINDS = {
    "endpoint": ("delete_endpoint", "EndpointName", "list_endpoints", "Endpoints", "EndpointArn"),
    "endpoint configuration": (
        "delete_endpoint_config",
        "EndpointConfigName",
        "list_endpoint_configs",
        "EndpointConfigs",
        "EndpointConfigArn",
    ),
    "model": ("delete_model", "ModelName", "list_models", "Models", "ModelArn"),
}


@dataclass(frozen=True)
class Leftover:
    """One thing, and the call that removes it."""

    what: str
    call: Call
    name: str = ""  # where the call has another one

    def __str__(self) -> str:
        return f"{self.what} {self.name or self.call.name}"


def of_endpoint(name: str, settings: Settings) -> list[Leftover]:
    """The endpoint, its scaling, its schedule, its configuration and models, and those of its earlier versions.

    All but the endpoint are found without it, too: where --ttl has ended it, they are what is left.
    """
    endpoint = endpoint_info.find(name, settings)
    found = _before(name, endpoint, settings)
    found += [_found("endpoint", name)] if endpoint and endpoint.status != "Deleting" else []
    if ttl.find(name, settings):
        found.append(Leftover("schedule", Call("scheduler", "delete_schedule", {"Name": name}, "Name")))
    own = {"endpoint configuration": [endpoint.config], "model": list(endpoint.models)} if endpoint else {}
    client = session.client("sagemaker", settings)
    for what in ("endpoint configuration", "model"):
        with session.translate_errors(f"what there is of {name}"):
            listed = [item for item, _ in _listed(client, what, NameContains=specs.stamped(name, "").rstrip("-"))]
            there = [item for item in own.get(what, []) if _is_there(client, what, item)]
        versions = [item for item in listed if specs.is_version(item, name)]
        found += [_found(what, item) for item in dict.fromkeys([*there, *versions])]
    return found


def tagged(settings: Settings) -> list[Leftover]:
    """All endpoints, configurations and models with our tag, and the endpoints' scaling and schedules."""
    client = session.client("sagemaker", settings)
    found = []
    for what in _KINDS:
        with session.translate_errors(f"what there is on SageMaker: {what}s"):
            names = [name for name, arn in _listed(client, what) if inventory.is_tagged(client, arn)]
        if what == "endpoint":
            for name in names:
                found += _before(name, endpoint_info.find(name, settings), settings)
        found += [_found(what, name) for name in names]
        if what == "endpoint":
            schedules = [name for name in names if ttl.find(name, settings)]
            found += [
                Leftover("schedule", Call("scheduler", "delete_schedule", {"Name": n}, "Name")) for n in schedules
            ]
    return found


def data(name: str, found: list[Leftover], settings: Settings) -> list[str]:
    """The S3 prefixes of that name: of the job that made its model, and of what was asked of it.

    Raises:
        UserError: the job still writes there.
    """
    client = session.client("sagemaker", settings)
    folders = [f"{settings.prefix}/{kind}/{name}/" for kind in _KEPT]
    addresses = [f"s3://{settings.bucket}/{folder}" for folder in folders]
    with session.translate_errors(f"the models of {name}"):
        for item in found:
            model = (
                session.describe(client, "describe_model", ModelName=item.call.name) if item.what == "model" else None
            )
            if model and (url := model.get("PrimaryContainer", {}).get("ModelDataUrl", "")).endswith(_ARTIFACT):
                addresses.append(url.removesuffix(_ARTIFACT))
        # Another ValidationException is a name that no job can have.
        job = session.describe(client, "describe_training_job", TrainingJobName=name)
    if job:
        if job["TrainingJobStatus"] not in inventory.ENDED:
            raise UserError(f"training job {name} is {job['TrainingJobStatus']} and writes there: stop it, or wait")
        addresses.append(f"{job['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{name}/")
    # Never a whole place of all jobs, nor photos: a model may have been put anywhere by hand.
    ours = tuple(f"s3://{settings.bucket}/{settings.prefix}/{kind}/" for kind in ("jobs", *_KEPT))
    storage = session.client("s3", settings)
    with session.translate_errors(f"what lies in s3://{settings.bucket}/{settings.prefix}/"):
        return [
            address
            for address in dict.fromkeys(addresses)
            if address.startswith(ours)
            and address not in ours
            and any(True for _ in s3.keys(storage, *s3.split(address)))
        ]


def captured(found: Iterable[Leftover], settings: Settings) -> list[str]:
    """Where the endpoint's configurations had photos and answers captured; that is the user's, and stays."""
    client = session.client("sagemaker", settings)
    with session.translate_errors("what was captured"):
        configs = [
            session.describe(client, "describe_endpoint_config", EndpointConfigName=item.call.name) or {}
            for item in found
            if item.what == "endpoint configuration"
        ]
    return list(
        dict.fromkeys(one["DataCaptureConfig"]["DestinationS3Uri"] for one in configs if "DataCaptureConfig" in one)
    )


_ARTIFACT = "output/model.tar.gz"
_KEPT = (
    "async",
    "capture",
    "models",
    "transform",
)  # folders below the prefix, with one for each endpoint or job in them


def _before(name: str, endpoint: EndpointInfo | None, settings: Settings) -> list[Leftover]:
    """What must go before the endpoint: its scaling, and the component that has its model."""
    variants, component = (endpoint.variants, endpoint.component) if endpoint else ({}, "")
    unknown = endpoint is not None and not variants  # its configuration is gone
    calls = components.removal(name, variants, settings, component=bool(component) or unknown)
    return [Leftover(call.operation.partition("_")[2].removesuffix("s").replace("_", " "), call) for call in calls]


def _found(what: str, name: str) -> Leftover:
    operation, key, *_ = _KINDS[what]
    return Leftover(what, Call("sagemaker", operation, {key: name}, key))


def _listed(client: Any, what: str, **filters: str) -> Iterator[tuple[str, str]]:
    """(name, ARN) of each."""
    _, key, operation, members, arn = _KINDS[what]
    for page in client.get_paginator(operation).paginate(**filters):
        yield from ((item[key], item[arn]) for item in page[members])


def _is_there(client: Any, what: str, name: str) -> bool:
    operation, key, *_ = _KINDS[what]
    return session.describe(client, operation.replace("delete", "describe"), **{key: name}) is not None
