"""`kennel push` to a real registry on loopback, Debian's docker-registry: by its own address, and in ECR's place."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..emulated_aws.client import Aws, server
from ..launch.front import Front, before

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SERVER = shutil.which("docker-registry")
PATIENCE = 30


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Its address; an empty registry that lives for one test."""
    if SERVER is None:
        pytest.skip("there is no docker-registry: apt-get install docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/store}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([SERVER, "serve", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not _answers(address):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield address
        server.terminate()
        server.wait(PATIENCE)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def build(engine: Callable, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Images of one file, built as ours is: the registry cares for their form, not their size."""
    names: list[str] = []

    def built(text: str) -> str:
        context = tmp_path / f"context{len(names)}"
        context.mkdir()
        (context / "file").write_text(text)
        (context / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
        names.append(f"kennel-test-push-{len(names)}:{os.getpid()}")
        made = engine("build", "-t", names[-1], str(context))
        assert made.returncode == 0, made.stderr
        return names[-1]

    yield built
    for name in names:  # by its ID, under all the names that it was pushed as
        engine("rmi", "-f", engine("image", "inspect", "--format", "{{.Id}}", name).stdout.strip())


@pytest.fixture
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """An emulated AWS account, by the words that its commands are run with: `kennel ...` in the account's home."""
    pytest.importorskip("moto", reason="moto is not installed: requirements/emulated.txt")
    home = tmp_path_factory.mktemp("home")
    with server(home / "server.log") as url:
        account = Aws(url, home)
        account.reset()
        with before(account, kennel) as front:
            yield front
        account.close()


def kennel(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kennel_launch.cli", *words]
    return subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)


def commit(folder: Path) -> str:
    """One more commit of a checkout; its short name."""
    git = ("git", "-c", "user.name=someone", "-c", "user.email=someone@localhost", "-C", str(folder))
    for words in (("init",), ("commit", "--allow-empty", "-m", "another"), ("rev-parse", "--short=12", "HEAD")):
        done = subprocess.run([*git, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def arrived(registry: str, name: str, tag: str) -> tuple[str, bytes]:
    """(digest, manifest) of what the registry has under a tag."""
    request = urllib.request.Request(f"http://{registry}/v2/{name}/manifests/{tag}", headers={"Accept": MANIFEST})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.headers["Docker-Content-Digest"], answer.read()


def tell_ecr(front: Front, registry: str, name: str, tag: str) -> None:
    """ECR's API knows what its registry got; here the one is emulated and the other real."""
    digest, manifest = arrived(registry, name, tag)
    fields = {"repositoryName": name, "imageTag": tag, "imageDigest": digest, "imageManifest": manifest.decode()}
    front.aws.client("ecr").put_image(**fields)
    configuration = json.loads(manifest)["config"]["digest"]
    with urllib.request.urlopen(f"http://{registry}/v2/{name}/blobs/{configuration}", timeout=PATIENCE) as answer:
        front.blobs[configuration] = answer.read()


def test_an_image_arrives_under_its_digest_in_a_form_that_sagemaker_takes(
    registry: str, build: Callable[[str], str]
) -> None:
    pushed = kennel("push", build("a layer"), "--to", f"{registry}/team/kennel:v1")
    assert pushed.returncode == 0, pushed.stderr
    address = pushed.stdout.splitlines()[-1]
    assert re.fullmatch(rf"{registry}/team/kennel@sha256:[0-9a-f]{{64}}", address)
    digest, manifest = arrived(registry, "team/kennel", "v1")
    assert digest == address.partition("@")[2]
    # An index, which attestations make of an image, is what SageMaker rejects.
    assert json.loads(manifest)["mediaType"] == MANIFEST


def test_a_commit_s_image_goes_to_ecr_once_and_a_job_takes_the_address_that_is_printed(
    docker: Callable, registry: str, build: Callable[[str], str], front: Front, tmp_path: Path
) -> None:
    """ECR's API is emulated; the bytes go to a real registry that stands for ECR's own."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    tag, small = commit(checkout), build("a layer")

    def push(image: str) -> subprocess.CompletedProcess[str]:
        words = ("push", image, "--to", f"{ECR}/team/kennel", "--through", registry)
        return kennel(*words, cwd=checkout, **front.env)

    first = push(small)
    assert first.returncode == 0, first.stderr
    assert first.stderr == "created the repository team/kennel\n"
    digest, _ = arrived(registry, "team/kennel", tag)
    address = f"{ECR}/team/kennel@{digest}"
    assert first.stdout.splitlines()[-1] == address
    made = front.aws.client("ecr").describe_repositories(repositoryNames=["team/kennel"])["repositories"][0]
    assert (made["imageTagMutability"], made["imageScanningConfiguration"]) == ("IMMUTABLE", {"scanOnPush": True})

    tell_ecr(front, registry, "team/kennel", tag)
    docker("rmi", f"{registry}/team/kennel:{tag}")  # with it this machine forgets that the image was ever pushed
    again = push(small)
    assert (again.returncode, again.stdout) == (0, f"{address}\n")
    assert again.stderr == f"{ECR}/team/kennel:{tag} is there already\n"
    other = push(build("another layer"))
    assert other.returncode == 2
    assert other.stderr.startswith(f"kennel push: {ECR}/team/kennel:{tag} exists already and its tag can't be moved")
    assert other.stderr.count("\n") == 1
    assert arrived(registry, "team/kennel", tag)[0] == digest

    front.aws.client("s3").put_object(Bucket=front.aws.bucket, Key="photos/ant/0.jpg", Body=b"a photo")
    words = ("--data", f"s3://{front.aws.bucket}/photos", "--role", front.aws.role, "--bucket", front.aws.bucket)
    shown = kennel("train", "--dry-run", *words, "--image", address, cwd=checkout, **front.env)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["request"]["AlgorithmSpecification"]["TrainingImage"] == address
    assert "the image is not Kennel's" in shown.stderr  # its configuration was read
    tag = commit(checkout)
    assert push(small).stdout.splitlines()[-1] == address  # the next commit's: another tag of the same digest
    assert arrived(registry, "team/kennel", tag)[0] == digest


def test_a_registry_that_does_not_answer_is_an_error(build: Callable[[str], str]) -> None:
    pushed = kennel("push", build("a layer"), "--to", "127.0.0.1:9/kennel:v1")
    assert pushed.returncode == 2
    assert pushed.stderr.splitlines()[-1] == "kennel push: docker push failed, see above"
