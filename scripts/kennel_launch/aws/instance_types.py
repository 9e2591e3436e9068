"""What is known of an instance type by its name, and which driver a GPU host of an endpoint or a transform job brings.

No AWS is asked but botocore's own model of the API, which lies on this machine.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from kennel.errors import UserError, did_you_mean

Version = tuple[int, int]
DRIVERS_PAGE = "https://docs.aws.amazon.com/sagemaker/latest/dg/inference-gpu-drivers.html"
_NAME = re.compile(r"ml\.(?P<family>[a-z]+\d+[a-z]*(-[a-z0-9]+)?)\.\w+")
_GRAVITON = re.compile(r"[a-z]+\d+g[dn]?")
_NVIDIA = re.compile(r"[gp]\d")
_OTHER_CHIPS = re.compile(r"(inf|trn|dl)\d")
# CUDA's major version -> the oldest driver that its compatibility libraries run on: what NVIDIA's own base images
# say in NVIDIA_REQUIRE_CUDA.
_COMPAT_FROM = {12: 470, 13: 535}


@dataclass(frozen=True)
class Ami:
    """A host's system: its name in the API (empty: what a host gets that asks for none), NVIDIA driver and CUDA."""

    name: str
    driver: int
    cuda: Version


@dataclass(frozen=True)
class AmiChoice:
    """`ami` to ask for, or empty; `reason` is a line to show, or empty."""

    ami: str
    reason: str = ""


# Names, drivers and CUDA: botocore's own documentation of InferenceAmiVersion and TransformAmiVersion.
# -gpu-2 is left out: -gpu-2-1 is the same driver, and mounts no compatibility libraries of its own.
_INFERENCE = (
    Ami("al2-ami-sagemaker-inference-gpu-2-1", 535, (12, 2)),
    Ami("al2-ami-sagemaker-inference-gpu-3-1", 550, (12, 4)),
    Ami("al2023-ami-sagemaker-inference-gpu-4-1", 580, (13, 0)),
)
_TRANSFORM = (
    Ami("al2-ami-sagemaker-batch-gpu-470", 470, (11, 4)),
    Ami("al2-ami-sagemaker-batch-gpu-535", 535, (12, 2)),
)
# What a host brings that asks for nothing (DRIVERS_PAGE); newer families are not in the table and bring newer drivers.
_OLD = Ami("", 470, (11, 4))
_DEFAULTS = {
    **dict.fromkeys(("p2", "p3", "g4dn", "g5", "p4d", "p4de"), _OLD),
    **dict.fromkeys(("g6", "g6e", "p5"), Ami("", 535, (12, 2))),
    **dict.fromkeys(("p5e", "p5en"), Ami("", 550, (12, 4))),
}
# Which hosts take another one: autogluon-cloud's dlc_utils.py keeps the same two lists, in use.
_TAKE_INFERENCE = ("g4dn", "g5", "g6", "g6e", "p4d", "p4de", "p5", "p5e", "p5en")
_TAKE_TRANSFORM = ("g4dn", "g5", "g6", "g6e")


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


def choose_ami(cuda: Version, instance_type: str, transform: bool = False) -> AmiChoice:
    """The host's system that runs an image with this CUDA: the oldest that does so by itself, else by the image's
    compatibility libraries. An older driver than an image can bear leaves a container that hangs without a log.

    Raises:
        UserError: no host of this type runs it.
    """
    name = family(instance_type)
    offered, takers = (_TRANSFORM, _TAKE_TRANSFORM) if transform else (_INFERENCE, _TAKE_INFERENCE)
    default = _DEFAULTS.get(name)
    if default is None:
        return AmiChoice("", f"which driver {instance_type} brings is not in AWS's table ({DRIVERS_PAGE})")
    candidates = [default, *(ami for ami in offered if name in takers and ami.driver > default.driver)]
    for ami in candidates:
        if ami.cuda >= cuda:
            return AmiChoice(ami.name)
    newest = candidates[-1]
    shown = f"host driver {newest.driver} (CUDA {newest.cuda[0]}.{newest.cuda[1]})"
    if newest.driver < _COMPAT_FROM.get(cuda[0], sys.maxsize):
        raise UserError(
            f"the image's CUDA {cuda[0]}.{cuda[1]} does not run on {instance_type}, which has {shown} at most: take "
            "another instance type such as ml.g5.xlarge, or build from a CUDA 12.8 base (make build BASE_IMAGE=...)"
        )
    return AmiChoice(newest.name, f"{instance_type} has {shown}: the image's CUDA compatibility libraries do the rest")


def has_own_disk(instance_type: str) -> bool:
    """Whether the host has local disks: their own hardware encrypts them, and a request with a key is refused.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html#sagemaker-CreateEndpointConfig-request-KmsKeyId
    """
    family = instance_type.removeprefix("ml.").partition(".")[0]
    return bool(re.fullmatch(r"[a-z]+\d+[a-z]*d[a-z]*|g5|g6e?|p5e?n?|trn\d\w*", family))
