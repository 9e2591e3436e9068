"""Addresses, and ECR's part of a push against a stand-in for AWS (the only thing that is faked)."""

import base64
import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from kennel.errors import UserError
from kennel_launch import push

from .conftest import REPOSITORY, Command, serving

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
TOKEN = base64.b64encode(b"AWS:secret").decode()


class Aws(BaseHTTPRequestHandler):
    """ECR's three calls; `existing` holds the repositories, `denied` refuses them all."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012 # one server at a time
    existing: set[str] = set()  # noqa: RUF012
    denied = False

    def do_POST(self) -> None:
        name = self.headers["X-Amz-Target"].rpartition(".")[2]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Aws.calls.append((name, asked))
        if Aws.denied:
            self.answer(400, {"__type": "AccessDeniedException", "message": "not authorized"})
        elif name == "GetAuthorizationToken":
            self.answer(200, {"authorizationData": [{"authorizationToken": TOKEN, "proxyEndpoint": f"https://{ECR}"}]})
        elif name == "DescribeRepositories" and not Aws.existing.intersection(asked["repositoryNames"]):
            self.answer(400, {"__type": "RepositoryNotFoundException", "message": "none"})
        else:
            self.answer(200, {})

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def aws() -> Iterator[dict[str, str]]:
    """The environment of a caller with credentials, AWS's address being the stand-in's."""
    Aws.calls, Aws.existing, Aws.denied = [], set(), False
    with serving(Aws) as port:
        yield {
            "AWS_ENDPOINT_URL_ECR": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "something",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
        }


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
    with pytest.raises(UserError, match="TO="):
        push.target(address)


def test_the_tag_is_the_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    if not commit:
        pytest.skip("this is no git checkout")
    tag = push.target("localhost/kennel").tag
    assert commit.startswith(tag.removesuffix("-dirty"))
    assert len(tag) >= 12
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="write HOST/NAME:TAG"):
        push.target("localhost/kennel")


def test_an_absent_repository_is_created_and_the_password_returned(
    aws: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in aws.items():
        monkeypatch.setenv(key, value)
    assert push.open_repository("team/kennel", "123456789012", "eu-west-1") == ("AWS", "secret")
    assert [name for name, _ in Aws.calls] == ["GetAuthorizationToken", "DescribeRepositories", "CreateRepository"]
    assert Aws.calls[-1][1] == {
        "registryId": "123456789012",
        "repositoryName": "team/kennel",
        "imageScanningConfiguration": {"scanOnPush": True},
    }


def test_an_existing_repository_is_left_alone(aws: dict[str, str], command: Command) -> None:
    Aws.existing = {"kennel"}
    done = command("push", "kennel:dev", "--to", f"{ECR}/kennel:1", DOCKER="/no/such/docker", **aws)
    assert [name for name, _ in Aws.calls] == ["GetAuthorizationToken", "DescribeRepositories"]
    assert done.returncode == 1
    assert done.stderr.startswith("push: /no/such/docker cannot be started")
    assert "secret" not in done.stderr + done.stdout


def test_refused_by_aws(aws: dict[str, str], command: Command) -> None:
    Aws.denied = True
    done = command("push", "kennel:dev", "--to", f"{ECR}/kennel:1", DOCKER="/no/such/docker", **aws)
    assert done.returncode == 1
    assert "AccessDeniedException" in done.stderr
    assert "AWS credentials" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_credentials(aws: dict[str, str], command: Command, tmp_path: Path) -> None:
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path), "AWS_PROFILE": ""}
    nobody["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null"
    nobody = {key: value for key, value in {**aws, **nobody}.items() if key != "AWS_PROFILE"}
    done = command("push", "kennel:dev", "--to", f"{ECR}/kennel:1", DOCKER="/no/such/docker", **nobody)
    assert done.returncode == 1
    assert "credentials" in done.stderr
    assert Aws.calls == []
