"""Whole jobs on a GPU: each strategy, a search, a kill and the restart after it, SIGTERM."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
JOB = {
    "backbone": "resnet18",
    "pretrained": "false",
    "image_size": "96",
    "batch_size": "16",
    "checkpoint_minutes": "0.01",
}


class Job:
    """A scratch /opt/ml with photos of three colours, and the function that SageMaker's toolkit calls."""

    def __init__(self, base: Path, **hyperparameters: str) -> None:
        self.base = base
        rng = np.random.default_rng(0)
        for channel, count in (("train", 24), ("validation", 8)):
            for name, colour in COLOURS.items():
                folder = base / "input" / "data" / channel / name
                folder.mkdir(parents=True)
                for at in range(count):
                    noisy = np.array(colour) + rng.normal(0, 40, (120, 140, 3))
                    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{at}.jpg")
        (base / "input" / "config").mkdir()
        for folder in ("model", "output/data", "checkpoints"):
            (base / folder).mkdir(parents=True)
        (base / "input" / "config" / "hyperparameters.json").write_text(json.dumps({**JOB, **hyperparameters}))

    def start(self) -> subprocess.Popen[bytes]:
        main = "from kennel_train.job import main; main()"
        environ = {**os.environ, "SAGEMAKER_BASE_DIR": str(self.base)}
        with (self.base / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-c", main], env=environ, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return (self.base / "log").read_text()

    def run(self) -> "Job":
        assert self.start().wait(300) == 0, self.log
        return self

    def stopped(self, line: str, number: int) -> int:
        """Starts it, sends a signal once the log has a line, and returns the exit code."""
        process = self.start()
        until = time.monotonic() + 240
        while line not in self.log:
            assert process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.05)
        process.send_signal(number)
        return process.wait(120)

    @property
    def accuracy(self) -> float:
        return float(json.loads((self.base / "model" / "manifest.json").read_text())["metrics"]["validation:accuracy"])


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"strategy": "probe", "solver": "sgd"},
        {"strategy": "probe", "solver": "lbfgs"},
        {"strategy": "probe", "trials": "4"},
        {"strategy": "probe-then-finetune", "probe_epochs": "2", "epochs": "2", "profile_steps": "2-3"},
        {"strategy": "finetune", "epochs": "3", "optimizer": "adamw", "ema_decay": "0.9", "trivial_augment": "true"},
    ],
    ids=["sgd", "lbfgs", "search", "both", "finetune"],
)
def test_a_job_on_the_gpu_learns_and_exports(tmp_path, gpu, hyperparameters):
    job = Job(tmp_path, **hyperparameters).run()
    assert f"device: {gpu}" in job.log
    assert job.accuracy > 0.6, "three colours; chance is 0.33"
    assert (tmp_path / "model" / "model.onnx").exists()


def test_a_killed_fine_tune_goes_on_where_it_was(tmp_path):
    job = Job(tmp_path, strategy="finetune", epochs="4")
    assert job.stopped("epoch=1 ", signal.SIGKILL) == -signal.SIGKILL
    before = job.log.count("epoch=1 ")
    job.run()
    assert job.log.count("epoch=1 ") == before, "the first epoch is not trained again"
    assert job.accuracy > 0.6


def test_sigterm_ends_with_a_model(tmp_path):
    job = Job(tmp_path, strategy="finetune", epochs="4000")
    assert job.stopped("epoch=2 ", signal.SIGTERM) == 0, job.log
    assert (tmp_path / "model" / "manifest.json").exists()
