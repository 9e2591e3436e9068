"""`kennel tune --local` around the real `train`: what it shows, what it leaves, and that it goes on where it was."""

import json
import signal
import subprocess
import sys

import pytest

from kennel import artifact

pytestmark = pytest.mark.slow
TINY = "backbone=test_resnet pretrained=false image_size=64 int8=false strategy=finetune"


@pytest.fixture
def tune(job, tmp_path):
    """Starts the command on 24 photos with more hyperparameters and flags."""
    job.photos("train", {"red": 12, "green": 12})

    def start(hyperparameters: str, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kennel_launch.cli", "tune", "--local", "--data", str(job.data / "train")]
        words = ["--out", str(tmp_path / "out"), "--hyperparameters", f"{TINY} {hyperparameters}", *flags]
        return subprocess.Popen(
            [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
        )

    return start


def test_a_search_is_shown_trial_by_trial_and_leaves_settings_report_and_model(tune, tmp_path):
    flags = ("--trials", "3", "--search-space", "learning_rate=0.001..0.05")
    with tune("epochs=2 batch_size=8", *flags) as process:
        said = process.stdout.read()
    assert process.returncode == 0, said
    out = tmp_path / "out" / "output" / "data"
    found = json.loads((out / "trials.json").read_text())
    for row in found["trials"]:
        assert f"trial {row['number']}: " in said
    assert f"settings: {out / 'best-hyperparameters.json'}" in said
    assert f"report: {out / 'report.html'}" in said
    best = found["trials"][found["best"]]["hyperparameters"]["learning_rate"]
    assert artifact.read_manifest(tmp_path / "out" / "model").hyperparameters["learning_rate"] == best
    assert f"learning_rate={best}" in said.splitlines()[-1]


def test_a_search_that_is_interrupted_goes_on_with_the_same_command(tune, tmp_path):
    flags = ("--trials", "4", "--search-space", "learning_rate=0.001..0.05")
    with tune("epochs=12 batch_size=4", *flags) as process:
        for line in process.stdout:
            if line.startswith("trial 0: "):
                process.send_signal(signal.SIGINT)
                break
        said = process.stdout.read()
    assert process.returncode == 130, said
    assert "kennel tune: stopped; the same command goes on with what is known" in said
    assert (tmp_path / "out" / "model" / "manifest.json").exists(), "it ends with the best so far"
    with tune("epochs=12 batch_size=4", *flags) as process:
        said = process.stdout.read()
    assert process.returncode == 0, said
    log = (tmp_path / "out" / "train.log").read_text()
    assert "resumed a search: " in log
    assert "trial=0 epoch=1 " not in log
    assert len(json.loads((tmp_path / "out" / "output" / "data" / "trials.json").read_text())["trials"]) == 4
