"""InferenceAmiVersion, the host's system of a GPU endpoint or transform job: which driver and CUDA it brings.

The image's own major version comes first: AWS's container team saw a CUDA 12.9 image on a CUDA 13 host stay in Creating
without a log, and pins -gpu-3-1 for it (https://github.com/aws/deep-learning-containers/pull/6187, 2026-06-05).
"""

import sys
from dataclasses import dataclass

from kennel.errors import UserError
from kennel_launch.aws.instance_types import family

Version = tuple[int, int]
DRIVERS_PAGE = "https://docs.aws.amazon.com/sagemaker/latest/dg/inference-gpu-drivers.html"
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


def choose_ami(cuda: Version, instance_type: str, transform: bool = False) -> AmiChoice:
    """The host's system that runs an image with this CUDA.

    Of the image's own major version the oldest that runs it by itself, else the newest, with the image's compatibility
    libraries; a newer major version only where no other is offered. An older driver than an image can bear leaves a
    container that hangs without a log.

    Raises:
        UserError: no host of this type runs it.
    """
    name = family(instance_type)
    offered, takers = (_TRANSFORM, _TAKE_TRANSFORM) if transform else (_INFERENCE, _TAKE_INFERENCE)
    default = _DEFAULTS.get(name)
    if default is None:
        return AmiChoice("", f"which driver {instance_type} brings is not in AWS's table ({DRIVERS_PAGE})")
    candidates = [default, *(ami for ami in offered if name in takers and ami.driver > default.driver)]
    own = [ami for ami in candidates if ami.cuda[0] == cuda[0]]
    for ami in own:
        if ami.cuda >= cuda:
            return AmiChoice(ami.name)
    for ami in (*own[::-1], *candidates[::-1]):
        if ami.cuda[0] <= cuda[0] and ami.driver >= _COMPAT_FROM.get(cuda[0], sys.maxsize):
            libraries = "the image's CUDA compatibility libraries do the rest"
            return AmiChoice(ami.name, f"{instance_type} has {_shown(ami)}: {libraries}")
    for ami in candidates:
        if ami.cuda >= cuda:
            return AmiChoice(ami.name, f"{instance_type} has {_shown(ami)}, no other host runs the image's CUDA")
    raise UserError(
        f"the image's CUDA {cuda[0]}.{cuda[1]} does not run on {instance_type}, which has {_shown(candidates[-1])} at "
        "most: take another instance type such as ml.g5.xlarge, or build from a CUDA 12.8 base "
        "(make build BASE_IMAGE=...)"
    )


def _shown(ami: Ami) -> str:
    return f"host driver {ami.driver} (CUDA {ami.cuda[0]}.{ami.cuda[1]})"
