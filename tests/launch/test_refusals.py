"""Wrong role, bucket, quota, region, image or instance: one sentence, exit code 2, and the account is as it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Command
from .deployments import JOB, Kennel, of
from .emulated import pictures
from .emulated.client import Aws

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
NOBODY = "arn:aws:iam::123456789012:role/nobody"
KINDS = {
    "train": ("ml.g5.xlarge for training job usage", "training"),
    "tune": ("ml.g5.xlarge for training job usage", "training"),
    "deploy": ("ml.c7i.large for endpoint usage", "endpoints"),
    "transform": ("ml.c7i.large for transform job usage", "batch transform"),
}
# What is wrong -> (words that make it so, of its sentence what is wrong, and how to mend it); {} is the command's own.
WRONG = {
    "role": (["--role", NOBODY], "there is no role 'nobody' in this account", "name it by --role"),
    "role's name": (["--role", "nobody"], "nobody", "by --role"),
    "bucket": (["--bucket", "not-ours"], "there is no bucket 'not-ours'", "create it in eu-west-1, or name another by"),
    "quota": ([], "the account's quota '{quota}' is 0 in eu-west-1, 1 needed", "`aws service-quotas request-service-"),
    "region": (["--region", "us-east-1"], "lies in eu-west-1, the launch in us-east-1", "name the region by --region"),
    "no region": (["--region", "no where"], "no where", "--region"),
    "image": (["--image", f"{ECR}/kennel:gone"], "repository 'kennel' has no image 'gone'", "push it with kennel push"),
    "local image": (["--image", "kennel:dev"], "'kennel:dev' does not lie in ECR", "push it with kennel push"),
    "instance": (["--instance-type", "ml.m5.lrge"], "no instance type 'ml.m5.lrge' for {what}", "did you mean ml.m5."),
}


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    with of(aws, command, tmp_path) as kennel:
        yield kennel


def listing(aws: Aws) -> dict[str, Any]:
    """All that is in the account, by the call that lists it."""
    asked = {
        "sagemaker": [f"list_{kind}s" for kind in ("model", "endpoint_config", "endpoint", "training_job")]
        + ["list_hyper_parameter_tuning_jobs", "list_transform_jobs"],
        "iam": ["list_roles"],
        "scheduler": ["list_schedules"],
        "ecr": ["describe_repositories"],
        "s3": ["list_buckets"],
        "logs": ["describe_log_groups"],
    }
    found = {name: getattr(aws.client(service), name)() for service, names in asked.items() for name in names}
    found["images"] = aws.client("ecr").list_images(repositoryName="kennel")
    for bucket in [row["Name"] for row in found["list_buckets"]["Buckets"]]:
        found[bucket] = aws.client("s3").list_objects_v2(Bucket=bucket)
    for answer in found.values():
        del answer["ResponseMetadata"]
    return found


@pytest.fixture
def given(kennel: Kennel, tmp_path: Path) -> dict[str, list[str]]:
    """What each command needs, with photos that are not sent yet."""
    photos = str(pictures.photos(tmp_path / "photos", {"red": 1, "green": 1}))
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz")
    kennel.settings["image"] = kennel.front.put_image("full")
    return {
        "train": ["--data", photos],
        "tune": ["--data", photos, "--search-space", "learning_rate"],
        "deploy": ["--model", model],
        "transform": ["--model", model, "--data", photos],
    }


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *((name, wrong) for name in ("train", "deploy") for wrong in WRONG),
        *((name, wrong) for name in ("tune", "transform") for wrong in ("image", "quota", "instance")),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_made(
    kennel: Kennel, given: dict[str, list[str]], name: str, wrong: str
) -> None:
    words, said, mending = WRONG[wrong]
    quota, what = KINDS[name]
    if wrong == "quota":
        kennel.aws.quota(quota, 0)
    before = listing(kennel.aws)
    done = kennel(name, *given[name], *words, "--yes")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"kennel {name}: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert said.format(quota=quota, what=what) in done.stderr
    assert mending in done.stderr
    assert listing(kennel.aws) == before
    assert kennel.made() == []


def test_with_nothing_wrong_the_listing_shows_what_was_made(kennel: Kennel, given: dict[str, list[str]]) -> None:
    kennel.aws.hold()
    for name in ("train", "transform"):
        before = listing(kennel.aws)
        done = kennel(name, *given[name], "--yes")
        assert done.returncode == 0, done.stderr
        assert listing(kennel.aws) != before
