"""Model packages of SageMaker's registry as they are: which one GROUP or GROUP/VERSION names. Changes nothing.

A version of a group has no tags of its own; ours is known by a property, and a group by our tag:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html (2026-11).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import session
from kennel_launch.hosting import specs
from kennel_launch.settings import Settings

APPROVED, PENDING, REJECTED = "Approved", "PendingManualApproval", "Rejected"


@dataclass(frozen=True)
class ModelPackage:
    """One version of a group, as AWS describes it."""

    group: str
    version: int
    arn: str
    status: str
    approval: str
    created: datetime
    image: str
    data: str  # s3://
    instance_types: tuple[str, ...]  # that it says to be served on
    statistics: str = ""  # s3://, of its metrics
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return kennel_settings.TAG.items() <= self.properties.items()

    def __str__(self) -> str:
        return f"{self.group}/{self.version}"


def split(text: str) -> tuple[str, int | None]:
    """(group, version) of GROUP/VERSION; None: the text names the group alone.

    Raises:
        UserError: it is neither.
    """
    group, slash, version = text.partition("/")
    if slash and not (version.isascii() and version.isdecimal() and 1 <= int(version) < 10**9):
        raise UserError(f"{text!r}: name a group of the model registry, or one of its versions as {group}/3")
    return specs.checked(group, "model package group"), int(version) if slash else None


def find(text: str, settings: Settings) -> ModelPackage:
    """The version that GROUP/VERSION names, or the newest that is approved of GROUP.

    Raises:
        UserError: there is none, or AWS refuses.
    """
    group, version = split(text)
    rows = versions(group, settings)
    if version is None:
        approved = [row for row in rows if row["ModelApprovalStatus"] == APPROVED]
        if not approved:
            has, how = "it is empty", f"kennel register {group} --job NAME --approve"
            if rows:
                newest = max(rows, key=_version)
                name = f"{group}/{_version(newest)}"
                has, how = f"{name} is {newest['ModelApprovalStatus']}", f"kennel register {name} --approve"
            raise UserError(f"no version of model package group {group} is approved ({has}): {how}")
        return describe(max(approved, key=_version)["ModelPackageArn"], settings)
    arn = next((row["ModelPackageArn"] for row in rows if row["ModelPackageVersion"] == version), "")
    if not arn:
        known = ", ".join(str(row["ModelPackageVersion"]) for row in rows[:10]) or "none"
        raise UserError(f"model package group {group} has no version {version} (it has {known}): name one of those")
    return describe(arn, settings)


def group_is_there(group: str, settings: Settings) -> bool:
    """
    Raises:
        UserError: AWS refuses.
    """
    client = session.client("sagemaker", settings)
    with session.translate_errors(f"model package group {group}"):
        return session.describe(client, "describe_model_package_group", ModelPackageGroupName=group) is not None


def versions(group: str, settings: Settings) -> list[dict[str, Any]]:
    """The summaries of a group's versions, the newest first.

    Raises:
        UserError: there is no such group, or AWS refuses.
    """
    if not group_is_there(group, settings):
        raise UserError(
            f"there is no model package group {group!r} in {session.region(settings)}: kennel status lists those that "
            "are, and kennel register makes one"
        )
    with session.translate_errors(f"model package group {group}"):
        return list(listed(session.client("sagemaker", settings), group))


def listed(client: Any, group: str) -> Iterator[dict[str, Any]]:
    """As `versions`, of a group that is there."""
    pages = client.get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending"
    )
    for page in pages:
        yield from page["ModelPackageSummaryList"]


def describe(arn: str, settings: Settings) -> ModelPackage:
    """
    Raises:
        UserError: it is gone, is no version of a group, or AWS refuses.
    """
    about = described(arn, settings)
    spec = about.get("InferenceSpecification", {})
    container = spec.get("Containers", [{}])[0]
    source = container.get("ModelDataSource", {}).get("S3DataSource", {})
    return ModelPackage(
        about.get("ModelPackageGroupName", ""),
        about.get("ModelPackageVersion", 0),
        arn,
        about["ModelPackageStatus"],
        about.get("ModelApprovalStatus", ""),
        about["CreationTime"],
        container.get("Image", ""),
        container.get("ModelDataUrl", "") or source.get("S3Uri", ""),
        tuple(spec.get("SupportedRealtimeInferenceInstanceTypes", ())),
        about.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {}).get("S3Uri", ""),
        about.get("CustomerMetadataProperties", {}),
    )


def described(arn: str, settings: Settings) -> dict[str, Any]:
    """All that SageMaker says of it.

    Raises:
        UserError: as `describe`.
    """
    with session.translate_errors(f"model package {arn}"):
        return dict(session.client("sagemaker", settings).describe_model_package(ModelPackageName=arn))


def name_of(arn: str) -> str:
    """GROUP/VERSION of a version's ARN."""
    return arn.rpartition(":model-package/")[2]


def details(package: ModelPackage) -> Iterator[tuple[str, str]]:
    """Key and value, line by line."""
    yield "model package", str(package)
    yield "approval", package.approval
    yield "status", package.status
    yield "created", package.created.astimezone().strftime("%Y-%m-%d %H:%M")
    yield "model", package.data
    yield "image", package.image
    if package.statistics:
        yield "statistics", package.statistics
    yield from package.properties.items()


def group_details(group: str, settings: Settings) -> Iterator[tuple[str, str]]:
    """A line for each version, the newest first.

    Raises:
        UserError: AWS refuses.
    """
    for row in versions(group, settings):
        yield f"version {_version(row)}", row["ModelApprovalStatus"]


def to_serve(text: str, settings: Settings) -> ModelPackage:
    """As `find`, but one that SageMaker makes a model of.

    Raises:
        UserError: it is not approved, or failed.
    """
    found = find(text, settings)
    if found.approval != APPROVED:
        raise UserError(f"model package {found} is {found.approval}: kennel register {found} --approve, then deploy it")
    if found.status != "Completed" or not found.image or not found.data:
        raise UserError(f"model package {found} is {found.status} and cannot be served: name another version")
    return found


def _version(row: Mapping[str, Any]) -> int:
    return int(row["ModelPackageVersion"])
