"""`kennel invoke --load` against a real endpoint; what it concludes from levels, and where it ends."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from kennel_launch.inference import load
from kennel_launch.inference.load import Level

from ...emulated_aws.client import Aws
from ...emulated_aws.runners import pictures
from ..conftest import Command
from ..deployments import JOB, Kennel, in_service, of

SHORT = ("--load", "--load-seconds", "0.3", "--yes")


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    with of(aws, command, tmp_path) as kennel:
        yield kennel


def level(concurrency: int, rate: float, p99: float = 100, errors: int = 0) -> Level:
    return Level(concurrency, 100, errors, rate, p99 / 2, p99)


def test_the_best_is_what_answers_most_without_errors_and_in_time() -> None:
    found = [level(1, 10), level(2, 19), level(4, 30, p99=600), level(8, 40, errors=1)]
    assert load.best(found, 500) == found[1]
    assert load.best(found, 700) == found[2]
    assert load.best(found, 50) is None
    assert load.best([level(1, 0, p99=math.nan)], 500) is None
    assert load.invocations_per_instance(found[1], 1) == 570  # 19 a second, a half of it, for a minute
    assert load.invocations_per_instance(found[1], 2) == 285
    assert load.invocations_per_instance(level(1, 0.01), 1) == 1


@pytest.mark.parametrize(("count", "share", "rank"), [(1, 0.99, 1), (100, 0.5, 50), (100, 0.99, 99), (101, 0.99, 100)])
def test_percentiles_are_nearest_ranks(count: int, share: float, rank: int) -> None:
    assert load.percentile([float(i) for i in range(count, 0, -1)], share) == rank


def test_an_endpoint_under_load_says_the_target_of_autoscale(kennel: Kennel, programs: Path, tmp_path: Path) -> None:
    in_service(kennel)
    photos = pictures.photos(tmp_path / "new", {"red": 2, "green": 1})
    asked = kennel("invoke", JOB, str(photos), "--load")
    assert asked.returncode == 2
    assert "asks endpoint kennel-pets for 70 seconds at most, up to 64 requests at a time, 14000 in all" in asked.stderr
    assert kennel.aws.asked("sagemaker-runtime", "InvokeEndpoint") == []
    done = kennel("invoke", JOB, str(photos), *SHORT, "--p99", "60000", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["concurrency"] for row in rows] == list(load.CONCURRENCIES[: len(rows)])
    assert all(row["answers"] > 0 and row["p50"] <= row["p99"] and row["errors"] == 0 for row in rows)
    requests = kennel.aws.asked("sagemaker-runtime", "InvokeEndpoint")
    assert len(requests) == 3 + sum(row["answers"] for row in rows)  # each photo once before
    best = max(rows, key=lambda row: row["rate"])
    target = int(best["rate"] * 0.5 * 60)
    assert done.stderr.splitlines()[-1].endswith(f"--autoscale 1..4 --invocations-per-instance {target}")
    slow = kennel("invoke", JOB, str(photos), *SHORT, "--p99", "0.001")
    assert slow.returncode == 1
    assert "nothing within --p99 0.001 ms without errors: allow more" in slow.stderr
    assert [line.split("│")[1].strip() for line in slow.stdout.splitlines() if line.startswith("│")] == ["1"]


def test_a_photo_that_is_refused_is_named_before_the_load(kennel: Kennel, programs: Path, tmp_path: Path) -> None:
    in_service(kennel, "--mode", "serverless", "--max-concurrency", "2")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    done = kennel("invoke", JOB, str(broken), *SHORT)
    assert done.returncode == 2
    assert "/broken.jpg: not a readable photo" in done.stderr.splitlines()[-1]
    assert "each of them is billed by its milliseconds" in done.stderr
    photo = pictures.photos(tmp_path / "new", {"red": 1}) / "red" / "0.png"
    done = kennel("invoke", JOB, str(photo), *SHORT, "--p99", "60000", "--json")
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["concurrency"] for line in done.stdout.splitlines()} <= {1, 2}
    assert "--autoscale" not in done.stderr
    kennel.aws.deny("sagemaker-runtime", "InvokeEndpoint")
    assert kennel("invoke", JOB, str(photo), *SHORT).returncode == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--load-seconds", "0"], "--load-seconds 0: write seconds, more than 0 and up to 600"),
        (["--p99", "0"], "--p99 0: write milliseconds, more than 0"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(kennel: Kennel, words: list[str], said: str) -> None:
    assert said in kennel.refused("invoke", "pets", "photo.jpg", "--load", *words)
