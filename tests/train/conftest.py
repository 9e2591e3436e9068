"""A scratch /opt/ml with real photos, and the real `train` executable or the function that it calls."""

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# sagemaker_training reads this at import, and creates folders in the user's home without it.
os.environ["SAGEMAKER_BASE_DIR"] = tempfile.mkdtemp(prefix="kennel-test-")
atexit.register(shutil.rmtree, os.environ["SAGEMAKER_BASE_DIR"], ignore_errors=True)

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
TINY = {
    "backbone": "test_resnet",
    "pretrained": "false",
    "image_size": "64",
    "epochs": "2",
    "batch_size": "8",
    "int8": "false",
}


def photo(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (90, 70)) -> Path:
    """A noisy JPEG (or PNG, by its suffix) of one colour."""
    noise = np.random.default_rng(seed).normal(0, 30, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


@dataclass
class Job:
    """One scratch training job."""

    base: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.base / "input" / "data"

    def photos(self, channel: str, classes: Mapping[str, int] | None = None) -> None:
        """`count` photos for each class of a channel; a class is a colour's name, a number may stand before it."""
        for folder, count in (classes or {"red": 10, "green": 10}).items():
            colour = COLOURS[folder.split(".")[-1]]
            for i in range(count):
                photo(
                    self.data / channel / folder / f"{i}.jpg",
                    colour,
                    seed=zlib.crc32(f"{channel}/{folder}/{i}".encode()),
                )

    def paint(self, name: str, colour: str, seed: int) -> None:
        """One photo, at a path below the channels."""
        photo(self.data / name, COLOURS[colour], seed)

    def configure(self, **hyperparameters: str | None) -> None:
        """hyperparameters.json: `TINY`, but for what is given; None leaves one out."""
        config = self.base / "input" / "config"
        config.mkdir(parents=True, exist_ok=True)
        chosen = {name: value for name, value in {**TINY, **hyperparameters}.items() if value is not None}
        (config / "hyperparameters.json").write_text(json.dumps(chosen))
        (config / "resourceconfig.json").write_text('{"current_host": "algo-1", "hosts": ["algo-1"]}')
        (config / "inputdataconfig.json").write_text("{}")

    def start(self) -> subprocess.Popen[str]:
        """The real executable, as SageMaker starts it."""
        environ = os.environ | self.environ
        environ |= {"SAGEMAKER_BASE_DIR": str(self.base), "SAGEMAKER_TRAINING_MODULE": "kennel_train.job:main"}
        command = [str(Path(sys.executable).parent / "train")]
        return subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.base
        )

    def run(self) -> tuple[int, str]:
        """(exit code, log) of the real executable."""
        process = self.start()
        log, _ = process.communicate(timeout=300)
        return process.returncode, log

    def run_until(self, beginning: str) -> tuple[int, str, float]:
        """(exit code, log, seconds it took to end) of the real executable, sent SIGTERM at a line that begins so."""
        lines = []
        sent = float("nan")
        with self.start() as process:
            for line in process.stdout or ():
                lines.append(line)
                if line.startswith(beginning):
                    process.send_signal(signal.SIGTERM)
                    sent = time.monotonic()
                    break
            lines += process.stdout.readlines() if process.stdout else []
        return process.returncode, "".join(lines), time.monotonic() - sent

    def main(self) -> None:
        """The function that `train` calls, in this process: the same contract, without five seconds of imports."""
        from kennel_train import job
        from kennel_train.model import export

        with pytest.MonkeyPatch.context() as patch:
            for key, value in {**self.environ, "SAGEMAKER_BASE_DIR": str(self.base)}.items():
                patch.setenv(key, value)
            patch.setattr(export, "trace", functools.partial(_trace, export.trace))
            try:
                job.main()
            finally:
                urllib.request.install_opener(None)  # it would keep a proxy of this job's environment for good

    def fail(self) -> str:
        """The failure file of a job that must fail."""
        from kennel_train import job

        with pytest.raises(job.JobFailedError) as caught:
            self.main()
        assert str(caught.value) == self.failure
        assert not list((self.base / "model").glob("*")), "a failed job left a half-written model"
        return self.failure

    @property
    def failure(self) -> str:
        return (self.base / "output" / "failure").read_text()


@pytest.fixture(autouse=True)
def core() -> Iterator[None]:
    """With several tests at a time each trains on a core of its own: threads that wait for a core burn the others'."""
    before = os.sched_getaffinity(0)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker:
        os.sched_setaffinity(0, {sorted(before)[int(worker) % len(before)]})
    yield
    os.sched_setaffinity(0, before)


_TRACED: dict[tuple[str, int, int], Any] = {}  # (backbone, side, classes) -> the graph, with any weights


def _trace(trace: Callable[..., Any], classifier: Any, name: str) -> Any:
    """The real one, once for each network: it takes two thirds of a small job, and the weights come at its end."""
    from torch.onnx import ONNXProgram

    key = (name, classifier.image_size, classifier.head.out_features)
    if key not in _TRACED:
        _TRACED[key] = trace(classifier, name).model
    return ONNXProgram(_TRACED[key].clone(), None)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = Job(tmp_path / "ml")
    made.data.mkdir(parents=True)
    made.configure()
    return made
