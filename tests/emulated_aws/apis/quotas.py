"""Service Quotas of SageMaker: a number of instances for each type and use. moto has none of SageMaker's."""

import hashlib
from typing import Any

from ..http.account import Account
from ..http.errors import AwsError
from ..http.recognition import service_model
from ..http.resources import ACCOUNT

PLENTY = 20.0
USES = {
    "TrainingInstanceType": ("training job usage", "spot training job usage", "training warm pool usage"),
    "ProductionVariantInstanceType": ("endpoint usage",),
    "TransformInstanceType": ("transform job usage",),
}
_PAGE = 100


def answer(account: Account, operation: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if params.get("ServiceCode") != "sagemaker":
        raise AwsError("NoSuchResourceException", f"The service {params.get('ServiceCode')} is not known here.")
    names = _names()
    if operation in ("GetServiceQuota", "GetAWSDefaultServiceQuota"):
        for name in names:
            if code(name) == params["QuotaCode"]:
                return {"Quota": _row(account, name)}
        raise AwsError("NoSuchResourceException", f"The request failed because quota {params['QuotaCode']} is unknown.")
    if operation in ("ListServiceQuotas", "ListAWSDefaultServiceQuotas"):
        start, most = int(params.get("NextToken", 0)), params.get("MaxResults", _PAGE)
        rest = {"NextToken": str(start + most)} if start + most < len(names) else {}
        return {"Quotas": [_row(account, name) for name in names[start : start + most]], **rest}
    return None


def of(account: Account, instance_type: str, use: str) -> float:
    """Instances that may run at once."""
    return account.quotas.get(f"{instance_type} for {use}", PLENTY)


def code(name: str) -> str:
    """Of the form of AWS's own, but not its own, which are given out at random."""
    return "L-" + hashlib.sha256(name.encode()).hexdigest()[:8].upper()


def _names() -> list[str]:
    known = service_model("sagemaker")
    assert known
    return [
        f"{instance_type} for {use}"
        for enum, uses in USES.items()
        for use in uses
        for instance_type in known.shape_for(enum).enum
    ]


def _row(account: Account, name: str) -> dict[str, Any]:
    return {
        "ServiceCode": "sagemaker",
        "ServiceName": "Amazon SageMaker",
        "QuotaArn": f"arn:aws:servicequotas:eu-west-1:{ACCOUNT}:sagemaker/{code(name)}",
        "QuotaCode": code(name),
        "QuotaName": name,
        "Value": account.quotas.get(name, PLENTY),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
