"""Whether the account may have the instances at all: SageMaker's service quotas, most of which begin at 0 for GPUs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import readonly, session
from kennel_launch.settings import Settings

# What completes a quota's name, "ml.g5.xlarge for ... usage".
TRAINING, SPOT, ENDPOINT, TRANSFORM = "training job", "spot training job", "endpoint", "transform job"
_SERVICE = "sagemaker"


@dataclass(frozen=True)
class Quota:
    """How many instances may run at the same time."""

    name: str
    code: str
    value: float


def check(settings: Settings, use: str, instance_type: str, count: int = 1) -> list[str]:
    """
    Args:
        use: TRAINING, SPOT, ENDPOINT or TRANSFORM.
        count: instances that run at the same time, of all the jobs of a search.

    Returns:
        lines to show: that the quota could not be read, or nothing.

    Raises:
        UserError: the quota is lower; says how to ask for more.
    """
    name = f"{instance_type} for {use} usage"
    lines: list[str] = []
    quota = None
    with readonly.if_allowed(f"the quota {name!r}", lines):
        quota = _find(readonly.client("service-quotas", settings), name)
        if quota is None:
            lines.append(f"the quota {name!r} could not be checked (AWS lists none of this name)")
    if quota and quota.value < count:
        raise UserError(_refusal(quota, count, session.region(settings)))
    return lines


def _find(client: Any, name: str) -> Quota | None:
    """The account's own value; AWS's default where the account has none."""
    for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
        found = next((quota for quota in _quotas(client, operation) if quota.name == name), None)
        if found:
            return found
    return None


def _quotas(client: Any, operation: str) -> Iterator[Quota]:
    """All of SageMaker's, page by page: AWS cannot be asked for one by its name."""
    for page in client.get_paginator(operation).paginate(ServiceCode=_SERVICE, PaginationConfig={"PageSize": 100}):
        for row in page["Quotas"]:
            yield Quota(row["QuotaName"], row["QuotaCode"], row["Value"])


def _refusal(quota: Quota, count: int, region: str) -> str:
    return (
        f"the account's quota {quota.name!r} is {quota.value:g} in {region}, {count} needed: take another instance "
        f"type, or ask for more with `aws service-quotas request-service-quota-increase --service-code {_SERVICE} "
        f"--quota-code {quota.code} --desired-value {count} --region {region}`"
    )
