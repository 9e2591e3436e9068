"""`kennel logs`: lines in order, hosts told apart, followed to the end of a job; AWS is emulated."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ...emulated_aws.client import Aws
from .. import front
from ..conftest import REPOSITORY, Command
from .test_status import train

GROUP = "/aws/sagemaker/TrainingJobs"


@pytest.fixture(autouse=True)
def job(aws: Aws) -> None:
    """A training job that stays as it is."""
    aws.client("s3").put_object(Bucket=aws.bucket, Key="data/ant/0.jpg", Body=b"a photo")
    aws.hold()
    train(aws, "pets")


def say(aws: Aws, stream: str, *messages: str, group: str = GROUP) -> None:
    logs: Any = aws.client("logs")
    for make, more in ((logs.create_log_group, {}), (logs.create_log_stream, {"logStreamName": stream})):
        try:
            make(logGroupName=group, **more)
        except logs.exceptions.ResourceAlreadyExistsException:
            continue
    moment = int(time.time() * 1000)
    events = [{"timestamp": moment, "message": message} for message in messages]
    for at in range(0, len(events), 1000):
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events[at : at + 1000])


def test_all_lines_of_a_job_and_of_no_other(aws: Aws, command: Command) -> None:
    lines = [f"line {i}" for i in range(12_000)]  # more than one answer holds
    say(aws, "pets/algo-1-1700000000", *lines)
    say(aws, "pets-2/algo-1-1700000000", "another job's")
    done = command("cli", "logs", "pets", **aws.env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == lines


def test_an_empty_page_is_not_the_end(aws: Aws, command: Command) -> None:
    say(aws, "pets/algo-1-17", "one", "two")
    with front.before(aws, command) as account:
        account.empty_pages = True
        assert command("cli", "logs", "pets", **account.env).stdout == "one\ntwo\n"


def test_hosts_are_told_apart(aws: Aws, command: Command) -> None:
    say(aws, "pets/algo-1-17", "one")
    say(aws, "pets/algo-2-17", "two")
    assert command("cli", "logs", "pets", **aws.env).stdout == "algo-1-17 | one\nalgo-2-17 | two\n"


def test_a_job_that_has_said_nothing(aws: Aws, command: Command) -> None:
    done = command("cli", "logs", "pets", **aws.env)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "kennel logs: pets has written nothing yet (InProgress)\n"
    done = command("cli", "logs", "absent", **aws.env)
    assert done.returncode == 2
    assert "there is no" in done.stderr


def follower(aws: Aws, out: Path) -> subprocess.Popen[str]:
    sources = os.pathsep.join(str(REPOSITORY / folder) for folder in ("scripts", "container"))
    with out.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "kennel_launch.cli", "logs", "pets", "--follow"],
            env={**os.environ, "PYTHONPATH": sources, **aws.env},
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )


def wait_for(out: Path, word: str) -> None:
    end = time.monotonic() + 90
    while word not in out.read_text():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_followed_to_the_end_with_the_last_lines_and_the_reason(aws: Aws, tmp_path: Path) -> None:
    out = tmp_path / "out"
    say(aws, "pets/algo-1-17", "begun")
    with follower(aws, out) as process:
        wait_for(out, "begun")
        say(aws, "pets/algo-1-17", "epoch=1")
        wait_for(out, "epoch=1")
        say(aws, "pets/algo-1-17", "the end")
        aws.change("TrainingJob", "pets", TrainingJobStatus="Failed", FailureReason="AlgorithmError: no photos")
        _, said = process.communicate(timeout=90)
    assert process.returncode == 1
    assert out.read_text() == "begun\nepoch=1\nthe end\n"
    assert said == "training job pets: Failed\nAlgorithmError: no photos\n"


def test_ctrl_c_leaves_the_job_and_says_how_to_end_it(aws: Aws, tmp_path: Path) -> None:
    out = tmp_path / "out"
    say(aws, "pets/algo-1-17", "begun")
    with follower(aws, out) as process:
        wait_for(out, "begun")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "end it: aws sagemaker stop-training-job --training-job-name pets" in said
    assert "Traceback" not in said
    assert aws.asked("sagemaker", "StopTrainingJob") == []
