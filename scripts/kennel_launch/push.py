"""`make push`: tags a local image and pushes it to ECR or any other registry, and says the digest.

On ECR it logs in with the caller's AWS credentials and creates the repository where there is none.
"""

import argparse
import base64
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from kennel.errors import UserError
from kennel_launch import settings

_ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?")


@dataclass(frozen=True)
class Target:
    """Where an image goes: `host/name:tag`."""

    host: str
    name: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.name}:{self.tag}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("--to", required=True, help="HOST/NAME[:TAG]; the tag is the git commit where none is given")
    options = parser.parse_args()
    try:
        print(push(options.image, target(options.to)))
    except UserError as error:
        print(f"push: {error}", file=sys.stderr)
        return 1
    return 0


def target(address: str) -> Target:
    """The parts of an address.

    Raises:
        UserError: no registry in it, or no tag and no git commit to name one by.
    """
    path, _, digest = address.partition("@")
    host, slash, rest = path.partition("/")
    if digest or not slash or not ("." in host or ":" in host or host == "localhost"):
        raise UserError(f"TO={address!r} names no registry: write HOST/NAME or HOST/NAME:TAG")
    name, _, tag = rest.partition(":")
    if not re.fullmatch(r"[a-z0-9]+([._/-]+[a-z0-9]+)*", name):
        raise UserError(f"TO={address!r}: a repository's name is lower-case letters, digits and . _ - /")
    return Target(host, name, tag or _commit())


def push(image: str, to: Target) -> str:
    """Tags and pushes; returns the address by digest, which is what a training job should name."""
    ecr = _ECR.fullmatch(to.host)
    if ecr:
        user, password = open_repository(to.name, ecr["account"], ecr["region"])
        _docker("login", "--username", user, "--password-stdin", to.host, stdin=password, capture=True)
    _docker("tag", image, str(to), capture=True)
    _docker("push", str(to))
    digests = json.loads(_docker("image", "inspect", "--format", "{{json .RepoDigests}}", str(to), capture=True))
    return next((digest for digest in digests if digest.startswith(f"{to.host}/{to.name}@")), str(to))


def open_repository(name: str, account: str, region: str) -> tuple[str, str]:
    """(user, password) for an ECR registry, after making sure that the repository is there.

    Raises:
        UserError: no credentials, or ones that may not do this.
    """
    try:
        client: Any = boto3.client("ecr", region_name=region)
        token = client.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        try:
            client.describe_repositories(registryId=account, repositoryNames=[name])
        except client.exceptions.RepositoryNotFoundException:
            scan = {"scanOnPush": True}
            client.create_repository(registryId=account, repositoryName=name, imageScanningConfiguration=scan)
            print(f"created the repository {name} in {region}")
    except (BotoCoreError, ClientError) as error:
        raise UserError(f"ECR in {region} refuses ({error}): see to the AWS credentials and their rights") from error
    user, _, password = base64.b64decode(token).decode().partition(":")
    return user, password


def _commit() -> str:
    """The commit's short name, with `-dirty` where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError("this folder is no git checkout to name the tag by: write HOST/NAME:TAG") from error


def _docker(*arguments: str, stdin: str | None = None, capture: bool = False) -> str:
    """One docker command's output.

    Raises:
        UserError: no client, or it failed; says docker's own last line.
    """
    command = [settings.docker(), *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=capture, text=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started ({error.strerror}): set DOCKER to a docker client") from error
    if done.returncode:
        said = (done.stderr or "").strip().splitlines()
        raise UserError(f"docker {arguments[0]} failed{': ' + said[-1] if said else ', see above'}")
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
