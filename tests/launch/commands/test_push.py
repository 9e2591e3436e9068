"""Addresses, and a push with ECR's part against the emulated AWS; docker is a script that notes what it is asked."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kennel.errors import UserError
from kennel_launch.commands import push

from ...emulated_aws.client import Aws
from ..conftest import REPOSITORY, Command

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
DIGEST = "sha256:" + "5e" * 32
CONFIGURATION = "sha256:" + "c0" * 32
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {"digest": CONFIGURATION, "size": 2},
    "layers": [],
}
Push = Callable[..., subprocess.CompletedProcess[str]]


class Docker:
    """A docker client that does nothing; `inspect` shows every image as `fields`, pushed as `digests`."""

    def __init__(self, folder: Path) -> None:
        self.path, self._asked, self._input = folder / "docker", folder / "asked", folder / "input"
        self._asked.touch()
        self.tell()

    def tell(self, *digests: str, **fields: Any) -> None:
        image = {"Architecture": "amd64", "Size": 1, "Config": {"Env": [], "Entrypoint": None}} | fields
        self.path.write_text(
            f"""#!/bin/sh
case "$*" in
*RepoDigests*) echo '{json.dumps(digests)}' ;;
*inspect*) echo '{json.dumps(image)}' ;;
*) echo "$*" >> {self._asked} ;;
esac
case "$1" in login) cat > {self._input} ;; esac
"""
        )
        self.path.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines()

    @property
    def password(self) -> str:
        return self._input.read_text()


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path)


@pytest.fixture
def send(aws: Aws, command: Command, docker: Docker) -> Push:
    """`kennel push`."""

    def send(to: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        fields = {"DOCKER": str(docker.path)} | aws.env | env
        return command("cli", "push", "kennel:dev", "--to", to, *words, **fields)

    return send


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (f"{ECR}/team/kennel:1.2", (ECR, "team/kennel", "1.2")),
        ("127.0.0.1:5000/kennel:x", ("127.0.0.1:5000", "kennel", "x")),
        ("localhost/kennel:x", ("localhost", "kennel", "x")),
    ],
)
def test_an_address(address: str, expected: tuple[str, str, str]) -> None:
    to = push.target(address)
    assert (to.host, to.name, to.tag) == expected
    assert str(to) == address


@pytest.mark.parametrize("address", ["kennel", "team/kennel:1", f"{ECR}/Kennel:1", f"{ECR}/:1", f"{ECR}/k@sha256:0"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match="--to "):
        push.target(address)


def test_the_tag_is_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    if not commit:
        pytest.skip("this is no git checkout")
    tag = push.target("localhost/kennel").tag
    assert commit.startswith(tag.removesuffix("-dirty"))
    assert len(tag) >= 12


def test_outside_a_checkout_a_tag_is_asked_for(send: Push, aws: Aws, docker: Docker) -> None:
    done = send(f"{ECR}/kennel")
    assert done.returncode == 2
    assert done.stderr == "kennel push: this folder is no git checkout to name the tag by: write HOST/NAME:TAG\n"
    assert aws.requests == docker.asked == []


def test_an_absent_repository_is_made_with_tags_that_stay_and_scans(send: Push, aws: Aws, docker: Docker) -> None:
    docker.tell(f"{ECR}/kennel@sha256:0", f"{ECR}/team/kennel@{DIGEST}")
    done = send(f"{ECR}/team/kennel:1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{ECR}/team/kennel@{DIGEST}\n"
    assert done.stderr == "created the repository team/kennel\n"
    made = aws.client("ecr").describe_repositories(repositoryNames=["team/kennel"])["repositories"][0]
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}
    text = aws.client("ecr").get_lifecycle_policy(repositoryName="team/kennel")["lifecyclePolicyText"]
    rules = json.loads(text)["rules"]
    assert [rule["selection"] for rule in rules] == [
        {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 10}
    ]
    assert docker.asked == [
        f"login --username AWS --password-stdin {ECR}",
        f"tag kennel:dev {ECR}/team/kennel:1",
        f"push {ECR}/team/kennel:1",
    ]
    assert docker.password
    assert docker.password not in done.stdout + done.stderr


def test_an_existing_repository_whose_tags_move_stays_so_with_a_note(send: Push, aws: Aws, docker: Docker) -> None:
    docker.tell(f"{ECR}/kennel@{DIGEST}")
    done = send(f"{ECR}/kennel:dev")
    assert done.stdout == f"{ECR}/kennel@{DIGEST}\n"
    assert done.stderr.startswith("tags in kennel can be moved to other images: name this one by its digest")
    assert {one.operation for one in aws.requests} == {"GetAuthorizationToken", "DescribeRepositories"}


def immutable(aws: Aws) -> str:
    """The digest of an image `fixed:1` whose tag can't be moved."""
    client = aws.client("ecr")
    client.create_repository(repositoryName="fixed", imageTagMutability="IMMUTABLE")
    put = client.put_image(repositoryName="fixed", imageTag="1", imageManifest=json.dumps(MANIFEST))
    return str(put["image"]["imageId"]["imageDigest"])


def test_a_taken_tag_that_cannot_be_moved_is_one_sentence(send: Push, aws: Aws, docker: Docker) -> None:
    immutable(aws)
    done = send(f"{ECR}/fixed:1")
    assert done.returncode == 2
    assert done.stderr == (
        f"kennel push: {ECR}/fixed:1 exists already and its tag can't be moved to another image: commit what has "
        f"changed, or write another tag, --to {ECR}/fixed:TAG\n"
    )
    assert docker.asked == []
    assert send(f"{ECR}/fixed:2").returncode == 0
    assert docker.asked[-1] == f"push {ECR}/fixed:2"


@pytest.mark.parametrize("of_the_manifest", [False, True])
def test_what_was_pushed_already_is_not_pushed_again(
    send: Push, aws: Aws, docker: Docker, of_the_manifest: bool
) -> None:
    digest = immutable(aws)
    docker.tell(Id=digest if of_the_manifest else CONFIGURATION)  # an engine that keeps images in containerd, or not
    done = send(f"{ECR}/fixed:1")
    assert (done.returncode, done.stdout) == (0, f"{ECR}/fixed@{digest}\n")
    assert done.stderr == f"{ECR}/fixed:1 is there already\n"
    assert docker.asked == []


def test_a_dry_run_shows_all_and_sends_nothing(send: Push, aws: Aws, docker: Docker) -> None:
    done = send(f"{ECR}/new:1", "--dry-run")
    assert done.returncode == 0, done.stderr
    shown, end = [], 0
    while done.stdout[end:].startswith("{"):
        one, length = json.JSONDecoder().raw_decode(done.stdout[end:])
        shown.append(one)
        end += length + 1
    assert [one["operation"] for one in shown] == ["CreateRepository", "PutLifecyclePolicy"]
    assert shown[0]["request"]["imageTagMutability"] == "IMMUTABLE"
    assert done.stdout[end:] == f"docker tag kennel:dev {ECR}/new:1\ndocker push {ECR}/new:1\n"
    assert docker.asked == []
    assert {one.operation for one in aws.requests} == {"GetAuthorizationToken", "DescribeRepositories"}


def test_a_list_of_manifests_stays_here(send: Push, aws: Aws, docker: Docker) -> None:
    docker.tell(Descriptor={"mediaType": "application/vnd.oci.image.index.v1+json"})
    done = send(f"{ECR}/kennel:1")
    assert done.returncode == 2
    assert "docker build --provenance=false" in done.stderr
    assert aws.requests == []
    assert send("localhost:5000/kennel:1").returncode == 0  # another registry's users may want it


def test_an_arm_image_is_sent_with_a_note(send: Push, docker: Docker) -> None:
    docker.tell(Architecture="arm64")
    assert "the image is built for arm64" in send("localhost:5000/kennel:1").stderr


def test_another_host_may_stand_for_ecr(send: Push, docker: Docker) -> None:
    docker.tell(f"localhost:5000/kennel@{DIGEST}")
    done = send(f"{ECR}/kennel:1", "--through", "localhost:5000")
    assert done.stdout == f"{ECR}/kennel@{DIGEST}\n"
    assert docker.asked == [
        "login --username AWS --password-stdin localhost:5000",
        "tag kennel:dev localhost:5000/kennel:1",
        "push localhost:5000/kennel:1",
    ]


def test_a_registry_that_is_not_ecr_is_pushed_to_without_aws(send: Push, aws: Aws, docker: Docker) -> None:
    docker.tell(f"localhost:5000/kennel@{DIGEST}")
    assert send("localhost:5000/kennel:1").stdout == f"localhost:5000/kennel@{DIGEST}\n"
    assert docker.asked == ["tag kennel:dev localhost:5000/kennel:1", "push localhost:5000/kennel:1"]
    assert aws.requests == []


def test_no_docker(send: Push, aws: Aws) -> None:
    done = send(f"{ECR}/kennel:1", DOCKER="/no/such/docker")
    assert done.returncode == 2
    assert done.stderr.startswith("kennel push: /no/such/docker cannot be started")
    assert aws.requests == []


def test_refused_by_aws(send: Push, docker: Docker) -> None:
    done = send(f"{ECR}/kennel:1", AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.startswith("kennel push: ECR in eu-west-1: AWS cannot be asked (Could not connect")
    assert done.stderr.count("\n") == 1
    assert docker.asked == []


def test_without_credentials(send: Push, aws: Aws, docker: Docker) -> None:
    done = send(f"{ECR}/kennel:1", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert done.returncode == 2
    assert "no AWS credentials were found" in done.stderr
    assert aws.requests == []
    assert docker.asked == []
