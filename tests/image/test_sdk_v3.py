"""SageMaker's SDK v3 starts the image: ModelTrainer's local mode, its own sm_train.sh and drivers, SIGTERM.

`model_trainer.py` is the user, in the environment that `make` makes for that SDK.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("PYTHON_SDK_V3", REPOSITORY / "build" / "venv-sdk-v3" / "bin" / "python"))
OPT_OUT = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
PATIENCE = 180

pytestmark = [
    pytest.mark.skipif(shutil.which("docker-compose") is None, reason="local mode needs docker-compose"),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"there is no {PYTHON}: make test-image makes it"),
]

HOOK = """
import neighbour

def on_epoch_end(epoch, metrics):
    print("hook:", epoch, neighbour.WORD, sorted(metrics)[0])
"""
SCRIPT = """
import os, signal, sys, time

def leave(*_):
    save("stopped")
    sys.exit(0)

def save(text):
    with open(os.environ["SM_MODEL_DIR"] + "/model.txt", "w") as file:
        file.write(text)

print("arguments:", *sys.argv[1:])
print("the driver's choice:", os.environ["KENNEL_CUDA_COMPAT_CHOICE"])
if "wait" in sys.argv:
    if "saves" in sys.argv:
        signal.signal(signal.SIGTERM, leave)
    print("ready", flush=True)
    time.sleep(100)
if "fails" in sys.argv:
    import torch
    torch.zeros(2) + torch.zeros(3)
save(os.environ.get("RANK", "alone"))
"""


@dataclass(frozen=True)
class Job:
    """One that ended, or still runs."""

    root: Path
    process: subprocess.Popen[str]

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def ended(self) -> tuple[int, str]:
        """(exit code, everything that was printed)."""
        printed, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, printed

    def failure(self) -> str:
        return (self.artifacts / "output" / "failure").read_text()


@pytest.fixture
def start(
    tmp_path: Path, image: str, photos: Path, hyperparameters: dict[str, str], no_remains: None
) -> Iterator[Callable[..., Job]]:
    """`start(source_code, hosts=1, torchrun=False, **hyperparameters)`; without any those of a short job."""
    started = []
    opt_out = tmp_path / "config.yaml"
    opt_out.write_text(json.dumps(OPT_OUT))
    environment = {**os.environ, "AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true"}
    environment |= {"SAGEMAKER_USER_CONFIG_OVERRIDE": str(opt_out), "HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)

    def job(source_code: dict[str, str] | None, hosts: int = 1, torchrun: bool = False, **own: str) -> Job:
        root = tmp_path / "root"
        root.mkdir()
        asked = {"image": image, "root": str(root), "train": str(photos), "hosts": hosts, "torchrun": torchrun}
        asked |= {"source_code": source_code, "hyperparameters": own or hyperparameters}
        process = subprocess.Popen(
            [PYTHON, Path(__file__).with_name("model_trainer.py")],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(json.dumps(asked))
        process.stdin = None
        return Job(root, process)

    yield job
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


@pytest.fixture
def source(tmp_path: Path) -> str:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, text in {"hook.py": HOOK, "neighbour.py": "WORD = 'nearby'", "script.py": SCRIPT}.items():
        (folder / name).write_text(text)
    (folder / "more.txt").write_text("numpy\n")
    return str(folder)


def stop(docker: Callable, job: Job, word: str) -> None:
    """`docker stop`, which sends SIGTERM to the container's first process, once it has printed a word."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and job.process.poll() is None:
        found = docker("ps", "-q", "--filter", "label=com.docker.compose.service=algo-1").stdout.split()
        if found and word in docker("logs", found[0]).stdout:
            docker("stop", "-t", "60", found[0])
            return
        time.sleep(0.3)
    pytest.fail(f"never printed {word!r}: {job.ended()}")


def test_without_source_code_the_image_knows_that_it_is_to_train(start: Callable) -> None:
    job = start(None)
    code, printed = job.ended()
    assert code == 0, printed
    assert (job.artifacts / "model" / "manifest.json").exists()


def test_a_hook_is_called_by_our_own_training_on_two_hosts(start: Callable, source: str) -> None:
    job = start({"source_dir": source, "entry_script": "hook.py", "requirements": "more.txt"}, hosts=2)
    code, printed = job.ended()
    assert code == 0, printed
    assert "Requirement already satisfied: numpy" in printed
    assert "hook: 1 nearby train:loss" in printed
    assert "weights of process 1 of 2" in printed
    assert (job.artifacts / "model" / "manifest.json").exists()


def test_command_train_stopped_leaves_a_model(
    docker: Callable, start: Callable, hyperparameters: dict[str, str]
) -> None:
    job = start({"command": "train"}, **{**hyperparameters, "epochs": "10000"})
    stop(docker, job, "epoch=2 ")
    code, printed = job.ended()
    assert "CUDA compatibility" in printed
    assert "stopping: SIGTERM came" in printed
    assert (code, (job.artifacts / "model" / "manifest.json").exists()) == (0, True), printed


@pytest.mark.parametrize(
    ("torchrun", "own", "code", "said"),
    [
        (True, {"rate": "0.1"}, 0, "0"),
        (False, {"mode": "fails"}, 1, "script.py failed: RuntimeError: The size of tensor a (2) must match"),
        (False, {"text": "it's"}, 1, "use no ' in hyperparameters"),
    ],
    ids=["torchrun", "fails", "quote"],
)
def test_a_script_runs_by_the_sdks_own_drivers(
    start: Callable, source: str, torchrun: bool, own: dict[str, str], code: int, said: str
) -> None:
    job = start({"source_dir": source, "entry_script": "script.py"}, torchrun=torchrun, **own)
    ended, printed = job.ended()
    assert ended == code, printed
    if code:
        assert said in job.failure().splitlines()[0]
    else:
        assert "arguments: --rate 0.1\n" in printed
        assert "the driver's choice: off: this host has no NVIDIA driver" in printed
        assert (job.artifacts / "model" / "model.txt").read_text() == said


@pytest.mark.parametrize("saves", [True, False])
def test_sigterm_reaches_a_script_behind_bash_and_driver(
    docker: Callable, start: Callable, source: str, saves: bool
) -> None:
    own = {"first": "wait", "second": "saves" if saves else "dies"}
    job = start({"source_dir": source, "entry_script": "script.py"}, **own)
    stop(docker, job, "ready")
    code, printed = job.ended()
    if saves:
        assert code == 0, printed
        assert (job.artifacts / "model" / "model.txt").read_text() == "stopped"
    else:
        assert code == 1, printed
        assert job.failure().startswith("script.py was stopped by SIGTERM, which it did not handle: catch the signal")
