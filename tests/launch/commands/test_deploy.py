"""`kennel deploy`: the requests of each mode, what it refuses, what is left where it fails, and real endpoints."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel_launch.aws import instance_types
from kennel_launch.hosting import specs, ttl

from ...emulated_aws.client import Aws
from ...emulated_aws.runners import pictures
from ..conftest import Command
from ..deployments import (
    JOB,
    NOTHING,
    Kennel,
    images,
    in_service,
    of,
    packed,
    shown,
    trust_the_scheduler,
    wait_until_gone,
)

TRUSTING = "arn:aws:iam::123456789012:role/deleter"


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    with of(aws, command, tmp_path) as kennel:
        yield kennel


@pytest.fixture
def model(kennel: Kennel) -> str:
    return kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz")


def test_a_dry_run_prints_the_three_requests_and_sends_none(kennel: Kennel, model: str) -> None:
    done = kennel("deploy", "--model", model, "--engine", "fp32", "--tags", "team=ears", "--dry-run")
    assert done.returncode == 0, done.stderr
    (_, made), (_, config), (_, endpoint) = calls = shown(done.stdout)
    assert [operation for operation, _ in calls] == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    name = made["ModelName"]
    assert specs.is_version(name, JOB)
    tags = [{"Key": "team", "Value": "ears"}, {"Key": "kennel", "Value": "1"}]
    container = {"Image": kennel.settings["image"], "ModelDataUrl": model, "Environment": {"KENNEL_ENGINE": "fp32"}}
    assert made == {
        "ModelName": name,
        "PrimaryContainer": container,
        "ExecutionRoleArn": kennel.aws.role,
        "Tags": tags,
    }
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1}
    assert config == {
        "EndpointConfigName": name,
        "ProductionVariants": [variant | {"InstanceType": "ml.c7i.large"}],
        "Tags": tags,
    }
    assert endpoint == {"EndpointName": JOB, "EndpointConfigName": name, "Tags": tags}
    assert kennel.made() == []
    assert kennel.left() == NOTHING


def test_a_gpu_host_gets_the_system_that_the_image_needs(kennel: Kennel, model: str) -> None:
    full = images(kennel.front)[0]
    done = kennel("deploy", "--model", model, "--image", full, "--instance-type", "ml.g5.xlarge", "--dry-run")
    assert done.returncode == 0, done.stderr
    variant = shown(done.stdout)[1][1]["ProductionVariants"][0]
    assert variant["InstanceType"] == "ml.g5.xlarge"
    assert variant["InferenceAmiVersion"].startswith("al2")


def test_a_serverless_endpoint_has_memory_and_no_machine(kennel: Kennel, model: str) -> None:
    words = ["--mode", "serverless", "--memory", "2048", "--max-concurrency", "9", "--kms-key", "alias/mine"]
    done = kennel("deploy", "--model", model, *words, "--dry-run")
    assert done.returncode == 0, done.stderr
    config = shown(done.stdout)[1][1]
    assert "KmsKeyId" not in config
    (variant,) = config["ProductionVariants"]
    assert variant.pop("ServerlessConfig") == {"MemorySizeInMB": 2048, "MaxConcurrency": 9}
    assert set(variant) == {"VariantName", "ModelName"}


def test_an_asynchronous_endpoint_in_a_vpc_with_a_key(kennel: Kennel, model: str) -> None:
    words = [
        "--mode",
        "async",
        "--kms-key",
        "alias/mine",
        "--subnets",
        "subnet-1,subnet-2",
        "--security-groups",
        "sg-1",
    ]
    done = kennel("deploy", "--model", model, "--name", "later", *words, "--dry-run")
    assert done.returncode == 0, done.stderr
    (_, made), (_, config), _ = shown(done.stdout)
    assert made["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert made["PrimaryContainer"]["Environment"] == {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}
    assert config["KmsKeyId"] == "alias/mine"
    folder = f"s3://{kennel.aws.bucket}/kennel/async/later"
    assert config["AsyncInferenceConfig"] == {
        "OutputConfig": {
            "S3OutputPath": f"{folder}/output",
            "S3FailurePath": f"{folder}/failure",
            "KmsKeyId": "alias/mine",
        }
    }


def test_a_multi_model_endpoint_gets_a_folder_with_a_copy(kennel: Kennel, model: str) -> None:
    done = kennel("deploy", "--model", model, "--mode", "multi-model", "--name", "zoo", "--dry-run")
    assert done.returncode == 0, done.stderr
    (copy, copied), (_, made), *_ = shown(done.stdout)
    assert (copy, copied["Key"]) == ("CopyObject", f"kennel/models/zoo/{JOB}.tar.gz")
    container = made["PrimaryContainer"]
    assert container["Mode"] == "MultiModel"
    assert container["ModelDataUrl"] == f"s3://{kennel.aws.bucket}/kennel/models/zoo/"


@pytest.mark.parametrize("kind", ["ml.g5.xlarge", "ml.g4dn.xlarge", "ml.m5d.large", "ml.c6id.large", "ml.p4d.24xlarge"])
def test_hosts_whose_own_disks_take_no_key(kind: str) -> None:
    assert instance_types.has_own_disk(kind)


@pytest.mark.parametrize("kind", ["ml.c7i.large", "ml.m5.large", "ml.p3.2xlarge", "ml.c5.xlarge", ""])
def test_hosts_without_disks_of_their_own(kind: str) -> None:
    assert not instance_types.has_own_disk(kind)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dry-run"], "say which model: --job NAME, --tuning-job NAME, --from-registry GROUP or --model s3://"),
        (["--model", "x.tar.gz"], "'x.tar.gz' is no address in S3"),
        (["--model", "MODEL"], "nothing is done without a yes, and here is no terminal to ask at: add --yes"),
        (["--model", "MODEL", "--memory", "2048"], "--memory is of serverless endpoints: add --mode serverless"),
        (["--model", "MODEL", "--mode", "serverless", "--instance-type", "ml.m5.large"], "has no instance type"),
        (["--model", "MODEL", "--mode", "serverless", "--memory", "2000"], "can't have 2000 MB"),
        (["--model", "MODEL", "--instance-type", "ml.c7i.lrge"], "no instance type 'ml.c7i.lrge' for endpoints"),
        (["--model", "MODEL", "--name", "my_pets"], "endpoint 'my_pets': a name is up to 63 letters, digits and"),
        (["--model", "MODEL", "--ttl", "soon"], "--ttl 'soon': write minutes, hours or days"),
        (["--model", "MODEL", "--ttl", "5m"], "--ttl 5m: an endpoint takes minutes to start"),
        (["--model", "MODEL", "--scheduler-role", TRUSTING], "--scheduler-role is what --ttl deletes by: add --ttl"),
        (["--model", "MODEL", "--ttl", "2h"], "role kennel-execution does not trust scheduler.amazonaws.com: add it"),
        (["--model", "MODEL", "--ttl", "2h", "--scheduler-role", "deleter"], "'deleter' is no role's ARN"),
        (
            ["--model", "MODEL", "--mode", "multi-model", "--instance-type", "ml.g5.xlarge"],
            "are served on CPUs, and ml.",
        ),
        (
            ["--model", "s3://kennel-test-bucket/none/", "--mode", "multi-model"],
            "none/ holds no .tar.gz: name a folder",
        ),
        (["--job", "absent"], "absent"),
        (["--tuning-job", "absent"], "absent"),
    ],
)
def test_what_cannot_be_deployed_is_one_sentence(kennel: Kennel, model: str, words: list[str], said: str) -> None:
    assert said in kennel.refused("deploy", *[model if word == "MODEL" else word for word in words])


def test_a_scheduler_that_may_not_be_asked_for(kennel: Kennel, model: str) -> None:
    kennel.front.denied.add("GetRole")
    said = kennel.refused("deploy", "--model", model, "--ttl", "2h", "--yes")
    assert "can't be read" in said
    assert "give --scheduler-role ARN" in said


@pytest.mark.parametrize("refused", ["CreateEndpoint", "CreateEndpointConfig"])
def test_a_deployment_that_is_refused_half_way_leaves_nothing(kennel: Kennel, model: str, refused: str) -> None:
    kennel.front.denied.add(refused)
    done = kennel("deploy", "--model", model, "--ttl", "2h", "--scheduler-role", TRUSTING, "--yes")
    assert done.returncode == 2
    assert "AccessDeniedException: not yours" in done.stderr.splitlines()[-1]
    assert "CreateModel" in kennel.made()
    assert kennel.left() == NOTHING
    assert kennel.schedules() == []


def test_what_cannot_be_taken_back_is_named(kennel: Kennel, model: str) -> None:
    kennel.front.denied |= {"CreateEndpoint", "DeleteModel"}
    done = kennel("deploy", "--model", model, "--yes")
    assert done.returncode == 2
    *_, left, last = done.stderr.splitlines()
    assert left.startswith("left behind: delete model kennel-pets-")
    assert last.startswith("kennel deploy: create endpoint kennel-pets: ")
    assert kennel.left()["EndpointConfigs"] == []


def test_the_schedule_deletes_the_endpoint_once() -> None:
    request = ttl.schedule("pets", ttl.parse("2h"), "arn:aws-cn:iam::123456789012:role/deleter")
    at = datetime.strptime(request["ScheduleExpression"], "at(%Y-%m-%dT%H:%M:%S)").replace(tzinfo=UTC)
    assert timedelta(hours=1, minutes=50) < at - datetime.now(UTC) <= timedelta(hours=2)
    assert request["ScheduleExpressionTimezone"] == "UTC"
    assert request["ActionAfterCompletion"] == "DELETE"
    target = request["Target"]
    assert target["Arn"] == "arn:aws-cn:scheduler:::aws-sdk:sagemaker:deleteEndpoint"
    assert json.loads(target["Input"]) == {"EndpointName": "pets"}


@pytest.mark.parametrize(("text", "minutes"), [("10m", 10), ("90m", 90), ("2h", 120), ("1D", 1440)])
def test_times_to_live(text: str, minutes: int) -> None:
    assert ttl.parse(text) == timedelta(minutes=minutes)


def test_the_endpoints_own_role_deletes_where_its_trust_allows(kennel: Kennel, model: str) -> None:
    trust_the_scheduler(kennel.aws)
    done = kennel("deploy", "--model", model, "--ttl", "1d", "--dry-run")
    assert done.returncode == 0, done.stderr
    (schedule,) = [request for operation, request in shown(done.stdout) if operation == "CreateSchedule"]
    assert schedule["Name"] == JOB
    assert schedule["Target"]["RoleArn"] == kennel.aws.role


@pytest.mark.parametrize("name", ["pets", "p" * 63, "a-" + "b" * 50])
def test_versions_are_names_that_lead_back(name: str) -> None:
    version = specs.stamped(name, specs.stamp())
    assert specs.checked(version, "model") == version
    assert specs.is_version(version, name)
    assert not specs.is_version(version, "other")
    assert not specs.is_version(f"{name}-b", name)


def test_a_name_that_is_none() -> None:
    with pytest.raises(UserError, match="endpoint 'a_b'"):
        specs.checked("a_b", "endpoint")


def test_an_endpoint_is_put_into_service_updated_and_leaves_no_earlier_version(kennel: Kennel, programs: Path) -> None:
    said = in_service(kennel, "--name", "pets", "--ttl", "2h", "--scheduler-role", TRUSTING)
    assert "in service: kennel invoke pets PHOTO\n" in said
    assert "end it:     kennel delete pets\n" in said
    assert kennel.made()[-4:] == ["CreateModel", "CreateEndpointConfig", "CreateSchedule", "CreateEndpoint"]
    first = kennel.left()
    assert kennel.schedules() == ["pets"]
    model = f"s3://{kennel.aws.bucket}/kennel/jobs/{JOB}/output/model.tar.gz"
    words = ["deploy", "--model", model, "--name", "pets"]
    assert "is real-time and cannot become async" in kennel(*words, "--mode", "async").stderr
    assert "deleted automatically when an earlier --ttl said" in kennel(*words).stderr
    done = kennel(*words, "--engine", "fp32", "--ttl", "3h", "--scheduler-role", TRUSTING, "--yes")
    assert done.returncode == 0, done.stderr
    assert f"updates endpoint pets (now {first['Models'][0]})" in done.stderr
    assert [name for name in kennel.made() if name.startswith("Update")] == ["UpdateSchedule", "UpdateEndpoint"]
    second = kennel.left()
    assert second["Endpoints"] == ["pets"]
    assert len(second["Models"]) == len(second["EndpointConfigs"]) == 1
    assert second["Models"] != first["Models"]
    kennel.aws.fire("pets")
    wait_until_gone(kennel)
    done = kennel("delete", "pets", "--yes")
    assert done.returncode == 0, done.stderr
    assert kennel.left() == NOTHING
    assert kennel.schedules() == []


def test_an_update_that_sagemaker_takes_back_leaves_the_earlier_version(kennel: Kennel, model: str) -> None:
    kennel.aws.hold()
    first = kennel("deploy", "--model", model, "--name", "pets", "--dry-run")
    requests = dict(shown(first.stdout))
    client = kennel.aws.client("sagemaker")
    client.create_model(**requests["CreateModel"])
    client.create_endpoint_config(**requests["CreateEndpointConfig"])
    client.create_endpoint(**requests["CreateEndpoint"])
    before = kennel.left()
    kennel.aws.change("Endpoint", "pets", EndpointStatus="InService")
    scheduler = kennel.aws.client("scheduler")
    scheduler.create_schedule(**ttl.schedule("pets", ttl.parse("1d"), TRUSTING))
    deadline = scheduler.get_schedule(Name="pets")["ScheduleExpression"]
    time.sleep(1)  # versions are told apart by the second
    words = ["deploy", "--model", model, "--name", "pets", "--ttl", "2h", "--scheduler-role", TRUSTING, "--yes"]
    kennel.front.denied.add("UpdateEndpoint")
    assert "AccessDenied" in kennel(*words).stderr
    assert scheduler.get_schedule(Name="pets")["ScheduleExpression"] == deadline
    kennel.front.denied.clear()
    update = kennel.start(*words)
    while "UpdateEndpoint" not in kennel.made():
        assert update.poll() is None
    kennel.aws.change("Endpoint", "pets", EndpointStatus="InService", FailureReason="no capacity")
    _, stderr = update.communicate(timeout=100)
    assert update.returncode == 1
    assert f"endpoint pets is InService with its earlier model, {before['Models'][0]}: no capacity" in stderr
    assert kennel.left() == before
    assert scheduler.get_schedule(Name="pets")["ScheduleExpression"] == deadline
    assert kennel.made().count("UpdateSchedule") == 4  # each deadline was set, and taken back


def test_an_endpoint_whose_answer_was_lost_is_said_to_be_there(kennel: Kennel, model: str) -> None:
    kennel.aws.hold()
    kennel.front.lost.add("CreateEndpoint")
    done = kennel("deploy", "--model", model, "--name", "pets", "--yes")
    assert done.returncode == 2
    assert "whether pets was made or changed is not known: kennel status pets says it, kennel delete" in done.stderr
    left = kennel.left()
    assert left["Endpoints"] == ["pets"]
    assert len(left["Models"]) == len(left["EndpointConfigs"]) == 1
    assert kennel("delete", "pets", "--yes").returncode == 0
    kennel.front.lost.add("CreateModel")
    done = kennel("deploy", "--model", model, "--name", "pets", "--yes")
    assert done.returncode == 2
    assert kennel.left() == NOTHING


def test_a_model_that_does_not_start_leaves_its_reason_and_nothing_else(
    kennel: Kennel, programs: Path, tmp_path: Path
) -> None:
    broken = kennel.put("broken/model.tar.gz", packed(tmp_path, {"nothing.txt": b"here"}))
    done = kennel("deploy", "--model", broken, "--name", "pets", "--yes")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("kennel deploy: endpoint pets is Failed: The primary container for production variant")
    assert last.endswith("see its log, /aws/sagemaker/Endpoints/pets")
    wait_until_gone(kennel)
    assert kennel.left() == NOTHING


def test_a_jobs_model_is_served_by_the_jobs_own_image(kennel: Kennel, programs: Path, tmp_path: Path) -> None:
    client = kennel.aws.client("sagemaker")
    for path in pictures.photos(tmp_path / "photos", {"red": 8, "green": 8}).rglob("*.png"):
        kennel.put(f"photos/{path.parent.name}/{path.name}", path.read_bytes())
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{kennel.aws.bucket}/photos"}
    request = {
        "TrainingJobName": "job",
        "RoleArn": kennel.aws.role,
        "AlgorithmSpecification": {"TrainingImage": kennel.settings.pop("image"), "TrainingInputMode": "File"},
        "HyperParameters": pictures.TINY,
        "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": f"s3://{kennel.aws.bucket}/kennel/jobs"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
    client.create_training_job(**request)
    early = kennel("deploy", "--job", "job", "--dry-run")
    assert early.returncode == 2
    assert "training job job is InProgress and has no model to serve: wait until it has ended" in early.stderr
    while (status := client.describe_training_job(TrainingJobName="job")["TrainingJobStatus"]) == "InProgress":
        time.sleep(0.2)
    assert status == "Completed"
    done = kennel("deploy", "--job", "job", "--dry-run")
    assert done.returncode == 0, done.stderr
    (_, made), *_, (_, endpoint) = shown(done.stdout)
    assert made["PrimaryContainer"] == {
        "Image": request["AlgorithmSpecification"]["TrainingImage"],  # type: ignore[index]
        "ModelDataUrl": f"s3://{kennel.aws.bucket}/kennel/jobs/job/output/model.tar.gz",
    }
    assert endpoint["EndpointName"] == "job"
