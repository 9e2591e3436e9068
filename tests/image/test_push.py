"""`kennel push` to a real registry on loopback, Debian's docker-registry."""

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
def small(docker: Callable, image: str, tmp_path: Path) -> Iterator[str]:
    """An image of one file, built as ours is: the registry cares for its form, not its size."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "file").write_text("a layer")
    (tmp_path / "context" / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    name = f"kennel-test-push:{os.getpid()}"
    built = docker("build", "-t", name, str(tmp_path / "context"))
    assert built.returncode == 0, built.stderr
    yield name
    docker("rmi", "-f", name)


def push(image: str, to: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kennel_launch.cli", "push", image, "--to", to]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_image_arrives_under_its_digest_in_a_form_that_sagemaker_takes(
    docker: Callable, registry: str, small: str
) -> None:
    pushed = push(small, f"{registry}/team/kennel:v1")
    docker("rmi", f"{registry}/team/kennel:v1")
    assert pushed.returncode == 0, pushed.stderr
    address = pushed.stdout.splitlines()[-1]
    assert re.fullmatch(rf"{registry}/team/kennel@sha256:[0-9a-f]{{64}}", address)
    request = urllib.request.Request(
        f"http://{registry}/v2/team/kennel/manifests/v1",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.headers["Docker-Content-Digest"] == address.partition("@")[2]
        # An index, which attestations make of an image, is what SageMaker rejects.
        assert json.load(answer)["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_a_registry_that_does_not_answer_is_an_error(small: str) -> None:
    pushed = push(small, "127.0.0.1:9/kennel:v1")
    assert pushed.returncode == 2
    assert pushed.stderr.splitlines()[-1] == "kennel push: docker push failed, see above"
