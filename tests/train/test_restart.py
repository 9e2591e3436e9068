"""Jobs that are stopped, killed, restarted: through the real executable, nothing lost and nothing torn.

KENNEL_KILLS says how often a job is killed; `make soak` does it ten times.
"""

import os
import random
import signal
import subprocess
import time

import pytest

from kennel import artifact

KILLS = int(os.environ.get("KENNEL_KILLS", "3"))
SETTINGS = {
    "strategy": "probe-then-finetune",
    "epochs": "6",
    "probe_epochs": "4",
    "ema_decay": "0.5",
    "trivial_augment": "true",
    "learning_rate": "0.02",
    "checkpoint_minutes": "0.01",
    "int8": "false",
}


def weights(job) -> bytes:
    manifest = artifact.read_manifest(job.base / "model")
    assert manifest.hyperparameters["strategy"] == "probe-then-finetune"
    return (job.base / "model" / "model.safetensors").read_bytes()


def copy_of(job, folder):
    """The same job elsewhere."""
    import shutil

    shutil.copytree(job.base, folder)
    return type(job)(folder)


def killed_after(job, beginning, seconds) -> tuple[str, int]:
    """(log, exit code) of a job that is killed so long after a line that begins so, or that ended without one."""
    with job.start() as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(beginning):
                time.sleep(seconds)
                process.kill()
                break
        return "".join([*lines, *process.stdout]), process.wait()


@pytest.mark.slow
def test_a_job_killed_at_random_moments_ends_with_the_weights_of_one_that_never_was(job, tmp_path):
    job.photos("train", {"red": 24, "green": 24})
    job.configure(**SETTINGS)
    killed = copy_of(job, tmp_path / "killed")
    code, log = job.run()
    assert code == 0, log

    moments = random.Random(KILLS)
    epochs = [line.split()[0] for line in log.splitlines() if line.startswith("epoch=")]
    resumed = 0
    for kill in range(KILLS):  # at first behind a checkpoint, so that one is taken up for certain
        line = moments.choice(["backbone:", *epochs, "model:"] if kill else epochs[1:])
        log, code = killed_after(killed, line, moments.uniform(0, 1))
        resumed += "resumed from a checkpoint" in log
        assert code in (0, -signal.SIGKILL), log
    code, log = killed.run()
    assert code == 0, log
    assert resumed + ("resumed from a checkpoint" in log) > 0
    assert weights(killed) == weights(job)
    assert not list(killed.base.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.25, 0.6])
def test_sigterm_at_any_moment_leaves_a_model_and_a_start_goes_on(job, tmp_path, share):
    job.photos("train", {"red": 24, "green": 24})
    job.configure(**{**SETTINGS, "epochs": "400"})
    code, log, seconds = job.run_until("epoch=2 " if share < 0.5 else "epoch=9 ")
    assert code == 0, log
    assert weights(job)
    assert list((job.base / "checkpoints").glob("checkpoint-*.pt"))
    assert seconds < 60
    with job.start() as again:
        for line in again.stdout:
            if line.startswith("resumed from a checkpoint"):
                break
        again.kill()
    assert "probe" in line if share < 0.5 else "finetune" in line


@pytest.mark.slow
def test_sigterm_before_the_first_epoch_leaves_a_model_too(job):
    job.photos("train", {"red": 24, "green": 24})
    job.configure(**{**SETTINGS, "epochs": "400", "probe_epochs": "400"})
    code, log, _ = job.run_until("backbone: ")
    assert code == 0, log
    assert set(artifact.read_manifest(job.base / "model").class_names) == {"red", "green"}


@pytest.mark.slow
def test_a_disk_that_is_full_fails_the_job(job):
    folder = job.base / "checkpoints"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("a full disk needs the right to mount one")
    try:
        job.photos("train")
        job.configure(strategy="finetune", epochs="1")
        assert job.fail().startswith("the disk is full (")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_checkpoints_of_other_settings_fail_the_job(job):
    job.photos("train")
    job.configure(epochs="1", int8="false")
    job.main()
    (job.base / "model" / "manifest.json").unlink()
    for path in (job.base / "model").iterdir():
        path.unlink()
    job.configure(epochs="2", int8="false")
    assert "holds checkpoints of another job, its epochs was 1 and is now 2" in job.fail()
