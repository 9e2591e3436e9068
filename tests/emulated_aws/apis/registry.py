"""SageMaker's model registry: groups, their versions, and a model that names one.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html and the pages beside it (2026-11).
"""

from collections.abc import Callable
from typing import Any

from ..http import checks, lookups
from ..http.account import Account
from ..http.errors import AwsError, invalid
from ..http.resources import Record, page

Params = dict[str, Any]
_GROUP, _PACKAGE = "ModelPackageGroup", "ModelPackage"


def containers(account: Account, params: Params) -> list[Record]:
    """Those of a model, each that names a package as the package's own.

    Raises:
        AwsError: the package is not approved, or something else is named beside it.
    """
    return [_served(account, container) for container in lookups.containers(params)]


def _served(account: Account, container: Record) -> Record:
    arn = container.get("ModelPackageName", "")
    if not arn:
        return container
    if "Image" in container or "ModelDataUrl" in container:
        raise invalid("ModelPackageName cannot be specified together with Image or ModelDataUrl.")
    package = _found(account, arn)
    if package["ModelApprovalStatus"] != "Approved":
        raise invalid(f"Model package {arn} is not approved: its status is {package['ModelApprovalStatus']}.")
    found: Record = package["InferenceSpecification"]["Containers"][0]
    environment = {**found.get("Environment", {}), **container.get("Environment", {})}
    return {**found, **({"Environment": environment} if environment else {})}


def _create_group(account: Account, params: Params) -> Params:
    return {f"{_GROUP}Arn": account.store.add(_GROUP, params)[f"{_GROUP}Arn"]}


def _delete_group(account: Account, params: Params) -> Params:
    name = params[f"{_GROUP}Name"]
    account.store.get(_GROUP, name)
    if _versions(account, name):
        raise AwsError("ConflictException", f"Model package group {name} cannot be deleted: it contains packages.")
    account.store.remove(_GROUP, name)
    return {}


def create_package(account: Account, params: Params) -> Params:
    """
    Raises:
        AwsError: refused.
    """
    group = params.get(f"{_GROUP}Name", "").rpartition("/")[2]
    if not group or f"{_PACKAGE}Name" in params:
        raise AwsError("NotImplemented", "the emulated AWS has versions of groups only", 501)
    if "Tags" in params:
        raise invalid("Tags cannot be specified for a versioned model package: it has those of its group.")
    account.store.get(_GROUP, group)
    for container in params["InferenceSpecification"]["Containers"]:
        checks.served(account, container, "the caller")
    number = 1 + max((row["ModelPackageVersion"] for row in account.store.all(_PACKAGE) if _of(row, group)), default=0)
    own = {
        "ModelPackageVersion": number,
        f"{_GROUP}Name": group,
        "ModelPackageStatusDetails": {"ValidationStatuses": []},
    }
    named = {"ModelApprovalStatus": "PendingManualApproval"} | params | {f"{_PACKAGE}Name": f"{group}/{number}"}
    return {f"{_PACKAGE}Arn": account.store.add(_PACKAGE, named, **own)[f"{_PACKAGE}Arn"]}


def _describe_package(account: Account, params: Params) -> Params:
    record = _found(account, params[f"{_PACKAGE}Name"])
    shown = account.store.describe(_PACKAGE, record[f"{_PACKAGE}Name"])
    return shown | {f"{_PACKAGE}Name": record[f"{_GROUP}Name"]}


def _list_packages(account: Account, params: Params) -> Params:
    group = params.get(f"{_GROUP}Name", "").rpartition("/")[2]
    account.store.get(_GROUP, group)
    rows = _versions(account, group)
    if wanted := params.get("ModelApprovalStatus"):
        rows = [row for row in rows if row["ModelApprovalStatus"] == wanted]
    return page("ListModelPackages", rows, params, _PACKAGE, ascending=False)


def _update_package(account: Account, params: Params) -> Params:
    record = _found(account, params[f"{_PACKAGE}Arn"])
    kept = ("ModelApprovalStatus", "ApprovalDescription", "CustomerMetadataProperties")
    account.store.change(record, **{name: params[name] for name in kept if name in params})
    return {f"{_PACKAGE}Arn": record[f"{_PACKAGE}Arn"]}


def _delete_package(account: Account, params: Params) -> Params:
    account.store.remove(_PACKAGE, _found(account, params[f"{_PACKAGE}Name"])[f"{_PACKAGE}Name"])
    return {}


def _found(account: Account, arn: str) -> Record:
    for row in account.store.all(_PACKAGE):
        if arn == row[f"{_PACKAGE}Arn"]:
            return row
    raise invalid(f"ModelPackage {arn} does not exist.")


def _versions(account: Account, group: str) -> list[Record]:
    return [row for row in account.store.all(_PACKAGE) if _of(row, group)]


def _of(row: Record, group: str) -> bool:
    return bool(row[f"{_GROUP}Name"] == group)


OPERATIONS: dict[str, Callable[[Account, Params], Params]] = {
    "CreateModelPackageGroup": _create_group,
    "DeleteModelPackageGroup": _delete_group,
    "CreateModelPackage": create_package,
    "DescribeModelPackage": _describe_package,
    "ListModelPackages": _list_packages,
    "UpdateModelPackage": _update_package,
    "DeleteModelPackage": _delete_package,
}
