"""What an image is, without pulling it: in ECR by its manifest and configuration, on this machine by `docker inspect`.

Judges nothing: the adviser does.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import readonly
from kennel_launch.machine import docker
from kennel_launch.settings import Settings

ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?")
CUDA_LABEL = "kennel.cuda"  # "12.8", for an image whose base does not say so itself
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.docker.distribution.manifest.v2+json", OCI_MANIFEST, *INDEXES)


@dataclass(frozen=True)
class Address:
    """Of an image in ECR; `reference` is a tag, or a digest with its `sha256:`."""

    account: str
    region: str
    name: str
    reference: str


@dataclass(frozen=True)
class Image:
    """Sizes in bytes, 0 where they are not known; an empty word is not known, either.

    `known`: what is inside (all from `architecture` on) could be read.
    """

    media_type: str
    compressed: int = 0
    unpacked: int = 0
    known: bool = True
    architecture: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    identity: str = ""  # docker's, of an image on this machine: the digest of its configuration, or of its manifest

    @property
    def is_index(self) -> bool:
        """A list of manifests: of several platforms, or of one and its attestations."""
        return self.media_type in INDEXES

    @property
    def ours(self) -> bool:
        return "kennel_image.entrypoint" in self.entrypoint

    @property
    def trains(self) -> bool:
        """The slim image lacks torch, and with it the variable that names the training function."""
        return "SAGEMAKER_TRAINING_MODULE" in self.env

    @property
    def cuda(self) -> tuple[int, int] | None:
        """The CUDA version, from our label or from what NVIDIA's base images set."""
        said = (self.labels.get(CUDA_LABEL), self.env.get("CUDA_VERSION"), self.env.get("NVIDIA_REQUIRE_CUDA"))
        for text in said:
            if found := re.match(r"(?:cuda>=)?(\d+)\.(\d+)", text or ""):
                return int(found[1]), int(found[2])
        return None


def address(image: str) -> Address:
    """
    Raises:
        UserError: it is none of an image in ECR, the one registry that SageMaker's training jobs and endpoints share.
    """
    host, _, rest = image.partition("/")
    ecr = ECR.fullmatch(host)
    path, _, digest = rest.partition("@")
    name, _, tag = path.partition(":")
    if not ecr or not name:
        raise UserError(
            f"image {image!r} does not lie in ECR, from where SageMaker takes images: push it with "
            "kennel push IMAGE --to ACCOUNT.dkr.ecr.REGION.amazonaws.com/kennel and name what that prints"
        )
    return Address(ecr["account"], ecr["region"], name, digest or tag or "latest")


def read(image: str, settings: Settings) -> Image:
    """An image in ECR, of the settings' region.

    Raises:
        UserError: there is none.
        botocore.exceptions.ClientError: ECR refuses to answer.
    """
    where = address(image)
    client = readonly.client("ecr", settings)
    key = "imageDigest" if where.reference.startswith("sha256:") else "imageTag"
    asked = {"registryId": where.account, "repositoryName": where.name}
    untagged = image.partition("@")[0].partition(":")[0]
    push = f"push it with kennel push IMAGE --to {untagged}"
    try:
        found = client.batch_get_image(**asked, imageIds=[{key: where.reference}], acceptedMediaTypes=list(MANIFESTS))
    except client.exceptions.RepositoryNotFoundException as error:
        raise UserError(f"ECR in {where.region} has no repository {where.name!r}: {push}") from error
    if not found["images"]:
        raise UserError(f"ECR's repository {where.name!r} has no image {where.reference!r}: {push}")
    manifest = json.loads(found["images"][0]["imageManifest"])
    media_type = found["images"][0].get("imageManifestMediaType") or manifest.get("mediaType", OCI_MANIFEST)
    compressed = sum(layer.get("size", 0) for layer in manifest.get("layers", []))
    if "config" not in manifest:
        return Image(media_type, compressed, known=False)
    return _described(_configuration(client, asked, manifest["config"]["digest"]), media_type, compressed, 0)


def local(image: str) -> Image:
    """An image of this machine's docker.

    Raises:
        UserError: there is none, or no docker.
    """
    inspected = json.loads(docker.run("image", "inspect", "--format", "{{json .}}", image, capture=True))
    content = {"architecture": inspected.get("Architecture"), "config": inspected.get("Config")}
    media_type = (inspected.get("Descriptor") or {}).get("mediaType", "")  # only newer engines say it
    return replace(
        _described(content, media_type, 0, int(inspected.get("Size") or 0)), identity=inspected.get("Id", "")
    )


def _configuration(client: Any, asked: Mapping[str, str], digest: str) -> dict[str, Any] | None:
    """The manifest's configuration, a blob that is fetched like a layer; None where it can't be."""
    import urllib.request  # not at the top: what it imports would cost every command's --help its tenth of a second

    unreadable: tuple[type[Exception], ...] = (*readonly.refusals(), OSError, ValueError)
    try:
        url = client.get_download_url_for_layer(**asked, layerDigest=digest)["downloadUrl"]
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 # ECR's own address
            content = json.loads(answer.read())
    except unreadable:
        return None
    return content if isinstance(content, dict) else None


def _described(content: Mapping[str, Any] | None, media_type: str, compressed: int, unpacked: int) -> Image:
    if content is None:
        return Image(media_type, compressed, unpacked, known=False)
    config = content.get("config") or {}
    return Image(
        media_type,
        compressed,
        unpacked,
        architecture=content.get("architecture") or "",
        env=dict(pair.partition("=")[::2] for pair in config.get("Env") or []),
        labels=config.get("Labels") or {},
        entrypoint=tuple(config.get("Entrypoint") or ()),
    )
