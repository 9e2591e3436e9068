"""What an instance costs an hour: AWS's price list, else a small table of our own with its date; and how that is said.

Never refuses anything: a price that is not known is said to be that.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from kennel_launch.aws import readonly
from kennel_launch.settings import Settings

PAGE = "https://aws.amazon.com/sagemaker/pricing/"
_UNKNOWN = f"what it costs is not known here, see {PAGE}"
TRAINING, HOSTING, ASYNC, TRANSFORM = "Training", "Hosting", "AsyncInf", "BatchTransform"  # platoinstancetype of a row
# Dollars an hour, on demand, us-east-1. PAGE itself could not be read when this was written: each figure stands alike
# in two or more public projects that cite it (others differ), looked up in TABLE_DATE; say "about".
TABLE_DATE = "2026-11"
TABLE = {
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.m5.4xlarge": 0.922,
    "ml.c5.large": 0.102,
    "ml.c5.xlarge": 0.204,
    "ml.c5.2xlarge": 0.408,
    "ml.c5.4xlarge": 0.816,
    "ml.g4dn.xlarge": 0.7364,
    "ml.g5.xlarge": 1.408,
    "ml.g5.2xlarge": 1.515,
    "ml.g5.12xlarge": 7.09,
    "ml.p3.2xlarge": 3.825,
}


@dataclass(frozen=True)
class Cost:
    """Of one instance, on demand: US dollars an hour, and who says so."""

    instance_type: str
    per_hour: float
    source: str


def hourly(instance_type: str, region: str, settings: Settings, use: str = TRAINING) -> Cost | None:
    """
    Args:
        use: TRAINING, HOSTING, ASYNC or TRANSFORM; the price of one instance type can differ between them.

    Returns:
        None where neither AWS's price list nor the table has it.
    """
    listed = _listed(instance_type, region, settings, use)
    if not listed and use == ASYNC:  # not every type has rows of its own for asynchronous endpoints
        listed = _listed(instance_type, region, settings, HOSTING)
    if listed:
        return Cost(instance_type, listed, f"AWS's price list for {region}")
    if instance_type in TABLE:
        return Cost(instance_type, TABLE[instance_type], f"a table of {TABLE_DATE} for us-east-1")
    return None


def say(
    cost: Cost | None,
    instance_type: str,
    count: int = 1,
    hours: float | None = None,
    *,
    kept: bool = False,
    spot: bool = False,
) -> list[str]:
    """Lines to show before anything is created.

    Args:
        count: instances that run at the same time.
        hours: the longest that they can run, where that is known.
        kept: they run until somebody deletes them.
        spot: they are spot capacity, of which no price can be promised.
    """
    what = f"{count} × {instance_type}" if count > 1 else instance_type
    if cost is None:
        return [f"{what}: {_UNKNOWN}"]
    total = cost.per_hour * count
    line = f"{what}: about ${total:,.2f} an hour, ${total * 24:,.2f} a day"
    line += " until it is deleted" if kept else ""
    line += f", at most ${total * hours:,.2f} for {hours:g} hour{'' if hours == 1 else 's'}" if hours else ""
    lines = [f"{line} ({cost.source})"]
    if spot:
        lines.append("that is the on-demand price: spot capacity is cheaper, by how much is known only afterwards")
    return lines


def say_between(cost: Cost | None, instance_type: str, least: int, most: int) -> list[str]:
    """Lines to show before an endpoint is created whose number of instances changes by itself."""
    what = f"{least} to {most} × {instance_type}"
    if cost is None:
        return [f"{what}: {_UNKNOWN}"]
    low, high = cost.per_hour * least, cost.per_hour * most
    hour, day = (f"${low * hours:,.2f} to ${high * hours:,.2f}" for hours in (1, 24))
    return [f"{what}: about {hour} an hour, {day} a day until it is deleted ({cost.source})"]


def say_billed(cost: Cost | None, instance_type: str, seconds: float) -> str:
    """What a job has cost.

    Args:
        seconds: billed, of all its instances together; those that spot capacity saved are not among them, see
            https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
    """
    if cost is None:
        return f"{instance_type}: {_UNKNOWN}"
    return f"about ${cost.per_hour * seconds / 3600:,.2f}, at ${cost.per_hour:,.2f} an hour ({cost.source})"


def say_serverless(memory: int, provisioned: int = 0) -> str:
    """
    Args:
        memory: MB
        provisioned: requests at once that never wait for a cold start
    """
    what = f"serverless, {memory} MB: billed by the millisecond that requests take"
    if provisioned:
        return f"{what}, and {provisioned} provisioned for as long as the endpoint is there, idle or not; see {PAGE}"
    return f"{what}, nothing while idle; see {PAGE}"


def _listed(instance_type: str, region: str, settings: Settings, use: str) -> float | None:
    """The price list's figure; None where it cannot be read or lists none."""
    asked = {"productFamily": "ML Instance", "regionCode": region, "instanceName": instance_type}
    asked["platoinstancetype"] = use
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in asked.items()]
    found: dict[str, list[str]] = {}
    with readonly.if_allowed("the price", []):  # a right that few roles have: the table's figure says where it is from
        client = readonly.client("pricing", replace(settings, region=_endpoint(region)))
        found = client.get_products(ServiceCode="AmazonSageMaker", Filters=filters)
    return _on_demand(found.get("PriceList", []))


def _endpoint(region: str) -> str:
    """The price list is served in few regions.

    https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
    """
    near = {"eu": "eu-central-1", "ap": "ap-south-1", "cn": "cn-northwest-1"}
    return near.get(region.partition("-")[0], "us-east-1")


def _on_demand(products: Iterable[str]) -> float | None:
    """Dollars an hour of the first product that has such a price; 0 is none."""
    prices = (
        float(dimension["pricePerUnit"].get("USD", 0))
        for product in map(json.loads, products)
        for term in product.get("terms", {}).get("OnDemand", {}).values()
        for dimension in term.get("priceDimensions", {}).values()
        if dimension.get("unit", "").lower() in ("hrs", "hours", "hour")
    )
    return next(prices, None) or None
