"""The Price List API's part for SageMaker: rows of the form of AWS's, with made-up prices of a few instance types."""

import json
from typing import Any

from ..http.account import Account
from ..http.errors import AwsError

COMPONENTS = {"Training": "Train", "Hosting": "Host", "BatchTransform": "Tsform"}
# USD an hour, invented and round, so that no test mistakes them for AWS's.
USD = {"ml.g5.xlarge": 1.5, "ml.g4dn.xlarge": 0.75, "ml.m5.xlarge": 0.25, "ml.c7i.large": 0.125, "ml.c6i.large": 0.1}
_REGION = ("eu-west-1", "EU (Ireland)", "EU")


def answer(account: Account, operation: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if operation != "GetProducts":
        return None
    if params["ServiceCode"] != "AmazonSageMaker":
        raise AwsError("NotFoundException", f"Could not find service {params['ServiceCode']}.")
    wanted = {one["Field"]: one["Value"] for one in params.get("Filters", [])}
    rows = [row for row in _rows(account) if all(_attributes(row).get(key) == value for key, value in wanted.items())]
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(row) for row in rows]}


def _rows(account: Account) -> list[dict[str, Any]]:
    usual = {(name, component): usd for name, usd in USD.items() for component in COMPONENTS}
    return [_row(name, component, usd) for (name, component), usd in (usual | account.prices).items()]


def _attributes(row: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = row["product"]["attributes"] | {"productFamily": row["product"]["productFamily"]}
    return found


def _row(name: str, component: str, usd: float) -> dict[str, Any]:
    region, location, short = _REGION
    sku = f"{name}-{component}".upper().replace(" ", "-")
    dimension = {"unit": "Hrs", "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": f"{usd:.10f}"}}
    return {
        "product": {
            "productFamily": "ML Instance",
            "sku": sku,
            "attributes": {
                "servicecode": "AmazonSageMaker",
                "instanceName": name,
                "instanceType": f"{name}-{component}",
                "platoinstancename": name,
                "platoinstancetype": component,
                "component": component,
                "regionCode": region,
                "location": location,
                "locationType": "AWS Region",
                "usagetype": f"{short}-{COMPONENTS.get(component, component)}:{name}",
                "operation": "RunInstance",
            },
        },
        "serviceCode": "AmazonSageMaker",
        "terms": {"OnDemand": {f"{sku}.T": {"priceDimensions": {f"{sku}.T.D": dimension}}}},
    }
