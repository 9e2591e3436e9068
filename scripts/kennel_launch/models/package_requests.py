"""The requests for a model package and for its group, as boto3 takes them; also what a pipeline's step is made of."""

from collections.abc import Mapping, Sequence
from typing import Any

from kennel_launch import settings as kennel_settings
from kennel_launch.aws import instance_types, session
from kennel_launch.hosting.rollout import Call
from kennel_launch.inference import photo_sources
from kennel_launch.settings import Settings

FOLDER = "registry"  # below the prefix, with one for each group in it
# What the endpoint takes and answers: serve/openapi.yaml
CONTENT_TYPES = (*photo_sources.TYPES, photo_sources.ANY_PHOTO, "application/json", "application/x-npy")
RESPONSE_TYPES = ("application/json", "application/jsonlines", "text/csv")


def group_call(group: str, settings: Settings) -> Call:
    """What makes a group."""
    request = {"ModelPackageGroupName": group, "Tags": kennel_settings.tags(settings)}
    key = "ModelPackageGroupName"
    return Call("sagemaker", "create_model_package_group", request, key, "delete_model_package_group")


def request(
    group: str,
    container: Mapping[str, Any],
    types: Sequence[str],
    approval: Any,
    properties: Mapping[str, Any],
    settings: Settings,
) -> dict[str, Any]:
    """CreateModelPackage's, of a version; also the arguments of a pipeline's step, whose values may be variables.

    Args:
        container: Image and ModelDataUrl.
        types: instance types that it is to be served on.
        approval: APPROVED or PENDING.

    Raises:
        UserError: there is no such instance type.
    """
    members = session.client("sagemaker", settings).meta.service_model.shape_for
    for one in types:
        instance_types.check_known(one, members("ProductionVariantInstanceType").enum, "endpoints")
    batch = [one for one in types if one in members("TransformInstanceType").enum]
    return {
        "ModelPackageGroupName": group,
        "InferenceSpecification": {
            "Containers": [dict(container)],
            "SupportedContentTypes": list(CONTENT_TYPES),
            "SupportedResponseMIMETypes": list(RESPONSE_TYPES),
            "SupportedRealtimeInferenceInstanceTypes": list(types),
            **({"SupportedTransformInstanceTypes": batch} if batch else {}),
        },
        "ModelApprovalStatus": approval,
        "CustomerMetadataProperties": dict(properties),
    }


def folder(group: str, settings: Settings) -> str:
    """The key below which the statistics and reports of a group's versions lie."""
    return f"{settings.prefix}/{FOLDER}/{group}/"
