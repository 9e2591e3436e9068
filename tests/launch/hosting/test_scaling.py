"""Endpoints with several instances: what is registered of them, what an update keeps, and that nothing is left."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ...emulated_aws.client import Aws
from ..conftest import Command
from ..deployments import NOTHING, Kennel, images, of, shown

RESOURCE = "endpoint/pets/variant/AllTraffic"
SCALED = ("--autoscale", "2..4", "--invocations-per-instance", "300")


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    """Endpoints are in service as soon as they are asked for."""
    with of(aws, command, tmp_path) as kennel:
        aws.hold(at_once=True)
        yield kennel


def words(kennel: Kennel, *more: str) -> list[str]:
    model = kennel.put("kennel/jobs/job/output/model.tar.gz")
    return ["deploy", "--model", model, "--name", "pets", *more]


def deployed(kennel: Kennel, *more: str) -> str:
    """A deployment that works; what it said."""
    if kennel.left()["Endpoints"]:
        time.sleep(1)  # versions differ by the second
    done = kennel(*words(kennel, *more), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def registered(kennel: Kennel) -> list[tuple[str, int, int]]:
    client = kennel.aws.client("application-autoscaling")
    rows = client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    return [(row["ResourceId"], row["MinCapacity"], row["MaxCapacity"]) for row in rows]


def policies(kennel: Kennel) -> dict[str, float]:
    client = kennel.aws.client("application-autoscaling")
    rows = client.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    return {row["PolicyName"]: row["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] for row in rows}


def alarms(kennel: Kennel) -> list[str]:
    found = kennel.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    return [row["AlarmName"].rsplit("-", 5)[0] for row in found]


def variant(kennel: Kennel) -> dict[str, Any]:
    (found,) = kennel.aws.client("sagemaker").describe_endpoint(EndpointName="pets")["ProductionVariants"]
    return dict(found)


def gone(kennel: Kennel) -> bool:
    """Whether `kennel delete` leaves nothing of it."""
    done = kennel("delete", "pets", "--yes")
    assert done.returncode == 0, done.stderr
    return kennel.left() == NOTHING and not registered(kennel) and not policies(kennel) and not alarms(kennel)


def test_an_endpoint_that_scales_is_registered_once_it_is_in_service_and_leaves_nothing(kennel: Kennel) -> None:
    dry = kennel(*words(kennel, *SCALED), "--dry-run")
    assert dry.returncode == 0, dry.stderr
    requests = dict(shown(dry.stdout))
    assert [*requests][-3:] == ["CreateEndpoint", "RegisterScalableTarget", "PutScalingPolicy"]
    assert requests["CreateEndpointConfig"]["ProductionVariants"][0]["InitialInstanceCount"] == 2
    named = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": RESOURCE,
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    assert requests["RegisterScalableTarget"] == named | {"MinCapacity": 2, "MaxCapacity": 4}
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    assert requests["PutScalingPolicy"] == named | {
        "PolicyName": "kennel-invocations-per-instance",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 300.0, "PredefinedMetricSpecification": metric},
    }
    assert kennel.left() == NOTHING
    said = deployed(kennel, *SCALED, "--ttl", "2h", "--scheduler-role", "arn:aws:iam::123456789012:role/deleter")
    assert "role/deleter must have the right application-autoscaling:DeregisterScalableTarget" in said
    assert "  scales automatically: 2 to 4 instances at 300 requests a minute each\n" in said
    assert "2 to 4 × ml.c7i.large: about $0.25 to $0.50 an hour, $6.00 to $12.00 a day until it is deleted" in said
    assert registered(kennel) == [(RESOURCE, 2, 4)]
    assert policies(kennel) == {"kennel-invocations-per-instance": 300}
    assert alarms(kennel) == [f"TargetTracking-{RESOURCE}-Alarm{side}" for side in ("High", "Low")]
    status = kennel("status", "pets")
    assert "variant AllTraffic:  2 machines\n" in status.stdout
    assert "scales:              2 to 4 instances at 300 requests a minute each\n" in status.stdout
    asked = kennel("delete", "pets", "--dry-run")
    assert asked.stderr.splitlines()[:4] == [
        "removes scaling policy kennel-invocations-per-instance",
        f"removes scalable target {RESOURCE}",
        "removes endpoint pets",
        "removes schedule pets",
    ]
    assert gone(kennel)


def test_an_update_keeps_the_number_of_instances_that_scaling_has_reached(kennel: Kennel) -> None:
    deployed(kennel, *SCALED)
    client = kennel.aws.client("application-autoscaling")
    named = {"ServiceNamespace": "sagemaker", "ResourceId": RESOURCE}
    named["ScalableDimension"] = "sagemaker:variant:DesiredInstanceCount"
    client.register_scalable_target(**named, MinCapacity=3, MaxCapacity=6)
    before = len(kennel.made())
    said = deployed(kennel)
    assert "  scales as before, 3 to 6 instances at 300 requests a minute each\n" in said
    assert "3 to 6 × ml.c7i.large: about $0.38 to $0.75 an hour" in said
    assert kennel.made()[before:] == [
        "CreateModel",
        "CreateEndpointConfig",
        "UpdateEndpoint",
        "DeleteEndpointConfig",
        "DeleteModel",
    ]
    assert kennel.aws.asked("sagemaker", "UpdateEndpoint")[-1]["RetainAllVariantProperties"] is True
    assert variant(kennel)["DesiredInstanceCount"] == 3
    assert registered(kennel) == [(RESOURCE, 3, 6)]


def test_an_update_to_another_instance_type_takes_scaling_off_and_puts_all_of_it_back(kennel: Kennel) -> None:
    deployed(kennel, *SCALED)
    client = kennel.aws.client("application-autoscaling")
    named = {"ServiceNamespace": "sagemaker", "ResourceId": RESOURCE}
    named["ScalableDimension"] = "sagemaker:variant:DesiredInstanceCount"
    night = {"ScheduledActionName": "night", "Schedule": "cron(0 22 * * ? *)"}
    client.put_scheduled_action(**named, **night, ScalableTargetAction={"MinCapacity": 1, "MaxCapacity": 1})
    before = kennel.left()
    kennel.front.denied.add("UpdateEndpoint")
    refused = kennel(*words(kennel, "--instance-type", "ml.m5.xlarge", "--yes"))
    assert refused.returncode == 2
    assert kennel.left() == before
    assert (registered(kennel), policies(kennel)) == ([(RESOURCE, 2, 4)], {"kennel-invocations-per-instance": 300})
    kennel.front.denied.clear()
    said = deployed(kennel, "--instance-type", "ml.m5.xlarge")
    assert "but not while it changes" in said
    assert "that was for another instance type: kennel invoke pets PHOTO --load measures this one" in said
    assert (registered(kennel), policies(kennel)) == ([(RESOURCE, 2, 4)], {"kennel-invocations-per-instance": 300})
    (action,) = client.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"]
    assert action["Schedule"] == night["Schedule"]
    assert gone(kennel)


def test_scaling_is_replaced_by_another_and_ended_by_a_fixed_number(kennel: Kennel) -> None:
    deployed(kennel, *SCALED)
    said = deployed(kennel, "--autoscale", "1..3", "--invocations-per-instance", "90")
    assert "1 to 3 instances at 90 requests a minute each, instead of 2 to 4 instances at 300" in said
    assert (registered(kennel), policies(kennel)) == ([(RESOURCE, 1, 3)], {"kennel-invocations-per-instance": 90})
    assert variant(kennel)["DesiredInstanceCount"] == 2
    said = deployed(kennel, "--instances", "3")
    assert "scales no longer (1 to 3 instances at 90 requests a minute each): --instances fixes the number" in said
    assert "3 × ml.c7i.large: about $0.38 an hour" in said
    assert (registered(kennel), policies(kennel), alarms(kennel)) == ([], {}, [])
    assert variant(kennel)["DesiredInstanceCount"] == 3


def test_what_cannot_be_registered_leaves_no_new_endpoint_and_an_updated_one_as_it_is(kennel: Kennel) -> None:
    kennel.front.denied.add("PutScalingPolicy")
    done = kennel(*words(kennel, *SCALED), "--yes")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "kennel deploy: put scaling policy kennel-invocations-per-instance: "
    )
    assert (kennel.left(), registered(kennel)) == (NOTHING, [])
    kennel.front.denied.clear()
    deployed(kennel)
    kennel.front.denied.add("RegisterScalableTarget")
    time.sleep(1)
    done = kennel(*words(kennel, *SCALED), "--yes")
    assert done.returncode == 2
    assert "endpoint pets is in service, and does not scale automatically" in done.stderr
    assert [len(names) for names in kennel.left().values()] == [1, 1, 1]
    kennel.front.denied.add("DescribeScalableTargets")
    made = kennel.made()
    done = kennel(*words(kennel, *SCALED), "--yes")
    assert "whether pets is scaled automatically: AWS refuses (AccessDeniedException" in done.stderr.splitlines()[-1]
    assert kennel.made() == made
    assert kennel("delete", "pets", "--yes").returncode == 0
    assert kennel.left() == NOTHING


def test_all_that_is_tagged_goes_with_its_scaling(kennel: Kennel) -> None:
    deployed(kennel, *SCALED)
    done = kennel("delete", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert (kennel.left(), registered(kennel), alarms(kennel)) == (NOTHING, [], [])


def test_a_serverless_endpoint_with_provisioned_concurrency(kennel: Kennel) -> None:
    said = deployed(kennel, "--mode", "serverless", "--max-concurrency", "4", "--provisioned", "2")
    assert "and 2 provisioned for as long as the endpoint is there, idle or not" in said
    config = variant(kennel)["CurrentServerlessConfig"]
    assert config == {"MemorySizeInMB": 3072, "MaxConcurrency": 4, "ProvisionedConcurrency": 2}
    assert "serverless, 2 provisioned" in kennel("status", "pets").stdout
    assert gone(kennel)


def test_other_instance_types_where_there_is_none_of_the_first(kennel: Kennel) -> None:
    said = deployed(kennel, "--fallback", "ml.m5.xlarge,ml.c6i.large", "--instances", "2")
    assert "  where there is no ml.c7i.large: ml.m5.xlarge, then ml.c6i.large\n" in said
    assert "2 × ml.m5.xlarge: about $0.50 an hour" in said
    (config,) = kennel.aws.asked("sagemaker", "CreateEndpointConfig")
    (made,) = config["ProductionVariants"]
    types = ("ml.c7i.large", "ml.m5.xlarge", "ml.c6i.large")
    assert made["InstancePools"] == [{"InstanceType": kind, "Priority": i} for i, kind in enumerate(types, 1)]
    assert "InstanceType" not in made
    assert "variant AllTraffic:  2 machines (2 × ml.c7i.large)\n" in kennel("status", "pets").stdout
    said = deployed(kennel)
    assert variant(kennel)["DesiredInstanceCount"] == 2
    assert "2 × ml.c7i.large: about $0.25 an hour" in said
    assert gone(kennel)


def test_hosts_that_need_different_systems_do_not_stand_in_for_each_other(kennel: Kennel) -> None:
    more = ("--image", images(kennel.front)[0], "--fallback", "ml.g5.xlarge")
    said = kennel.refused(*words(kennel, *more, "--yes"))
    assert "ml.g5.xlarge needs another system than ml.c7i.large" in said


def test_captured_photos_are_the_users_until_the_data_goes(kennel: Kennel) -> None:
    said = deployed(kennel, "--capture", "10%", "--kms-key", "alias/mine")
    folder = f"s3://{kennel.aws.bucket}/kennel/capture/pets/"
    assert f"captures 10% of the requests, photos and answers, under {folder}" in said
    assert "a million requests of 1 MB each: 133 GB there" in said
    (config,) = kennel.aws.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]
    made = kennel.aws.client("sagemaker").describe_endpoint_config(EndpointConfigName=config["EndpointConfigName"])
    assert made["DataCaptureConfig"] == {
        "EnableCapture": True,
        "InitialSamplingPercentage": 10,
        "DestinationS3Uri": folder,
        "KmsKeyId": "alias/mine",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
    }
    assert f"captures:            10% of the requests, under {folder}\n" in kennel("status", "pets").stdout
    assert f"captures no longer; what there is stays under {folder}" in kennel(*words(kennel)).stderr
    kennel.put("kennel/capture/pets/AllTraffic/2026/11/28/09/1.jsonl")
    done = kennel("delete", "pets", "--yes")
    assert f"keeps what was captured, under {folder}: --data removes it" in done.stderr
    assert kennel.left() == NOTHING
    assert kennel.keys("kennel/capture")
    assert kennel("delete", "pets", "--data", "--yes").returncode == 0
    assert kennel.keys("kennel/capture") == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--instances", "0"], "--instances 0: write a whole number from 1"),
        (
            ["--autoscale", "2..4"],
            "add --invocations-per-instance N, which kennel invoke ENDPOINT PHOTO --load measures",
        ),
        (["--invocations-per-instance", "9"], "is what --autoscale aims at: add --autoscale MIN..MAX"),
        (
            ["--autoscale", "4..2", "--invocations-per-instance", "9"],
            "--autoscale '4..2': write the least and the most",
        ),
        (
            ["--autoscale", "0..2", "--invocations-per-instance", "9"],
            "--autoscale 0..2: zero is what --scale-to-zero begins at",
        ),
        (["--autoscale", "1..2", "--invocations-per-instance", "0"], "--invocations-per-instance 0: write a whole"),
        ([*SCALED, "--instances", "5"], "--instances 5: it is not within --autoscale 2..4"),
        ([*SCALED, "--mode", "async"], "an asynchronous endpoint would scale by its backlog"),
        ([*SCALED, "--mode", "serverless"], "a serverless endpoint has no instances and scales by itself"),
        (["--provisioned", "2"], "--provisioned is of serverless endpoints: add --mode serverless"),
        (["--mode", "serverless", "--provisioned", "6"], "the endpoint takes 5 requests at once: write at most that"),
        (["--fallback", "ml.c7i.large"], "write up to 4 other instance types than ml.c7i.large, by commas"),
        (["--fallback", "ml.c6i.lrge", "--yes"], "no instance type 'ml.c6i.lrge' for endpoints"),
        ([*SCALED, "--fallback", "ml.c6i.large"], "--fallback and scaling: what one instance carries differs by its"),
        (["--fallback", "ml.c6i.large", "--mode", "multi-model"], "--fallback is of real-time and async endpoints"),
        (["--fallback", "ml.c6id.large", "--kms-key", "k"], "some encrypt their own disks and take no key"),
        (["--capture", "0%"], "--capture '0%': write a percentage of the requests"),
        (["--capture", "10%", "--mode", "async"], "--capture is of real-time endpoints, and this one is async"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(kennel: Kennel, more: list[str], said: str) -> None:
    assert said in kennel.refused(*words(kennel, *more))


def test_more_instances_than_the_quota_allows(kennel: Kennel) -> None:
    kennel.aws.quota("ml.c7i.large for endpoint usage", 3)
    assert "is 3 in eu-west-1, 4 needed" in kennel.refused(*words(kennel, *SCALED, "--yes"))
