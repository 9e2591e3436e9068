"""`kennel status`: which jobs and endpoints are ours, and what is said of one; AWS is emulated."""

import json
from typing import Any

import pytest

from kennel_launch.aws import inventory

from ...emulated_aws.client import Aws
from ..conftest import Command


@pytest.fixture(autouse=True)
def photo(aws: Aws) -> None:
    """What a job's channel must hold, for SageMaker to take the job; and nothing is run."""
    aws.client("s3").put_object(Bucket=aws.bucket, Key="data/ant/0.jpg", Body=b"a photo")
    aws.hold()


def train(aws: Aws, name: str, **changes: Any) -> None:
    """A training job as somebody made it, by whatever tool."""
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{aws.bucket}/data/"}
    asked = {
        "TrainingJobName": name,
        "RoleArn": aws.role,
        "AlgorithmSpecification": {"TrainingImage": aws.image, "TrainingInputMode": "File"},
        "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": f"s3://{aws.bucket}/out"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 900},
        "EnableManagedSpotTraining": True,
    }
    aws.client("sagemaker").create_training_job(**(asked | changes))


def test_the_table_has_what_is_ours_by_name_or_by_tag(aws: Aws, command: Command) -> None:
    train(aws, "kennel-20260101-000000-000")
    train(aws, "pets", Tags=[{"Key": "kennel", "Value": "1"}])
    train(aws, "somebody-elses", Tags=[{"Key": "team", "Value": "ears"}])
    aws.change("TrainingJob", "pets", TrainingJobStatus="Failed", FailureReason="no")
    done = command("cli", "status", **aws.env)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "training" in line]
    assert len(rows) == 2
    assert any("pets" in row and "Failed" in row for row in rows)
    assert any("kennel-2026" in row and "InProgress" in row for row in rows)
    shown = json.loads(command("cli", "status", "--json", **aws.env).stdout)
    assert {row["TrainingJobName"] for row in shown} == {"kennel-20260101-000000-000", "pets"}


def test_what_costs_by_the_hour_is_found_behind_all_that_is_newer(aws: Aws, command: Command) -> None:
    client = aws.client("sagemaker")
    tags = [{"Key": "kennel", "Value": "1"}]
    aws.client("s3").put_object(Bucket=aws.bucket, Key="model.tar.gz", Body=b"a model")
    container = {"Image": aws.image, "ModelDataUrl": f"s3://{aws.bucket}/model.tar.gz"}
    client.create_model(ModelName="m", ExecutionRoleArn=aws.role, PrimaryContainer=container)
    variant = {
        "VariantName": "one",
        "ModelName": "m",
        "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1},
    }
    client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    client.create_endpoint(EndpointName="pets", EndpointConfigName="c", Tags=tags)
    for name in ("pets-running", "pets-ended"):
        train(aws, name, Tags=tags)
    train(aws, "kennel-20250101-000000-000")
    for name in ("pets-ended", "kennel-20250101-000000-000"):
        aws.change("TrainingJob", name, TrainingJobStatus="Completed")
    for number in range(inventory.NEWEST + 1):
        client.create_endpoint(EndpointName=f"other-{number}", EndpointConfigName="c")
        train(aws, f"other-{number}")
        aws.change("TrainingJob", f"other-{number}", TrainingJobStatus="Completed")
    done = command("cli", "status", "--json", **aws.env)
    assert done.returncode == 0, done.stderr
    names = {row.get("TrainingJobName") or row["EndpointName"] for row in json.loads(done.stdout)}
    assert names == {"pets", "pets-running", "kennel-20250101-000000-000"}


def test_nothing_of_ours_says_so(aws: Aws, command: Command) -> None:
    done = command("cli", "status", **aws.env)
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing of ours" in done.stderr


def test_one_job_in_detail(aws: Aws, command: Command) -> None:
    train(aws, "pets", HyperParameters={"epochs": "5", "backbone": "resnet18"})
    aws.change(
        "TrainingJob",
        "pets",
        TrainingJobStatus="Stopped",
        SecondaryStatus="MaxRuntimeExceeded",
        FinalMetricDataList=[{"MetricName": "validation:accuracy", "Value": 0.987654, "Timestamp": 1_700_000_000}],
        TrainingTimeInSeconds=600,
        BillableTimeInSeconds=150,
    )
    aws.price("ml.g5.xlarge", "Training", 3.0)
    done = command("cli", "status", "pets", **aws.env)
    assert done.returncode == 0, done.stderr
    shown = dict(line.split(":  ", 1) for line in done.stdout.splitlines() if ":  " in line)
    assert shown["status"].strip() == "Stopped (MaxRuntimeExceeded)"
    assert "0.9877" in done.stdout
    assert "150 of 600, 75% saved by spot" in done.stdout
    assert shown["cost"].strip() == "about $0.25, at $3.00 an hour (AWS's price list for eu-west-1)"  # of two machines
    assert "2 × ml.g5.xlarge" in done.stdout
    assert "backbone=resnet18 epochs=5" in done.stdout
    assert f"s3://{aws.bucket}/data/" in done.stdout
    assert json.loads(command("cli", "status", "pets", "--json", **aws.env).stdout)["BillableTimeInSeconds"] == 150


def test_a_name_that_nothing_has(aws: Aws, command: Command) -> None:
    done = command("cli", "status", "nothing", **aws.env)
    assert done.returncode == 2
    assert done.stderr == (
        "kennel status: there is no training job or tuning job or transform job or endpoint or pipeline or "
        "model package group 'nothing' in eu-west-1: kennel status lists what there is\n"
    )


def test_without_credentials_or_a_region_it_says_what_to_do(aws: Aws, command: Command) -> None:
    no_credentials = aws.env | {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    done = command("cli", "status", "pets", **{key: value for key, value in no_credentials.items() if value})
    assert done.returncode == 2
    assert "no AWS credentials were found: run aws configure or aws sso login" in done.stderr
    done = command("cli", "status", **aws.env | {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""})
    assert done.returncode == 2
    assert "no AWS region: write --region" in done.stderr
