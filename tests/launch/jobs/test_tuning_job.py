"""`kennel tune` on SageMaker: the request is sagemaker_tuner's, one job instead of many; AWS is emulated."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kennel.search.sagemaker_tuner import Options, tuning_request
from kennel_launch.console import flags

from ...emulated_aws.client import Aws
from ...emulated_aws.runners import pictures
from .. import front
from ..conftest import Command

Env = dict[str, str]
MakePhotos = Callable[[dict[str, int]], Path]
TINY = [word for name, value in pictures.TINY.items() if name != "batch_size" for word in (flags.flag(name), value)]


@pytest.fixture
def env(aws: Aws, command: Command) -> Iterator[Env]:
    """A caller with all settings in the environment, and a photo in the bucket."""
    with front.before(aws, command) as account:
        aws.client("s3").put_object(Bucket=aws.bucket, Key="kennel/data/pets/ant/0.jpg", Body=b"a photo")
        output = {"IMAGE": account.put_image("full"), "ROLE": aws.role, "BUCKET": aws.bucket}
        yield account.env | {f"KENNEL_{name}": value for name, value in output.items()}


def dry(aws: Aws, env: Env, command: Command, *more: str) -> dict[str, Any]:
    words = ["--data", f"s3://{aws.bucket}/kennel/data/pets/", "--name", "search", "--dry-run", *more]
    done = command("cli", "tune", *words, **env)
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert not [one.operation for one in aws.requests if one.operation.startswith("Create")]
    found: dict[str, Any] = output["request"]
    return found


ASKED = {
    "bayesian": (
        {"epochs": "3"},
        "learning_rate batch_size=8,16",
        Options(jobs=6, parallel=2, target=0.9, no_improvement=4, convergence=True, max_runtime=7200, seed=7),
        "--jobs 6 --parallel 2 --target 0.9 --no-improvement 4 --convergence --max-runtime 7200 --tuner-seed 7",
    ),
    "hyperband": ({}, "learning_rate=0.001..0.1", Options("Hyperband", jobs=9), "--tuner Hyperband --jobs 9"),
    "grid": ({}, "batch_size=8,16 optimizer=sgd,adamw", Options("Grid"), "--tuner Grid"),
    "warm": (
        {"backbone": "resnet18"},
        "epochs=2..9 momentum=0.5..0.9",
        Options("Random", parents=("a", "b"), warm_start="TransferLearning", early_stopping=False),
        "--tuner Random --warm-start a --warm-start b --transfer --early-stopping off",
    ),
}


@pytest.mark.parametrize(("given", "space", "options", "words"), ASKED.values(), ids=ASKED.keys())
def test_the_sdk_asks_what_kennel_tuning_says(
    aws: Aws, env: Env, command: Command, given: dict[str, str], space: str, options: Options, words: str
) -> None:
    flagged = [word for name, value in given.items() for word in (flags.flag(name), value)]
    asked = dry(aws, env, command, *flagged, "--search-space", space, *words.split())
    wanted = tuning_request(given, space, options)
    ranges = asked["HyperParameterTuningJobConfig"]["ParameterRanges"]
    for kind in [kind for kind, rows in ranges.items() if not rows]:  # which the SDK sends, too
        del ranges[kind]
    assert asked["HyperParameterTuningJobConfig"] == wanted["HyperParameterTuningJobConfig"]
    definition = asked["TrainingJobDefinition"]
    assert definition["StaticHyperParameters"] == wanted["TrainingJobDefinition"]["StaticHyperParameters"]
    metrics = wanted["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
    assert definition["AlgorithmSpecification"]["MetricDefinitions"] == metrics
    start = asked.get("WarmStartConfig")
    if start:  # the SDK keeps the parents as a set
        start["ParentHyperParameterTuningJobs"].sort(key=lambda row: row["HyperParameterTuningJobName"])
    assert start == wanted.get("WarmStartConfig")
    assert definition["OutputDataConfig"] == {"S3OutputPath": f"s3://{aws.bucket}/kennel/jobs"}
    assert asked["Tags"] == [{"Key": "kennel", "Value": "1"}]


def test_spare_machines_have_checkpoints_of_the_search(aws: Aws, env: Env, command: Command) -> None:
    definition = dry(aws, env, command, "--search-space", "learning_rate", "--spot")["TrainingJobDefinition"]
    assert definition["EnableManagedSpotTraining"] is True
    assert definition["CheckpointConfig"] == {"S3Uri": f"s3://{aws.bucket}/kennel/checkpoints/search"}


def test_one_job_is_a_training_job_that_searches(aws: Aws, env: Env, command: Command) -> None:
    words = ["--one-job", "--trials", "7", "--search", "tpe", "--search-space", "learning_rate", "--epochs", "5"]
    asked = dry(aws, env, command, *words)
    assert asked["TrainingJobName"] == "search"
    assert asked["HyperParameters"] == {
        "epochs": "5",
        "trials": "7",
        "search": "tpe",
        "search_space": "learning_rate",
    }


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--search-space", "learning_rate", "--learning-rate", "0.1"], "learning_rate=0.1: fixed and tuned as well"),
        (["--tuner", "Hyperband", "--search-space", "epochs=2..9"], "Hyperband itself decides how long a job trains"),
        (["--jobs", "2", "--parallel", "3"], "parallel=3: there are 2 jobs in all"),
        (["--name", "a" * 40], "a tuning job's has 32 letters at most"),
        (["--one-job", "--trials", "1"], "--trials 1 is no search"),
        (["--strategi", "Grid"], "unknown argument --strategi: did you mean '--strategy'?"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(
    aws: Aws, env: Env, command: Command, more: list[str], said: str
) -> None:
    words = ["--data", f"s3://{aws.bucket}/kennel/data/pets/", "--yes", *more]
    done = command("cli", "tune", *words, **env)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert not [one.operation for one in aws.requests if one.operation.startswith("Create")]


def test_a_quota_of_nothing_is_refused_for_all_jobs_at_a_time(aws: Aws, env: Env, command: Command) -> None:
    aws.quota("ml.g5.xlarge for training job usage", 1)
    words = ["--data", f"s3://{aws.bucket}/kennel/data/pets/", "--yes", "--search-space", "learning_rate"]
    done = command("cli", "tune", *words, "--parallel", "2", **env)
    assert done.returncode == 2
    assert "ml.g5.xlarge for training job usage" in done.stderr


def test_a_search_is_followed_to_its_best_which_is_trained_with(
    aws: Aws, env: Env, programs: Path, command: Command, tmp_path: Path
) -> None:
    data = pictures.photos(tmp_path / "colours", {"red": 8, "green": 8})
    words = ["--data", str(data), *TINY, "--search-space", "batch_size=4,8", "--tuner", "Grid", "--wait", "--yes"]
    done = command("cli", "tune", *words, **env)
    assert done.returncode == 0, done.stderr + done.stdout
    name, *lines = done.stdout.splitlines()
    assert lines[-1].startswith("2 completed, 0 in progress, 0 failed, 0 stopped; best validation:accuracy=")
    assert f"tuning job {name}: Completed" in done.stderr
    assert done.stderr.splitlines()[-1] == f"train with it: kennel train --from-tuning-job {name} --data ..."
    output = command("cli", "status", name, **env).stdout
    assert re.search("^strategy: +Grid, 2 jobs at most$", output, re.MULTILINE)
    assert re.search("^found: +batch_size=", output, re.MULTILINE)
    done = command("cli", "train", "--from-tuning-job", name, "--data", str(data), "--dry-run", **env)
    given = json.loads(done.stdout)["request"]["HyperParameters"]
    assert given["batch_size"] in ("4", "8")
    assert given["backbone"] == "test_resnet"
