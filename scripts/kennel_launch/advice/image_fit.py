"""Whether an image fits what it is to run on: manifest, architecture, size, CUDA, and which of our two images it is.

Looks nothing up: images and hosts know.
"""

import math

from kennel.errors import UserError
from kennel_launch.advice import images
from kennel_launch.advice.images import Image
from kennel_launch.aws import inference_ami, instance_types
from kennel_launch.settings import Settings

SERVERLESS_PAGE = "https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html"
_LIMIT = 10 * 10**9  # bytes of a serverless endpoint's image, SERVERLESS_PAGE; other modes have ECR's limits alone
USUAL_SIZE = 224  # pixels: most backbones' own image size, which a laptop without torch cannot look up
_CACHED = 256  # pixels: training keeps this larger square of each photo, by most libraries' own ratio
_SLIM = "the slim image (make build-serve-cpu, then kennel push kennel:serve-cpu --to ...)"
_UNKNOWN = "what is inside the image could not be read, so that nothing of it was checked"


def check_training(image: Image, name: str, kind: str) -> list[str]:
    """
    Args:
        name: the image's address.
        kind: the instance type.

    Returns:
        lines to show.

    Raises:
        UserError: no training job with it can succeed there.
    """
    if instance_types.has_other_chips(kind):
        raise UserError(f"{kind} has chips that this image does not train on: take one such as ml.g5.xlarge")
    lines = _check(image, name, instance_types.architecture(kind), kind)
    if image.known and image.ours and not image.trains:
        raise UserError(
            f"image {name} is the slim one, which only serves: train in the full image (make build, then kennel push "
            "kennel:dev --to ...)"
        )
    if not instance_types.has_gpu(kind):
        lines.append(f"{kind} has no GPU: to train a whole backbone takes long there")
    return lines


def check_volume(settings: Settings, photos: int, size: int, image_size: int, volume: int) -> None:
    """
    Args:
        photos: their number, and
        size: the bytes of their files on each machine, 0 where they are streamed.
        volume: of each machine, GB; a type with disks of its own has those instead.

    Raises:
        UserError: the decoded photos, which each machine keeps its share of, do not fit beside the files.
    """
    side = round(image_size * _CACHED / USUAL_SIZE)
    decoded = photos * side * side * 3 // settings.instance_count
    if instance_types.has_own_disk(settings.instance_type) or decoded + size <= volume * 10**9:
        return
    files = f" and their files {size / 1e9:,.1f} GB" if size else ""
    raise UserError(
        f"{photos} photos take about {decoded / 1e9:,.1f} GB decoded{files} on each machine, more than the "
        f"{volume} GB of its volume: write --volume-size {math.ceil((decoded + size) / 1e9 * 1.1) + 5}"
    )


def check_serving(image: Image, name: str, kind: str, transform: bool) -> tuple[list[str], str]:
    """
    Args:
        transform: a batch transform job, not an endpoint: other systems for the host to choose from.

    Returns:
        lines to show; the host's system to ask for, or empty.

    Raises:
        UserError: no endpoint with it can succeed there, or it would pay for a GPU that stays idle.
    """
    if instance_types.has_other_chips(kind):
        raise UserError(f"{kind} has chips that this image does not use: take one such as ml.c7i.large or ml.g5.xlarge")
    lines = [*_oci(image), *_check(image, name, instance_types.architecture(kind), kind)]
    if not image.known:
        return lines, ""
    if not instance_types.has_gpu(kind):
        if image.ours and image.trains:
            lines.append(f"{kind} has no GPU: {_SLIM} starts sooner there")
        return lines, ""
    if image.ours and not image.trains:
        raise UserError(
            f"image {name} is the slim one, which leaves the GPU of {kind} idle: take the full image, or an instance "
            "type such as ml.c7i.large"
        )
    if image.cuda is None:
        lines.append("the image does not say its CUDA version, so that no host's driver was chosen for it")
        return lines, ""
    choice = inference_ami.choose_ami(image.cuda, kind, transform)
    return [*lines, *filter(None, [choice.reason])], choice.ami


def check_serverless(image: Image, name: str) -> list[str]:
    """
    Returns:
        lines to show.

    Raises:
        UserError: it is over the limit, or made for GPUs.
    """
    lines = [*_oci(image), *_check(image, name, "amd64", "a serverless endpoint")]
    if max(image.compressed, image.unpacked) > _LIMIT:
        raise UserError(f"image {name} is over the 10 GB of a serverless endpoint: take {_SLIM}")
    if image.known and (image.cuda or image.trains):
        raise UserError(
            f"image {name} is made for GPUs, which serverless endpoints lack, and its gigabytes are waited for at "
            f"every cold start: take {_SLIM}"
        )
    return lines


def check_manifest(image: Image, name: str) -> None:
    """
    Raises:
        UserError: it is a list of manifests, which SageMaker refuses.
    """
    if image.is_index:
        raise UserError(
            f"image {name} is a list of manifests ({image.media_type}), which SageMaker refuses: build it without "
            "attestations, docker build --provenance=false, as make build does, and push it again"
        )


def _check(image: Image, name: str, architecture: str, host: str) -> list[str]:
    """What holds for every launch."""
    check_manifest(image, name)
    lines = []
    packed = image.compressed / 1e9
    if packed > 10:
        lines.append(f"the image is of {packed:.1f} GB, packed: hosts take long to pull it")
    if not image.known:
        return [*lines, _UNKNOWN]
    if image.architecture and image.architecture != architecture:
        fix = "build it with --platform linux/amd64, as make build does"
        fix = fix if architecture == "amd64" else "take a type without ARM cores such as ml.c7i.large"
        raise UserError(f"image {name} is built for {image.architecture}, {host} runs {architecture}: {fix}")
    return lines if image.ours else [*lines, "the image is not Kennel's: whether it trains and serves is not known"]


def _oci(image: Image) -> list[str]:
    """Endpoints have refused OCI's own manifests: https://github.com/aws/amazon-sagemaker-feedback/issues/180, open."""
    if image.media_type != images.OCI_MANIFEST:
        return []
    return ["the image's manifest is OCI's, which endpoints have refused: if so, docker build --output type=docker"]
