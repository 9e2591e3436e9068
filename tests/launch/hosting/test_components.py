"""Endpoints that scale to zero: the component, its scaling and its alarm; what wakes it; and that nothing is left."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ...emulated_aws.client import Aws
from ...emulated_aws.runners import pictures
from ..conftest import Command
from ..deployments import JOB, NOTHING, Kennel, images, in_service, of, packed, shown, wait_until_gone

RESOURCE = "inference-component/pets"
ALARM = "kennel-pets-no-capacity"


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    with of(aws, command, tmp_path) as kennel:
        yield kennel


def words(kennel: Kennel, *more: str) -> list[str]:
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz")
    return ["deploy", "--model", model, "--name", "pets", "--scale-to-zero", *more]


def left(kennel: Kennel) -> dict[str, list[str]]:
    """The names of components, scalable targets, policies and alarms."""
    scaling, sagemaker = kennel.aws.client("application-autoscaling"), kennel.aws.client("sagemaker")
    targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    policies = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    components = sagemaker.list_inference_components()["InferenceComponents"]
    alarms = kennel.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    return {
        "components": [row["InferenceComponentName"] for row in components],
        "targets": [row["ResourceId"] for row in targets],
        "policies": [row["PolicyName"] for row in policies],
        "alarms": sorted(row["AlarmName"].rsplit("-", 5)[0] for row in alarms if row["AlarmName"] != ALARM)
        + [row["AlarmName"] for row in alarms if row["AlarmName"] == ALARM],
    }


EMPTY: dict[str, list[str]] = {"components": [], "targets": [], "policies": [], "alarms": []}


def test_a_dry_run_prints_the_component_and_what_wakes_it(kennel: Kennel) -> None:
    vpc = ("--subnets", "subnet-1", "--security-groups", "sg-1")
    done = kennel(*words(kennel, "--instance-type", "ml.c7i.large", *vpc, "--dry-run"))
    assert done.returncode == 0, done.stderr
    calls = shown(done.stdout)
    assert [operation for operation, _ in calls] == [
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "CreateInferenceComponent",
        "RegisterScalableTarget",
        "PutScalingPolicy",
        "PutScalingPolicy",
        "PutMetricAlarm",
    ]
    config, component, target, tracking, step, alarm = (request for _, request in (calls[1], *calls[3:]))
    (variant,) = config["ProductionVariants"]
    assert variant == {
        "VariantName": "AllTraffic",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.c7i.large",
        "ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 1},
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    }
    assert config["ExecutionRoleArn"] == kennel.aws.role
    assert config["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert component["Specification"] == {
        "ModelName": config["EndpointConfigName"],
        "ComputeResourceRequirements": {"NumberOfCpuCoresRequired": 1, "MinMemoryRequiredInMb": 1024},
    }
    assert (target["ResourceId"], target["MinCapacity"], target["MaxCapacity"]) == (RESOURCE, 0, 1)
    assert tracking["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"
    }
    assert step["PolicyType"] == "StepScaling"
    assert alarm["MetricName"] == "NoCapacityInvocationFailures"
    assert alarm["Dimensions"] == [{"Name": "InferenceComponentName", "Value": "pets"}]
    assert (kennel.left(), left(kennel)) == (NOTHING, EMPTY)


def test_an_endpoint_without_instances_is_woken_by_the_first_photo_and_leaves_nothing(
    kennel: Kennel, programs: Path, tmp_path: Path
) -> None:
    in_service(kennel, "--name", "pets", "--scale-to-zero")
    sides = [f"TargetTracking-{RESOURCE}-Alarm{side}" for side in ("High", "Low")]
    assert left(kennel) == {
        "components": ["pets"],
        "targets": [RESOURCE],
        "policies": ["kennel-invocations-per-instance", "kennel-from-zero"],
        "alarms": [*sides, ALARM],
    }
    assert "scales:              0 to 1 instances at 1 requests a minute each\n" in kennel("status", "pets").stdout
    photo = str(pictures.photos(tmp_path / "new", {"red": 1}) / "red" / "0.png")
    assert kennel("invoke", "pets", photo).returncode == 0
    none = {"DesiredCopyCount": 0, "CurrentCopyCount": 0}
    kennel.aws.change("InferenceComponent", "pets", RuntimeConfig=none)
    woken = kennel("invoke", "pets", photo, "--json")
    assert woken.returncode == 0, woken.stderr
    assert "endpoint pets has no instance: this request starts one, in some minutes" in woken.stderr
    assert json.loads(woken.stdout)["predictions"]
    again = kennel(*words(kennel, "--yes"))
    assert again.returncode == 2
    assert "endpoint pets can't be updated to or from --scale-to-zero" in again.stderr
    asked = kennel("delete", "pets", "--dry-run")
    assert [line.split(" pets")[0] for line in asked.stderr.splitlines()[:6]] == [
        f"removes alarm {ALARM}",
        "removes scaling policy kennel-invocations-per-instance",
        "removes scaling policy kennel-from-zero",
        f"removes scalable target {RESOURCE}",
        "removes inference component",
        "removes endpoint",
    ]
    done = kennel("delete", "pets", "--yes")
    assert done.returncode == 0, done.stderr
    wait_until_gone(kennel)
    assert (kennel.left(), left(kennel)) == (NOTHING, EMPTY)


@pytest.mark.parametrize(
    "refused", ["CreateInferenceComponent", "RegisterScalableTarget", "PutScalingPolicy", "PutMetricAlarm"]
)
def test_what_is_refused_half_way_leaves_nothing(kennel: Kennel, refused: str) -> None:
    kennel.aws.hold(at_once=True)
    kennel.front.denied.add(refused)
    done = kennel(*words(kennel, "--yes"))
    assert done.returncode == 2, done.stderr
    assert "AccessDeniedException: not yours" in done.stderr.splitlines()[-1]
    assert (kennel.left(), left(kennel)) == (NOTHING, EMPTY)


def test_a_model_that_does_not_start_as_a_component_leaves_its_reason_and_nothing_else(
    kennel: Kennel, programs: Path, tmp_path: Path
) -> None:
    broken = kennel.put("broken/model.tar.gz", packed(tmp_path, {"nothing.txt": b"here"}))
    done = kennel("deploy", "--model", broken, "--name", "pets", "--scale-to-zero", "--yes")
    assert done.returncode == 1, done.stderr
    assert "inference component pets is Failed: " in done.stderr.splitlines()[-1]
    wait_until_gone(kennel)
    assert (kennel.left(), left(kennel)) == (NOTHING, EMPTY)


def test_copies_up_to_a_number_on_a_gpu(kennel: Kennel) -> None:
    kennel.aws.hold(at_once=True)
    more = ("--instance-type", "ml.g5.xlarge", "--autoscale", "0..3", "--invocations-per-instance", "90")
    done = kennel(*words(kennel, *more, "--image", images(kennel.front)[0], "--yes"))
    assert done.returncode == 0, done.stderr
    assert "0 to 3 × ml.g5.xlarge: about $0.00 to $4.50 an hour" in done.stderr
    assert "that request is refused, and so are all others until it runs, for minutes" in done.stderr
    (asked,) = kennel.aws.asked("sagemaker", "CreateInferenceComponent")
    assert asked["Specification"]["ComputeResourceRequirements"]["NumberOfAcceleratorDevicesRequired"] == 1
    time.sleep(1)
    model = kennel.put("m/model.tar.gz")
    plain = kennel("deploy", "--model", model, "--name", "pets", "--yes")
    assert "can't be updated to or from --scale-to-zero" in plain.stderr
    assert kennel("delete", "--all", "--yes").returncode == 0
    assert (kennel.left(), left(kennel)) == (NOTHING, EMPTY)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--mode", "async"], "--scale-to-zero is of real-time endpoints, and this one is async"),
        (["--instances", "2"], "--scale-to-zero begins with one instance and has none while idle"),
        (["--ttl", "2h"], "leave one of --ttl, --scale-to-zero out"),
        (["--autoscale", "1..2", "--invocations-per-instance", "9"], "zero is what --scale-to-zero begins at"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(kennel: Kennel, more: list[str], said: str) -> None:
    assert said in kennel.refused(*words(kennel, *more))
