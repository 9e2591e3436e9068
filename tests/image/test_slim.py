"""The slim image, `make build-serve-cpu`, built here from this checkout: it serves what the full image trained."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SLIM = os.environ.get("SERVE_IMAGE", "kennel:serve-cpu")
BASE = os.environ.get("SERVE_BASE_IMAGE", "ubuntu:24.04")
REPOSITORY = Path(__file__).parents[2]
CLASSES = ("blue", "green", "red")
LARGEST = 600_000_000
ABSENT = ("torch", "torchvision", "timm", "scipy", "cv2", "matplotlib", "pandas", "onnx", "sagemaker_training")


@pytest.fixture(scope="session")
def slim(docker: Callable, image: str) -> str:
    """`image` is asked for because it trains the models, and answers `skip` where no engine does."""
    if docker("image", "inspect", BASE).returncode != 0:
        pytest.skip(f"the slim image's base {BASE!r} is not there: docker pull it, or set SERVE_BASE_IMAGE")
    command = [sys.executable, "-m", "kennel_launch.make.build", SLIM, "--target", "serve-cpu", "--base-image", BASE]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return SLIM


@pytest.fixture
def inspect(docker: Callable) -> Callable[[str], dict[str, Any]]:
    def inspected(image: str) -> dict[str, Any]:
        return json.loads(docker("image", "inspect", image).stdout)[0]

    return inspected


@pytest.mark.parametrize(
    "options",
    [[], ["--read-only", "--tmpfs", "/tmp", "--memory", "1g", "--cpus", "1", "--user", "1000:1000"]],
    ids=["root", "serverless"],
)
def test_it_answers_as_the_full_image_does(
    model: Path, serve: Callable, photos: Path, slim: str, options: list[str]
) -> None:
    bodies = [(photos / label / "0.jpg").read_bytes() for label in CLASSES]
    with serve(model) as endpoint:
        full = [endpoint.invoke(body) for body in [*bodies, b"no photo"]]
    with serve(model, *options, image=slim) as endpoint:
        answers = [endpoint.invoke(body) for body in [*bodies, b"no photo"]]
    assert answers == full
    assert [answer["predictions"][0]["label"] for _, answer in answers[:3]] == list(CLASSES)
    assert [status for status, _ in answers] == [200, 200, 200, 400]


def test_it_runs_a_users_code_and_pip_for_it(
    model: Path, serve: Callable, photos: Path, slim: str, tmp_path: Path
) -> None:
    code = shutil.copytree(model, tmp_path / "model") / "code"
    code.mkdir()
    (code / "inference.py").write_text("def output_fn(prediction, accept):\n    return '[\"mine\"]'\n")
    (code / "requirements.txt").write_text("numpy\n")  # which is there: no index is asked
    with serve(code.parent, "-e", "KENNEL_INSTALL_REQUIREMENTS=true", image=slim) as endpoint:
        assert endpoint.invoke((photos / "red" / "0.jpg").read_bytes()) == (200, ["mine"])


def test_it_is_small(slim: str, inspect: Callable) -> None:
    assert inspect(slim)["Size"] <= LARGEST


def test_it_holds_nothing_of_training(docker: Callable, slim: str) -> None:
    script = f"import importlib.util; print([name for name in {ABSENT} if importlib.util.find_spec(name)])"
    ended = docker("run", "--rm", "--network", "none", slim, "python3", "-c", script)
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr


def test_it_presents_itself_as_the_full_image_does(image: str, slim: str, inspect: Callable) -> None:
    full, mine = inspect(image)["Config"], inspect(slim)["Config"]
    assert mine["Labels"] == {name: said for name, said in full["Labels"].items() if name != "kennel.cuda"}
    for name in ("ExposedPorts", "Entrypoint", "User", "WorkingDir"):
        assert mine[name] == full[name], name
    assert {row for row in mine["Env"] if not row.startswith("PATH=")} <= set(full["Env"])


@pytest.mark.parametrize("mounted", [True, False])
def test_it_refuses_to_train(docker: Callable, slim: str, prepare: Callable[..., Path], mounted: bool) -> None:
    base = prepare()
    mount = ["-v", f"{base}:/opt/ml"] if mounted else []
    ended = docker("run", "--rm", "--network", "none", *mount, slim, "train")
    assert ended.returncode == 1
    assert ended.stderr == "kennel: this image only serves: train in the full image, which `make build` makes\n"
    assert (base / "output/failure").exists() is mounted


def test_it_refuses_to_serve_by_torch(docker: Callable, slim: str, model: Path) -> None:
    options = ["--network", "none", "-e", "KENNEL_ENGINE=torch", "-v", f"{model}:/opt/ml/model:ro"]
    ended = docker("run", "--rm", *options, slim, "serve")
    assert ended.returncode == 1
    assert "this image has no torch" in ended.stderr
