"""What is known of an instance type by its name; no AWS is asked."""

import re
from collections.abc import Iterable

from kennel.errors import UserError, did_you_mean

_NAME = re.compile(r"ml\.(?P<family>[a-z]+\d+[a-z]*(-[a-z0-9]+)?)\.\w+")
_GRAVITON = re.compile(r"[a-z]+\d+g[dn]?")
_NVIDIA = re.compile(r"[gp]\d")
_OTHER_CHIPS = re.compile(r"(inf|trn|dl)\d")


def family(instance_type: str) -> str:
    """`g5` of `ml.g5.xlarge`; empty where that is no instance type."""
    found = _NAME.fullmatch(instance_type)
    return found["family"] if found else ""


def architecture(instance_type: str) -> str:
    """What an image must be built for, in docker's words: Graviton and Grace (the GB200 hosts) are ARM."""
    name = family(instance_type)
    return "arm64" if _GRAVITON.fullmatch(name) or "-gb" in name else "amd64"


def has_gpu(instance_type: str) -> bool:
    """Whether it has NVIDIA's GPUs."""
    return bool(_NVIDIA.match(family(instance_type)))


def has_other_chips(instance_type: str) -> bool:
    """Inferentia, Trainium and Gaudi: torch and ONNX Runtime as we ship them run beside these chips, not on them."""
    return bool(_OTHER_CHIPS.match(family(instance_type)))


def check_known(instance_type: str, known: Iterable[str], what: str) -> None:
    """
    Args:
        known: the operation's own list.
        what: completes "SageMaker has no instance type ... for ...".

    Raises:
        UserError: it is not in the list; names those that are nearest.
    """
    names = sorted(known)
    if instance_type in names:
        return
    hint = did_you_mean(instance_type, names, "take one such as ml.m5.xlarge", most=3, cutoff=0.6)
    raise UserError(
        f"SageMaker has no instance type {instance_type!r} for {what}: {hint} (a newer boto3 may know more)"
    )


def has_own_disk(instance_type: str) -> bool:
    """Whether the host has local disks: their own hardware encrypts them, and a request with a key is refused.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html#sagemaker-CreateEndpointConfig-request-KmsKeyId
    """
    family = instance_type.removeprefix("ml.").partition(".")[0]
    return bool(re.fullmatch(r"[a-z]+\d+[a-z]*d[a-z]*|g5|g6e?|p5e?n?|trn\d\w*", family))
