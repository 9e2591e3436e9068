"""`kennel train|deploy|invoke|delete --local` without an image: the real `train` and `serve` of this environment."""

import json
import subprocess
import sys

import pytest

from kennel_launch.machine.http_probe import free_port

pytestmark = pytest.mark.slow
TINY = ("--backbone", "test_resnet", "--pretrained", "false", "--image-size", "64", "--int8", "false", "--epochs", "3")


def test_from_photos_to_an_answer_without_docker(job, tmp_path):
    job.photos("train", {"red": 12, "green": 12})

    def kennel(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kennel_launch.cli", words[0], "--local", *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)

    done = kennel("train", "--data", str(job.data / "train"), *TINY, "--env", "TRAINING_JOB_NAME=pets")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "build/local/model"
    assert "pets" in (tmp_path / "build/local/output/data/report.html").read_text()
    port = free_port()
    try:
        done = kennel("deploy", "--port", str(port))
        assert (done.returncode, done.stdout) == (0, f"http://127.0.0.1:{port}\n"), done.stderr
        done = kennel("invoke", str(next((job.data / "train" / "red").iterdir())), "--json", "--top-k", "1")
        assert json.loads(done.stdout)["predictions"][0]["label"] in ("red", "green")
    finally:
        done = kennel("delete")
    assert done.stdout == f"removed the endpoint on port {port}\n"
    assert [path.name for path in (tmp_path / "build/local/endpoint").iterdir()] == ["serve.log"]
    assert "no endpoint runs from build/local" in kennel("delete").stderr
