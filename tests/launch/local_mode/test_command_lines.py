"""docker's command lines, and why a job failed."""

from pathlib import Path

import pytest

from kennel.layout import Layout
from kennel_launch.local_mode import command_lines
from kennel_launch.local_mode.command_lines import LocalTraining


def test_the_container_gets_the_mounts_that_sagemaker_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER", "/usr/bin/docker")
    layout = Layout(tmp_path / "ml")
    training = LocalTraining({"train": tmp_path / "my photos"}, {}, "kennel:dev", "all")
    run = command_lines.train_in_image(training, layout, "algo-1")
    mounts = [run.argv[i + 1] for i, word in enumerate(run.argv) if word == "-v"]
    assert mounts == [f"{tmp_path}/ml:/opt/ml", f"{tmp_path}/my photos:/opt/ml/input/data/train:ro"]
    assert run.argv[:4] == ["/usr/bin/docker", "run", "--rm", "--name"]
    assert run.argv[run.argv.index("--gpus") + 1] == "all"
    assert run.argv[-2:] == ["kennel:dev", "train"]
    served = command_lines.serve_in_image("kennel:dev", layout.model, 8181)
    assert f"{tmp_path}/ml/model:/opt/ml/model:ro" in served.argv
    assert "127.0.0.1:8181:8080" in served.argv
    assert "--gpus" not in served.argv


def test_why_a_job_failed_is_the_first_line_of_its_failure_file(tmp_path: Path) -> None:
    layout, log = Layout(tmp_path), tmp_path / "log"
    log.write_text("first\n\nlast words\n")
    assert "exit code 3" in command_lines.failure([layout], 3, log)
    assert "last words" in command_lines.failure([layout], 3, log)
    layout.failure.parent.mkdir()
    layout.failure.write_text("channel 'train' is empty\nTraceback ...\n")
    assert command_lines.failure([layout], 1, log) == f"training failed: channel 'train' is empty; see {log}"
