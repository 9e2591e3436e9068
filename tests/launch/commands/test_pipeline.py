"""`kennel pipeline`: made, changed, started, written; an execution that really trains, registers, and is deployed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ...emulated_aws.asking import appears
from ...emulated_aws.client import Aws
from ...emulated_aws.runners import pictures
from ..conftest import Command
from ..deployments import NOTHING, Kennel, images, of, shown, wait_until_gone

TINY = [word for name, value in pictures.TINY.items() for word in (f"--{name.replace('_', '-')}", value)]

EMPTY: dict[str, list[str]] = {"pipelines": [], "groups": [], "versions": []}


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    with of(aws, command, tmp_path) as kennel:
        kennel.settings["image"] = images(kennel.front)[0]
        yield kennel


@pytest.fixture
def data(kennel: Kennel) -> str:
    """Photos in S3, by name alone; and nothing is run."""
    kennel.aws.hold()
    return kennel.put("photos/red/0.jpg").removesuffix("red/0.jpg")


def define(kennel: Kennel, data: str, *words: str) -> Any:
    done = kennel("pipeline", "pets", "--data", data, "--min-accuracy", "0.9", "--yes", *words)
    assert done.returncode == 0, done.stderr
    return done


def definition(kennel: Kennel) -> dict[str, Any]:
    found = kennel.aws.client("sagemaker").describe_pipeline(PipelineName="pets")
    made: dict[str, Any] = json.loads(found["PipelineDefinition"])
    return made


def defaults(kennel: Kennel) -> dict[str, Any]:
    return {row["Name"]: row["DefaultValue"] for row in definition(kennel)["Parameters"]}


def about(kennel: Kennel, name: str) -> Any:
    """All that SageMaker says of it."""
    return json.loads(kennel("status", name, "--json").stdout)


def registry(kennel: Kennel) -> dict[str, list[str]]:
    """The names of pipelines, groups and versions that there are."""
    client = kennel.aws.client("sagemaker")
    groups = [
        row["ModelPackageGroupName"] for row in client.list_model_package_groups()["ModelPackageGroupSummaryList"]
    ]
    versions = [
        f"{group}/{row['ModelPackageVersion']}"
        for group in groups
        for row in client.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    ]
    pipelines = [row["PipelineName"] for row in client.list_pipelines()["PipelineSummaries"]]
    return {"pipelines": pipelines, "groups": groups, "versions": versions}


def test_an_execution_trains_and_what_it_registers_is_deployed(kennel: Kennel, programs: Path, tmp_path: Path) -> None:
    """The test photos lie under each other's class: the first execution finds too little, and registers nothing."""
    root = pictures.photos(tmp_path / "photos", {"train/red": 8, "train/green": 8})
    for name, colour in (("red", "green"), ("green", "red")):
        (root / "test" / name).mkdir(parents=True)
        for i in range(3):
            (root / "test" / name / f"{i}.png").write_bytes(pictures.photo(colour, 500 + i))
    judged = ("--metric", "test:accuracy", "--min-accuracy", "0.9", "--max-run", "600")
    done = kennel("pipeline", "pets", "--data", str(root), *judged, *TINY, "--start", "--wait", "--yes")
    assert done.returncode == 1, done.stdout + done.stderr
    _, *steps = done.stdout.splitlines()
    assert any(line.startswith("Train: Succeeded, training-job/pipelines-") for line in steps)
    assert "CheckAccuracy: Succeeded, False" in steps
    assert re.fullmatch(
        r"TooInaccurate: Failed, test:accuracy is 0\.?\d*, less than 0\.9: nothing was registered", steps[-1]
    )
    assert registry(kennel) == {"pipelines": ["pets"], "groups": ["pets"], "versions": []}

    done = kennel("pipeline", "pets", "--start", "--parameter", "AccuracyThreshold=0", "--wait", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "starts an execution: 1 × ml.g5.xlarge, AccuracyThreshold=0" in done.stderr
    assert done.stdout.splitlines()[-1] == "Register: Succeeded, model-package/pets/1"
    assert registry(kennel)["versions"] == ["pets/1"]
    package = about(kennel, "pets/1")
    job = kennel.aws.client("sagemaker").describe_training_job(
        TrainingJobName=package["CustomerMetadataProperties"]["training_job"]
    )
    finals = {row["MetricName"]: row["Value"] for row in job["FinalMetricDataList"]}
    assert float(package["CustomerMetadataProperties"]["test:accuracy"]) == pytest.approx(finals["test:accuracy"])
    status = kennel("status", "pets").stdout
    assert status.count("execution:") == 3 + 2, status  # two executions, three steps of the last

    refused = kennel.command("cli", "deploy", "--from-registry", "pets", "--yes", **kennel.front.env)
    assert refused.returncode == 2
    assert "(pets/1 is PendingManualApproval): kennel register pets/1 --approve" in refused.stderr
    done = kennel("register", "pets/1", "--approve", "--yes")
    assert (done.returncode, done.stdout) == (0, "pets/1: Approved\n"), done.stderr
    done = kennel("deploy", "--from-registry", "pets", "--name", "served", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    model = kennel.aws.client("sagemaker").describe_model(ModelName=kennel.left()["Models"][0])
    assert model["PrimaryContainer"] == {"ModelPackageName": package["ModelPackageArn"]}
    assert re.search(r"^model package: +pets/1$", kennel("status", "served").stdout, re.MULTILINE)
    (kennel.cwd / "red.png").write_bytes(pictures.photo("red", 99))
    answered = kennel("invoke", "served", "red.png")
    assert answered.returncode == 0, answered.stderr
    assert {"red", "green"} <= set(answered.stdout.split()), answered.stdout

    done = kennel("register", "pets", "--job", job["TrainingJobName"], "--yes")  # the same model, with its report
    assert done.returncode == 0, done.stderr
    again = about(kennel, "pets/2")
    assert again["CustomerMetadataProperties"]["judged_by"] == "6 test photos"
    url = again["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    figures = json.loads(appears(kennel.aws, url))["multiclass_classification_metrics"]
    assert figures["accuracy"]["value"] == pytest.approx(finals["test:accuracy"], abs=1e-5)
    assert sum(figures["confusion_matrix"]["red"].values()) == 3

    for words in (["served"], ["--pipeline", "pets"], ["--registry", "pets", "--data"]):
        done = kennel("delete", *words, "--yes")
        assert done.returncode == 0, done.stderr
    wait_until_gone(kennel)
    assert kennel.left() == NOTHING
    assert registry(kennel) == EMPTY
    assert kennel.keys("kennel/registry/") == []
    assert kennel("status", "--json").stdout.count('"TrainingJobName"') == 2  # jobs cannot be deleted


def test_a_dry_run_shows_all_and_sends_nothing(kennel: Kennel, data: str) -> None:
    done = define(kennel, data, "--start", "--dry-run", "--group", "animals", "--approve")
    (_, group), (_, made), (_, start) = calls = shown(done.stdout)
    assert [name for name, _ in calls] == ["CreateModelPackageGroup", "CreatePipeline", "StartPipelineExecution"]
    assert group == {"ModelPackageGroupName": "animals", "Tags": [{"Key": "kennel", "Value": "1"}]}
    assert (made["PipelineName"], made["RoleArn"], made["Tags"]) == ("pets", kennel.aws.role, group["Tags"])
    parameters = {row["Name"]: row["DefaultValue"] for row in json.loads(made["PipelineDefinition"])["Parameters"]}
    assert parameters == {
        "AccuracyThreshold": 0.9,
        "ModelApprovalStatus": "Approved",
        "InstanceType": "ml.g5.xlarge",
        "TrainS3Uri": data,
    }
    assert start["PipelineName"] == "pets"
    assert "at most $36.00 for 24 hours" in done.stderr
    assert kennel.made() == []
    assert registry(kennel) == EMPTY


def test_it_is_changed_where_it_is_there(kennel: Kennel, data: str) -> None:
    define(kennel, data)
    before = defaults(kennel)
    done = define(kennel, data, "--min-accuracy", "0.5", "--endpoint-instance-type", "ml.m5.large")
    assert "updates pipeline pets" in done.stderr
    assert defaults(kennel) == before | {"AccuracyThreshold": 0.5}
    assert kennel.made() == ["CreateModelPackageGroup", "CreatePipeline", "UpdatePipeline"]
    assert json.loads(kennel("status", "--json").stdout)[0]["PipelineName"] == "pets"


def test_the_definition_is_written_and_nothing_else_done(kennel: Kennel, data: str) -> None:
    define(kennel, data)
    sent = kennel.made()
    done = define(kennel, data, "--write", "pets.json")
    assert done.stdout == "pets.json\n"
    assert kennel.made() == sent
    assert json.loads((kennel.cwd / "pets.json").read_text()) == definition(kennel)


def test_a_start_that_is_refused_takes_back_what_was_made_for_it(kennel: Kennel, data: str) -> None:
    kennel.front.denied.add("StartPipelineExecution")
    done = kennel("pipeline", "pets", "--data", data, "--min-accuracy", "0.9", "--start", "--yes")
    assert done.returncode == 2
    assert "start pipeline execution pets: AWS refuses (AccessDeniedException" in done.stderr
    assert registry(kennel) == EMPTY


def test_a_start_that_is_refused_leaves_the_definition_that_was_there(kennel: Kennel, data: str) -> None:
    define(kennel, data)
    before = definition(kennel)
    kennel.front.denied.add("StartPipelineExecution")
    done = kennel("pipeline", "pets", "--data", data, "--min-accuracy", "0.1", "--start", "--yes")
    assert done.returncode == 2
    assert definition(kennel) == before


def test_rights_that_the_role_lacks_are_said(kennel: Kennel, data: str) -> None:
    kennel.front.missing |= {"sagemaker:CreateModelPackage", "iam:PassRole"}
    said = define(kennel, data, "--dry-run").stderr
    assert "role kennel-execution has no right sagemaker:CreateModelPackage of its own on *" in said
    assert f"role kennel-execution has no right iam:PassRole of its own on {kennel.aws.role}" in said


def test_a_running_execution_keeps_its_pipeline(kennel: Kennel, data: str) -> None:
    define(kennel, data, "--start")
    assert "an execution of pipeline pets runs: wait for it" in kennel("delete", "--pipeline", "pets", "--yes").stderr
    done = kennel("delete", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert "pipeline pets stays: an execution of pipeline pets runs" in done.stderr
    assert registry(kennel) == {"pipelines": ["pets"], "groups": [], "versions": []}


def test_somebody_elses_pipeline_is_left_alone(kennel: Kennel, data: str) -> None:
    define(kennel, data, "--write", "pets.json")
    text = (kennel.cwd / "pets.json").read_text()
    token = "t" * 32
    kennel.aws.client("sagemaker").create_pipeline(
        PipelineName="pets", PipelineDefinition=text, RoleArn=kennel.aws.role, ClientRequestToken=token
    )
    words = (["--data", data, "--min-accuracy", "0.9"], ["--start"])
    for more in words:
        assert "was not made by kennel" in kennel.refused("pipeline", "pets", *more, "--yes")
    assert "was not made by kennel" in kennel.refused("delete", "--pipeline", "pets", "--yes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what it trains on, --data and --min-accuracy, or --start the one that is there"),
        (["--data", "s3://b/p/"], "say from which accuracy a model is registered: --min-accuracy 0.9"),
        (["--data", "s3://b/p/", "--min-accuracy", "90"], "--min-accuracy=90: write a share of the photos, as 0.9"),
        (["--start"], "there is no pipeline pets: --data and --min-accuracy make it"),
        (["--start", "--parameter", "a"], "--parameter a: write NAME=VALUE"),
        (["--data", "s3://b/p/", "--min-accuracy", "0.9", "--wait"], "are of an execution: add --start"),
        (["--data", "s3://b/p/", "--min-accuracy", "0.9", "--write", "a", "--start"], "--write makes nothing"),
        (["--data", "s3://b/p/", "--min-accuracy", "0.9", "--write", "a/b"], "a/b cannot be written (No such file"),
        (["--data", "s3://b/p/", "--min-accuracy", "0.9", "--group", "a_b"], "model package group 'a_b': a name is"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(kennel: Kennel, words: list[str], said: str) -> None:
    assert said in kennel.refused("pipeline", "pets", *words, "--yes")


def test_an_execution_is_asked_about_with_its_own_cost(kennel: Kennel, data: str) -> None:
    define(kennel, data)
    words = ("--start", "--parameter", "InstanceType=ml.m5.large")
    asked = kennel("pipeline", "pets", *words)
    assert asked.returncode == 2
    assert asked.stderr.splitlines()[0] == "starts an execution: 1 × ml.m5.large, InstanceType=ml.m5.large"
    assert asked.stderr.splitlines()[1].startswith("ml.m5.large: about $")
    assert "add --yes" in asked.stderr
    assert "StartPipelineExecution" not in kennel.made()
