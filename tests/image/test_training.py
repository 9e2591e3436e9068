"""Training jobs in the image as SageMaker runs them: model, exit code, failure file, and whose files they are."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE = 120


def failure(base: Path) -> str:
    """The first line of the failure file, which is what SageMaker's users see."""
    return (base / "output/failure").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("owner", "options"),
    [(1234, []), (1000, ["--user", "1000:1000", "--read-only", "--tmpfs", "/tmp"])],
    ids=["root", "unprivileged-read-only"],
)
def test_a_job_leaves_a_model_that_belongs_to_the_caller(
    prepare: Callable, train: Callable, strangers: Callable, owner: int, options: list[str]
) -> None:
    base = prepare(owner)
    ended = train(base, "--rm", "-e", "KENNEL_CUDA_COMPAT=off", *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "off: KENNEL_CUDA_COMPAT says so" in ended.stdout
    assert "validation:accuracy=" in ended.stdout
    manifest = json.loads((base / "model/manifest.json").read_text())
    assert manifest["class_names"] == ["blue", "green", "red"]
    assert {"model.onnx", "model.safetensors"} <= set(manifest["files"])
    assert not (base / "output/failure").exists()
    assert strangers(base) == []


def test_tensors_that_a_job_saves_are_judged_by_the_same_image(
    docker: Callable, image: str, prepare: Callable, train: Callable, strangers: Callable
) -> None:
    base = prepare(1234)
    hook = {"LocalPath": "/opt/ml/output/tensors", "HookParameters": {"save_interval": "1"}}
    config = base / "input/config/debughookconfig.json"
    config.write_text(json.dumps(hook))
    os.chown(config, 1234, 1234)
    ended = train(base, "--rm")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert strangers(base) == []
    report = json.loads((base / "output/data/report.json").read_text())
    assert report["debug"]["tensors"] == "output/tensors"
    command = ("python3", "-m", "kennel_train.debug.smdebug", "/in")
    judged = docker(
        "run", "--rm", "-v", f"{base}/output/tensors:/in:ro", image, *command, "--rules", "exploding_tensor"
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr
    named = docker("run", "--rm", image, *command)
    assert (named.returncode, "/in" in named.stdout + named.stderr) == (2, True)


def _empty_channel(base: Path) -> None:
    shutil.rmtree(base / "input/data/train")
    (base / "input/data/train").mkdir()


def _strange_class(base: Path) -> None:
    shutil.copytree(base / "input/data/train/red", base / "input/data/validation/purple")


def _corrupt(base: Path) -> None:
    for photo in (base / "input/data/train").rglob("*.jpg"):
        photo.write_bytes(b"\xff\xd8 no photo")


def _hook(base: Path, text: str) -> None:
    code = base / "code"
    code.mkdir()
    (code / "hooks.py").write_text(text)
    _set(base, sagemaker_program='"hooks.py"', sagemaker_submit_directory='"/opt/ml/code"')


def _set(base: Path, **hyperparameters: str) -> None:
    path = base / "input/config/hyperparameters.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **hyperparameters}))


FAILURES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "bad-hyperparameter": (lambda base: _set(base, batch_size="many"), ["batch_size='many'", "write a whole number"]),
    "empty-channel": (_empty_channel, ["'train' has no photos", "expected train/<class>/"]),
    "no-weights": (lambda base: _set(base, backbone="resnet50", pretrained="true"), ["resnet50", "pretrained"]),
    "strange-class": (_strange_class, ["'purple'", "add photos of it to train"]),
    "corrupt-photos": (_corrupt, ["photo"]),
    "exit-in-a-hook": (
        lambda base: _hook(base, "import sys\ndef on_epoch_end(epoch, metrics):\n    sys.exit(0)\n"),
        ["sys.exit(0)", "hooks.py:3", "remove the call"],
    ),
    "hook-that-raises": (
        lambda base: _hook(base, "def on_epoch_end(epoch, metrics):\n    raise ValueError('my own words')\n"),
        ["ValueError", "my own words", "hooks.py:2"],
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_job_says_what_to_fix(prepare: Callable, train: Callable, strangers: Callable, name: str) -> None:
    spoil, said = FAILURES[name]
    base = prepare()
    spoil(base)
    if os.geteuid() == 0:
        for path in base.rglob("*"):
            os.chown(path, base.stat().st_uid, base.stat().st_gid)
    ended = train(base, "--rm")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    first_line = failure(base)
    assert all(words in first_line for words in said), first_line
    assert len(first_line) <= 1024
    assert not (base / "model/manifest.json").exists()
    assert strangers(base) == []


@pytest.fixture
def running(docker: Callable, prepare: Callable, train: Callable) -> Iterator[tuple[str, Path]]:
    """The container and /opt/ml of a job that would take hours, after its second epoch."""
    base = prepare(epochs="10000", weight_decay="0.001")
    container = train(base, "-d").stdout.strip()
    deadline = time.monotonic() + PATIENCE
    while "epoch=2 " not in (log := docker("logs", container).stdout):
        alive = docker("inspect", "-f", "{{.State.Running}}", container).stdout.strip() == "true"
        assert alive, log
        assert time.monotonic() < deadline, log
        time.sleep(0.2)
    yield container, base
    docker("rm", "-f", container)


def ended_with(docker: Callable, container: str) -> int:
    return int(docker("wait", container).stdout)


def test_a_stopped_job_keeps_its_best_epoch(docker: Callable, strangers: Callable, running: tuple[str, Path]) -> None:
    container, base = running
    docker("stop", "--time", "120", container, timeout=150)
    assert ended_with(docker, container) == 0, docker("logs", container).stdout
    assert json.loads((base / "model/manifest.json").read_text())["class_names"] == ["blue", "green", "red"]
    assert not (base / "output/failure").exists()
    assert strangers(base) == []


def test_a_killed_job_leaves_the_likely_cause(docker: Callable, strangers: Callable, running: tuple[str, Path]) -> None:
    container, base = running
    docker("exec", container, "bash", "-c", "kill -9 $(cat /proc/1/task/1/children)")
    assert ended_with(docker, container) == 137
    first_line = failure(base)
    assert all(words in first_line for words in ("SIGKILL", "out of memory", "batch_size", "instance")), first_line
    assert not (base / "model/manifest.json").exists()
    assert strangers(base) == []


def test_a_job_without_enough_memory_leaves_the_likely_cause(
    docker: Callable, prepare: Callable, train: Callable, strangers: Callable
) -> None:
    if docker("info", "-f", "{{.MemoryLimit}}").stdout.strip() != "true":
        pytest.skip("this engine cannot limit memory")
    base = prepare()
    ended = train(base, "--rm", "--memory", "150m")
    assert ended.returncode == 137, ended.stdout + ended.stderr
    assert "out of memory" in failure(base)
    assert strangers(base) == []
