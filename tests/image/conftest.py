"""The built image under a real docker engine: photos, /opt/ml as the platform prepares it, jobs and endpoints.

Skipped where no engine answers or the image is not there. DOCKER names the client, IMAGE the image.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DOCKER = os.environ.get("DOCKER", "docker")
IMAGE = os.environ.get("IMAGE", "kennel:dev")
LABEL = "kennel-test"
OWNER = 1234  # of every mounted folder: the caller, and not root
HYPERPARAMETERS = {
    "backbone": "test_resnet",
    "pretrained": "false",
    "epochs": "2",
    "batch_size": "8",
    "image_size": "64",
}
PATIENCE = 120  # seconds before a test calls a container hung
_PAINT = """
import sys
import numpy as np
from PIL import Image
from pathlib import Path
rng = np.random.default_rng(0)
for label, channel in (("red", 0), ("green", 1), ("blue", 2)):
    folder = Path("/photos") / label
    folder.mkdir()
    for number in range(10):
        photo = rng.integers(0, 90, (96, 128, 3), dtype=np.uint8)
        photo[:, :, channel] += 160
        Image.fromarray(photo).save(folder / f"{number}.jpg", quality=90)
"""

Docker = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Endpoint:
    container: str
    url: str

    def invoke(self, body: bytes, content_type: str = "image/jpeg") -> tuple[int, Any]:
        """The status and the parsed answer of one POST to /invocations."""
        request = urllib.request.Request(
            f"{self.url}/invocations", data=body, headers={"Content-Type": content_type}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


def answers(port: int) -> bool:
    """Whether something listens there, on loopback."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def docker() -> Docker:
    """The docker client as a function; every `run` is labelled, so that nothing is left behind."""

    def call(*arguments: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        command = [DOCKER, *arguments]
        if arguments[0] == "run":
            command[2:2] = ["--label", LABEL]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return call


@pytest.fixture(scope="session")
def engine(docker: Docker) -> Docker:
    """The docker client, where an engine answers it."""
    if shutil.which(DOCKER) is None or docker("info").returncode != 0:
        pytest.skip(f"no docker engine answers {DOCKER!r}")
    return docker


@pytest.fixture(scope="session")
def image(engine: Docker) -> Iterator[str]:
    if engine("image", "inspect", IMAGE).returncode != 0:
        pytest.skip(f"there is no image {IMAGE!r}: make build")
    yield IMAGE
    left = engine("ps", "-aq", "--filter", f"label={LABEL}").stdout.split()
    if left:
        engine("rm", "-f", *left)


@pytest.fixture
def no_remains(docker: Callable, image: str) -> Iterator[None]:
    """Removes the containers and networks that the SDK leaves, and fails where some outlive that."""
    listings = {"rm": ("ps", "-aq"), "network rm": ("network", "ls", "-q")}
    before = {kind: set(docker(*listing).stdout.split()) for kind, listing in listings.items()}
    yield
    for kind, listing in listings.items():
        new = set(docker(*listing).stdout.split()) - before[kind]
        if new:
            docker(*kind.split(), *(["-f"] if kind == "rm" else []), *new)
        assert set(docker(*listing).stdout.split()) <= before[kind]


@pytest.fixture(scope="session")
def photos(docker: Docker, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<class>/*.jpg, told apart by colour; painted inside the image, which has Pillow."""
    folder = tmp_path_factory.mktemp("photos")
    painted = docker("run", "--rm", "-v", f"{folder}:/photos", image, "python3", "-c", _PAINT)
    assert painted.returncode == 0, painted.stderr
    return folder


@pytest.fixture
def hyperparameters() -> dict[str, str]:
    """Of a job that takes a few seconds."""
    return dict(HYPERPARAMETERS)


@pytest.fixture(scope="session")
def prepare(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A scratch /opt/ml with these hyperparameters beside the usual ones and `photos` as channel train."""

    def made(owner: int = OWNER, **hyperparameters: str) -> Path:
        base = tmp_path_factory.mktemp("ml")
        config = base / "input" / "config"
        config.mkdir(parents=True)
        (config / "hyperparameters.json").write_text(json.dumps({**HYPERPARAMETERS, **hyperparameters}))
        (config / "inputdataconfig.json").write_text(json.dumps({"train": {"TrainingInputMode": "File"}}))
        (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
        shutil.copytree(photos, base / "input" / "data" / "train")
        for folder in ("model", "output/data", "checkpoints"):
            (base / folder).mkdir(parents=True)
        if os.geteuid() == 0:
            for path in (base, *base.rglob("*")):
                os.chown(path, owner, owner)
        return base

    return made


@pytest.fixture(scope="session")
def train(docker: Docker, image: str) -> Docker:
    """`IMAGE train` on a scratch /opt/ml without any network: `train(base, *options)`."""

    def run(base: Path, *options: str) -> subprocess.CompletedProcess[str]:
        mount = ["--network", "none", "--hostname", "algo-1", "-v", f"{base}:/opt/ml"]
        return docker("run", *mount, *options, image, "train")

    return run


@pytest.fixture(scope="session")
def strangers() -> Callable[[Path], list[str]]:
    """What below a scratch /opt/ml does not belong to its owner."""

    def found(base: Path) -> list[str]:
        owner = base.stat().st_uid
        return [str(path.relative_to(base)) for path in base.rglob("*") if path.lstat().st_uid != owner]

    return found


@pytest.fixture(scope="session")
def model(prepare: Callable[..., Path], train: Docker) -> Path:
    """A trained model folder."""
    base = prepare(epochs="30", learning_rate="0.03")
    ended = train(base)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return base / "model"


@pytest.fixture(scope="session")
def serve(docker: Docker, image: str) -> Callable[..., AbstractContextManager[Endpoint]]:
    """`IMAGE serve`, or another's, with a model folder mounted read-only, once /ping is content; removed at the end."""

    @contextlib.contextmanager
    def serving(model: Path, *options: str, image: str = image) -> Iterator[Endpoint]:
        port = ["-p", "127.0.0.1::8080", "-v", f"{model}:/opt/ml/model:ro"]
        started = docker("run", "-d", *port, *options, image, "serve")
        assert started.returncode == 0, started.stderr
        container = started.stdout.strip()
        try:
            endpoint = Endpoint(container, "http://" + docker("port", container, "8080").stdout.split()[0])
            _wait_for_ping(docker, endpoint)
            yield endpoint
        finally:
            docker("rm", "-f", container)

    return serving


def _wait_for_ping(docker: Docker, endpoint: Endpoint) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{endpoint.url}/ping", timeout=5):
            return
        if docker("inspect", "-f", "{{.State.Running}}", endpoint.container).stdout.strip() != "true":
            break
        time.sleep(0.2)
    pytest.fail("the endpoint never became healthy:\n" + docker("logs", endpoint.container).stdout)
