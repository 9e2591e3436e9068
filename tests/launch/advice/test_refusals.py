"""Wrong role, bucket, quota, region, image or instance: one sentence, exit code 2, and the account is as it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ...emulated_aws.client import Aws
from ...emulated_aws.runners import pictures
from ..conftest import Command
from ..deployments import JOB, Kennel, of, shown

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
ABSENT = "arn:aws:iam::123456789012:role/absent"
KINDS = {
    "train": ("ml.g5.xlarge for training job usage", "training"),
    "tune": ("ml.g5.xlarge for training job usage", "training"),
    "deploy": ("ml.c7i.large for endpoint usage", "endpoints"),
    "transform": ("ml.c7i.large for transform job usage", "batch transform"),
}
# What is wrong -> (words that make it so, of its sentence what is wrong, and how to fix it); {} is the command's own.
WRONG = {
    "role": (["--role", ABSENT], "there is no role 'absent' in this account", "name it by --role"),
    "role's name": (["--role", "absent"], "absent", "by --role"),
    "bucket": (["--bucket", "not-ours"], "there is no bucket 'not-ours'", "create it in eu-west-1, or name another by"),
    "quota": ([], "the account's quota '{quota}' is 0 in eu-west-1, 1 needed", "`aws service-quotas request-service-"),
    "region": (["--region", "us-east-1"], "lies in eu-west-1, the launch in us-east-1", "name the region by --region"),
    "no region": (["--region", "no where"], "no where", "--region"),
    "image": (["--image", f"{ECR}/kennel:gone"], "repository 'kennel' has no image 'gone'", "push it with kennel push"),
    "local image": (["--image", "kennel:dev"], "'kennel:dev' does not lie in ECR", "push it with kennel push"),
    "instance": (["--instance-type", "ml.m5.lrge"], "no instance type 'ml.m5.lrge' for {what}", "did you mean 'ml.m5."),
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
    words, said, fixing = WRONG[wrong]
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
    assert fixing in done.stderr
    assert listing(kennel.aws) == before
    assert kennel.made() == []


def test_with_nothing_wrong_the_listing_shows_what_was_made(kennel: Kennel, given: dict[str, list[str]]) -> None:
    kennel.aws.hold()
    for name in ("train", "transform"):
        before = listing(kennel.aws)
        done = kennel(name, *given[name], "--yes")
        assert done.returncode == 0, done.stderr
        assert listing(kennel.aws) != before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", ""], "say where the photos are: --data FOLDER, or --data s3://bucket/prefix"),
        (["--keep-alive", "30000"], "--keep-alive 30000: write up to 21600 seconds"),
        (
            ["--val", "other/photos"],
            "two folders of one name would both lie in s3://kennel-test-bucket/kennel/data/pho",
        ),
    ],
)
def test_photos_and_times_that_no_training_job_takes(
    kennel: Kennel, given: dict[str, list[str]], words: list[str], said: str
) -> None:
    pictures.photos(kennel.cwd / "other" / "photos", {"red": 1})
    assert said in kennel.refused("train", *given["train"], *words, "--yes")


def test_an_endpoint_that_is_not_ready_for_a_change(kennel: Kennel, given: dict[str, list[str]]) -> None:
    kennel.aws.hold()
    words = ["deploy", *given["deploy"], "--name", "pets"]
    client = kennel.aws.client("sagemaker")
    requests = dict(shown(kennel(*words, "--dry-run").stdout))
    client.create_model(**requests["CreateModel"])
    client.create_endpoint_config(**requests["CreateEndpointConfig"])
    client.create_endpoint(**requests["CreateEndpoint"])
    said = "endpoint pets is Creating and cannot be changed: wait until it is in service, or choose another --name"
    assert said in kennel.refused(*words, "--yes")
    kennel.aws.change("Endpoint", "pets", EndpointStatus="Failed")
    assert "pets is Failed and cannot be changed: kennel delete pets, or" in kennel.refused(*words, "--yes")


def test_a_search_without_a_best_job_and_a_model_without_an_image(kennel: Kennel, given: dict[str, list[str]]) -> None:
    kennel.aws.hold()
    data = ["--data", f"s3://{kennel.aws.bucket}/kennel/"]
    searched = kennel("tune", *data, "--search-space", "learning_rate", "--name", "search", "--yes")
    assert searched.returncode == 0, searched.stderr
    made = kennel.made()
    for name, more in (("deploy", []), ("transform", data)):
        done = kennel(name, "--tuning-job", "search", *more, "--yes")
        assert done.returncode == 2
        assert done.stderr == (
            f"kennel {name}: tuning job search has no best training job yet (InProgress): see kennel status search\n"
        )
    del kennel.settings["image"]
    for name in ("deploy", "transform"):
        done = kennel(name, *given[name], "--yes")
        assert done.returncode == 2
        assert done.stderr == f"kennel {name}: --model says nothing of the image that serves it: add --image\n"
    assert kennel.made() == made


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("instance_typ = 'ml.m5.large'", "kennel.toml: unknown setting 'instance_typ': did you mean 'instance_type'?"),
        ("region =", "kennel.toml cannot be read"),
        ("instance_count = 0", "instance_count in kennel.toml=0: write a whole number from 1"),
        ("subnets = [1]", "subnets in kennel.toml=[1]: write ID,..."),
        ("region = 5", "region in kennel.toml=5: write one word"),
        ("tags = {team = 1}", "tags in kennel.toml: write tags as NAME=VALUE"),
        ("tags = {kennel = 'prod'}", "tags in kennel.toml: kennel=prod is the tag by which Kennel finds what it made"),
        ("tags = 'aws:team=ears'", "tags in kennel.toml: aws:team=ears: AWS takes names to 128 letters, not aws:"),
    ],
)
def test_a_bad_settings_file(aws: Aws, command: Command, tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "cwd" / "kennel.toml").write_text(f"{line}\n")
    done = command("cli", "check", "train", **aws.env)
    assert done.returncode == 2
    assert done.stderr.startswith("kennel check: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert aws.requests == []
