"""`kennel push`: tags a local image by the git commit, pushes it to ECR or any other registry, and says the digest.

On ECR it logs in with the caller's AWS credentials and creates the repository where there is none.
"""

import argparse
import base64
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings
from kennel_launch.advice import image_fit, images
from kennel_launch.advice.images import Image
from kennel_launch.aws import session
from kennel_launch.machine import docker
from kennel_launch.settings import Settings

# Tagged images stay: an endpoint that grows or heals pulls its image again. Tags that never move leave few untagged.
_LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "keep the 10 newest images without a tag",
            "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 10},
            "action": {"type": "expire"},
        }
    ]
}


@dataclass(frozen=True)
class Target:
    """Where an image goes: `host/name:tag`."""

    host: str
    name: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.name}:{self.tag}"


@dataclass(frozen=True)
class Taken:
    """What has a tag in ECR: the digests of its manifest and of its configuration, one of which docker calls its ID."""

    digest: str
    configuration: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="of this machine's docker, as kennel:dev")
    parser.add_argument("--to", required=True, help="HOST/NAME[:TAG]; the tag is the git commit where none is given")
    parser.add_argument("--dry-run", action="store_true", help="show the AWS requests and docker commands, send none")
    parser.add_argument(
        "--through", default="", metavar="HOST", help="push to this host, which stands for the one of --to"
    )
    settings.add_flags(parser, ("profile",))


def run(options: argparse.Namespace) -> int:
    """
    Raises:
        UserError: it can't be pushed as asked.
    """
    print(push(options.image, target(options.to), settings.load(vars(options)), options.dry_run, options.through))
    return 0


def target(address: str) -> Target:
    """The parts of an address.

    Raises:
        UserError: no registry in it, or no tag and no git commit to name one by.
    """
    path, _, digest = address.partition("@")
    host, slash, rest = path.partition("/")
    if digest or not slash or not ("." in host or ":" in host or host == "localhost"):
        raise UserError(f"--to {address} names no registry: write HOST/NAME or HOST/NAME:TAG")
    name, _, tag = rest.partition(":")
    if not re.fullmatch(r"[a-z0-9]+([._/-]+[a-z0-9]+)*", name):
        raise UserError(f"--to {address}: a repository's name is lower-case letters, digits and . _ - /")
    return Target(host, name, tag or _commit())


def push(image: str, to: Target, wanted: Settings, dry_run: bool = False, through: str = "") -> str:
    """Tags and pushes; returns the address by digest, which is what a training job should name.

    Args:
        through: a host that stands for the target's own (a proxy of it); empty: none does.

    Raises:
        UserError: SageMaker would refuse the image, the tag is taken, or docker or AWS fail.
    """
    found, ecr = images.local(image), images.ECR.fullmatch(to.host)
    sent = replace(to, host=through or to.host)
    if ecr:
        image_fit.check_manifest(found, image)
        wanted = replace(wanted, region=ecr["region"])
        if dry_run:
            session.dry_run(wanted)
        user, password, taken = open_repository(to, ecr["account"], wanted)
        if taken:
            return _already(found, to, taken)
        if not dry_run:
            docker.run("login", "--username", user, "--password-stdin", sent.host, stdin=password, capture=True)
    commands = (("tag", image, str(sent)), ("push", str(sent)))
    if dry_run:
        return "\n".join(" ".join(["docker", *words]) for words in commands)
    docker.run(*commands[0], capture=True)
    docker.run(*commands[1])
    if found.architecture == "arm64":
        print("the image is built for arm64: training jobs and most instance types need linux/amd64", file=sys.stderr)
    return next((f"{to.host}/{to.name}@{digest}" for digest in _digests(str(sent), sent)), str(to))


def open_repository(to: Target, account: str, wanted: Settings) -> tuple[str, str, Taken | None]:
    """After making sure that the repository is there.

    Returns:
        (user, password) for an ECR registry, and what has the tag already and can't lose it.

    Raises:
        UserError: no credentials, or ones that may not do this.
    """
    with session.translate_errors(f"ECR in {wanted.region}"):
        client = session.client("ecr", wanted)
        token = client.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        user, _, password = base64.b64decode(token).decode().partition(":")
        return user, password, _taken(client, to, {"registryId": account, "repositoryName": to.name})


def _taken(client: Any, to: Target, asked: dict[str, str]) -> Taken | None:
    """What has the tag in a repository whose tags can't be moved; creates the repository if need be."""
    try:
        found = client.describe_repositories(registryId=asked["registryId"], repositoryNames=[to.name])["repositories"]
    except client.exceptions.RepositoryNotFoundException:
        _create(client, asked)
        print(f"created the repository {to.name}", file=sys.stderr)
        return None
    if not found[0].get("imageTagMutability", "MUTABLE").startswith("IMMUTABLE"):
        print(
            f"tags in {to.name} can be moved to other images: name this one by its digest, or forbid that by `aws ecr "
            f"put-image-tag-mutability --repository-name {to.name} --image-tag-mutability IMMUTABLE`",
            file=sys.stderr,
        )
        return None
    wanted = {"imageIds": [{"imageTag": to.tag}], "acceptedMediaTypes": list(images.MANIFESTS)}
    for there in client.batch_get_image(**asked, **wanted)["images"]:
        configuration = json.loads(there["imageManifest"]).get("config", {}).get("digest", "")
        return Taken(there["imageId"]["imageDigest"], configuration)
    return None


def _create(client: Any, asked: dict[str, str]) -> None:
    """A repository whose images are scanned and whose tags stay where they are; few images without one are kept."""
    client.create_repository(**asked, imageScanningConfiguration={"scanOnPush": True}, imageTagMutability="IMMUTABLE")
    client.put_lifecycle_policy(**asked, lifecyclePolicyText=json.dumps(_LIFECYCLE))


def _already(image: Image, to: Target, taken: Taken) -> str:
    """The address of what has the tag, where that is this image.

    Raises:
        UserError: it is another one.
    """
    if image.identity in (taken.digest, taken.configuration):
        print(f"{to} is there already", file=sys.stderr)
        return f"{to.host}/{to.name}@{taken.digest}"
    raise UserError(
        f"{to} exists already and its tag can't be moved to another image: commit what has changed, or write another "
        f"tag, --to {to.host}/{to.name}:TAG"
    )


def _digests(image: str, to: Target) -> Sequence[str]:
    """What a local image was pushed as, or pulled by, in one repository."""
    known = json.loads(docker.run("image", "inspect", "--format", "{{json .RepoDigests}}", image, capture=True)) or []
    return [digest.partition("@")[2] for digest in known if digest.startswith(f"{to.host}/{to.name}@")]


def _commit() -> str:
    """The commit's short name, with `-dirty` where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError("this folder is no git checkout to name the tag by: write HOST/NAME:TAG") from error
