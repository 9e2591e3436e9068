"""How many instances an account may have at once, of each type and for each use: a quota, less what runs."""

from typing import Any

from ..apis import quotas
from .account import Account
from .errors import AwsError

_OVER = (
    "The account-level service limit '{name}' is {limit} Instances, with current utilization of {used} Instances and a "
    "request delta of {asked} Instances. Please use AWS Service Quotas to request an increase for this quota. If AWS "
    "Service Quotas is not available, contact AWS support to request an increase for this quota."
)


def check(account: Account, instance_type: str, use: str, asked: int) -> None:
    """
    Raises:
        AwsError: these would be too many.
    """
    if not instance_type:  # serverless
        return
    used = _used(account, instance_type, use)
    limit = int(quotas.of(account, instance_type, use))
    if used + asked > limit:
        name = f"{instance_type} for {use}"
        raise AwsError("ResourceLimitExceeded", _OVER.format(name=name, limit=limit, used=used, asked=asked))


def first_type(variant: dict[str, Any]) -> str:
    """The instance type that a variant gets, of several the one that comes first; empty: serverless."""
    pools = sorted(variant.get("InstancePools", []), key=lambda pool: pool["Priority"])
    return str(variant.get("InstanceType") or (pools[0]["InstanceType"] if pools else ""))


def _used(account: Account, instance_type: str, use: str) -> int:
    """Instances of this type that run now, for this use."""
    store = account.store
    if use == "endpoint usage":
        rows = [variant for one in store.all("Endpoint") for variant in one["Variants"]]
        return sum(row.get("InitialInstanceCount", 1) for row in rows if first_type(row) == instance_type)
    kind, member = ("TransformJob", "TransformResources") if "transform" in use else ("TrainingJob", "ResourceConfig")
    running = [one[member] for one in store.all(kind) if one[f"{kind}Status"] == "InProgress"]
    return sum(row["InstanceCount"] for row in running if row.get("InstanceType") == instance_type)
