"""`kennel delete`: what it finds by a name and by the tag, what it leaves alone, and what of S3 goes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kennel_launch.hosting import specs

from ...emulated_aws.client import Aws
from ..conftest import Command
from ..deployments import JOB, NOTHING, Kennel, in_service, of, shown, trained, wait_until_gone

DELETER = "arn:aws:iam::123456789012:role/deleter"


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    with of(aws, command, tmp_path) as kennel:
        yield kennel


def make(kennel: Kennel, name: str, *, tag: bool = True) -> None:
    """A model, a configuration and an endpoint of that name, as somebody else would make them."""
    client = kennel.aws.client("sagemaker")
    tags = [{"Key": "kennel", "Value": "1"}] if tag else []
    data = kennel.put(f"kennel/jobs/{name}/output/model.tar.gz")
    container = {"Image": kennel.settings["image"], "ModelDataUrl": data}
    client.create_model(ModelName=name, ExecutionRoleArn=kennel.aws.role, PrimaryContainer=container, Tags=tags)
    variant = {"VariantName": "one", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tags)
    client.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=tags)


def test_an_endpoint_goes_with_all_that_was_made_for_it(kennel: Kennel, programs: Path) -> None:
    in_service(kennel, "--name", "pets", "--ttl", "2h", "--scheduler-role", DELETER)
    version = kennel.left()["Models"][0]
    make(kennel, "other")
    kennel.put("kennel/async/pets/output/1.out")
    kennel.put("kennel/async/pets2/output/1.out")
    words = ["delete", "pets", "--data"]
    shows = [
        "removes endpoint pets",
        "removes schedule pets",
        f"removes endpoint configuration {version}",
        f"removes model {version}",
        f"removes all under s3://{kennel.aws.bucket}/kennel/async/pets/",
        f"removes all under s3://{kennel.aws.bucket}/kennel/jobs/{JOB}/",
    ]
    asked = kennel(*words)
    assert asked.returncode == 2
    *lines, refusal = asked.stderr.splitlines()
    assert lines == shows
    assert "add --yes" in refusal
    dry = kennel(*words, "--dry-run")
    assert [operation for operation, _ in shown(dry.stdout)] == [
        "DeleteEndpoint",
        "DeleteSchedule",
        "DeleteEndpointConfig",
        "DeleteModel",
        "DeleteObjects",
        "DeleteObjects",
    ]
    assert kennel.left()["Endpoints"] == ["other", "pets"]
    done = kennel(*words, "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *(line.replace("removes", "removed", 1) for line in shows[:4]),
        f"removed 1 objects under s3://{kennel.aws.bucket}/kennel/async/pets/",
        f"removed 1 objects under s3://{kennel.aws.bucket}/kennel/jobs/{JOB}/",
    ]
    while "pets" in kennel.left()["Endpoints"]:
        pass
    assert kennel.left() == {kind: ["other"] for kind in NOTHING}
    assert kennel.schedules() == []
    assert kennel.keys() == ["kennel/async/pets2/output/1.out", "kennel/jobs/other/output/model.tar.gz"]
    again = kennel(*words, "--yes")
    assert again.returncode == 2
    assert again.stderr == (
        "kennel delete: nothing of the name pets is in eu-west-1: kennel status lists what there is\n"
    )


def test_what_a_time_to_live_has_left_is_found_without_the_endpoint(kennel: Kennel) -> None:
    kennel.aws.hold()
    for name in ("pets-20260101-120000", "pets-20260102-120000", "pets-two-20260101-120000", "pets-x"):
        make(kennel, name)
        kennel.aws.client("sagemaker").delete_endpoint(EndpointName=name)
    done = kennel("delete", "pets", "--yes")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    kept = ["pets-two-20260101-120000", "pets-x"]
    assert kennel.left() == {"Models": kept, "EndpointConfigs": kept, "Endpoints": []}


def test_all_is_what_has_our_tag(kennel: Kennel) -> None:
    kennel.aws.hold()
    for i in range(12):  # more than a page
        make(kennel, f"ours-{i}")
    make(kennel, "theirs", tag=False)
    done = kennel("delete", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 36
    assert kennel.left() == {kind: ["theirs"] for kind in NOTHING}
    assert len(kennel.keys("kennel/jobs")) == 13
    assert "nothing tagged kennel=1 is in eu-west-1" in kennel("delete", "--all", "--yes").stderr


def test_a_schedule_of_that_name_that_does_something_else_stays(kennel: Kennel) -> None:
    target = {
        "Arn": "arn:aws:scheduler:::aws-sdk:sqs:purgeQueue",
        "RoleArn": DELETER,
        "Input": json.dumps({"QueueUrl": "q"}),
    }
    kennel.aws.client("scheduler").create_schedule(
        Name="pets", ScheduleExpression="rate(1 day)", FlexibleTimeWindow={"Mode": "OFF"}, Target=target
    )
    kennel.aws.hold()
    make(kennel, "pets")
    assert kennel("delete", "pets", "--yes").returncode == 0
    assert kennel.schedules() == ["pets"]


def test_the_data_of_a_job_without_an_endpoint(kennel: Kennel) -> None:
    kennel.put("kennel/models/pets/a.tar.gz")
    kennel.put("kennel/jobs/pets/output/model.tar.gz")  # of no job that SageMaker knows: stays
    done = kennel("delete", "pets", "--data", "--yes")
    assert done.returncode == 0, done.stderr
    assert kennel.keys() == ["kennel/jobs/pets/output/model.tar.gz"]


def test_what_lies_elsewhere_in_s3_is_left_alone(kennel: Kennel) -> None:
    kennel.aws.hold()
    make(kennel, "pets")
    elsewhere = kennel("delete", "pets", "--data", "--prefix", "another", "--yes")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert kennel.keys() == ["kennel/jobs/pets/output/model.tar.gz"]


def test_an_endpoint_that_starts_is_waited_for(kennel: Kennel, programs: Path) -> None:
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz", trained())
    starting = kennel.start("deploy", "--model", model, "--name", "pets", "--yes")
    while "CreateEndpoint" not in kennel.made():
        assert starting.poll() is None
    done = kennel("delete", "pets", "--yes")
    starting.communicate(timeout=60)
    assert done.returncode == 0, done.stderr
    assert "pets is just changing, and goes as soon as it can" in done.stderr
    wait_until_gone(kennel)
    assert kennel.left() == NOTHING


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name an endpoint, or write --all"),
        (["pets", "--all"], "name an endpoint, or write --all"),
        (["--all", "--data"], "--all leaves S3 as it is"),
        (["my_pets"], "endpoint 'my_pets': a name is up to 63"),
        (["pets"], "nothing of the name pets is in eu-west-1"),
        (["pets", "--data"], "nothing of the name pets is in eu-west-1"),
        (["--all"], "nothing tagged kennel=1 is in eu-west-1"),
    ],
)
def test_what_cannot_be_deleted_is_one_sentence(kennel: Kennel, words: list[str], said: str) -> None:
    assert said in kennel.refused("delete", *words, "--yes")


def test_a_right_that_is_missing_is_said_with_what_is_gone(kennel: Kennel) -> None:
    kennel.aws.hold()
    make(kennel, "pets")
    kennel.front.denied.add("DeleteModel")
    done = kennel("delete", "pets", "--yes")
    assert done.returncode == 2
    assert done.stdout.splitlines() == ["removed endpoint pets", "removed endpoint configuration pets"]
    assert "model pets: AWS refuses (AccessDeniedException: not yours)" in done.stderr.splitlines()[-1]


def test_an_endpoint_is_deleted_without_the_right_to_look_at_schedules(kennel: Kennel) -> None:
    kennel.aws.hold()
    make(kennel, "pets")
    kennel.aws.deny("scheduler", "GetSchedule")
    done = kennel("delete", "pets", "--yes")
    assert done.returncode == 0, done.stderr
    assert "not known: whether a schedule deletes pets: AWS refuses (AccessDeniedException" in done.stderr
    assert kennel.left() == NOTHING


def test_a_model_that_lies_among_all_else_takes_nothing_else_with_it(kennel: Kennel) -> None:
    kennel.aws.hold()
    client = kennel.aws.client("sagemaker")
    for key in ("kennel/output/model.tar.gz", "kennel/jobs/output/model.tar.gz"):
        name = key.split("/")[1]
        container = {"Image": kennel.settings["image"], "ModelDataUrl": kennel.put(key)}
        version = specs.stamped("pets", "20260101-00000" + str(len(name) % 10))
        client.create_model(ModelName=version, ExecutionRoleArn=kennel.aws.role, PrimaryContainer=container)
    kennel.put("kennel/data/pets/ant/0.jpg")
    kennel.put("kennel/jobs/other/output/model.tar.gz")
    before = kennel.keys("kennel")
    done = kennel("delete", "pets", "--data", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("removed model pets-") == 2
    assert kennel.keys("kennel") == before
