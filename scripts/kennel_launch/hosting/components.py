"""An endpoint that scales to zero: its model is an inference component, whose copies bring and release the instances.

https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-zero-instances.html (2026-11)
"""

import sys
import time
from collections.abc import Iterable
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import instance_types, session
from kennel_launch.console.steps import Show
from kennel_launch.hosting import rollout, scaling, specs
from kennel_launch.hosting.rollout import Call, FailedError
from kennel_launch.hosting.specs import EndpointPlan
from kennel_launch.settings import Settings

# What one copy must have to be placed at all: the rest of the instance is shared by those that are on it.
_CORES, _MEGABYTES, _GPUS = 1, 1024, 1
_CHANGING = ("Creating", "Updating", "Deleting")


def component(plan: EndpointPlan, settings: Settings) -> dict[str, Any]:
    """CreateInferenceComponent's request; one copy, which shows that the model works."""
    needs: dict[str, Any] = {"NumberOfCpuCoresRequired": _CORES, "MinMemoryRequiredInMb": _MEGABYTES}
    if instance_types.has_gpu(plan.instance_type):
        needs["NumberOfAcceleratorDevicesRequired"] = _GPUS
    return {
        "InferenceComponentName": plan.name,
        "EndpointName": plan.name,
        "VariantName": specs.VARIANT,
        "Specification": {"ModelName": plan.version, "ComputeResourceRequirements": needs},
        "RuntimeConfig": {"CopyCount": 1},
        "Tags": kennel_settings.tags(settings),
    }


def alarm_name(endpoint: str) -> str:
    return f"kennel-{endpoint}-no-capacity"


def _alarm(plan: EndpointPlan, policy: str, settings: Settings) -> Call:
    """What wakes it: a request that no copy could take starts the policy of that ARN."""
    request = {
        "AlarmName": alarm_name(plan.name),
        "AlarmDescription": f"kennel deploy --scale-to-zero: the first request starts an instance of {plan.name}",
        "AlarmActions": [policy],
        "Namespace": "AWS/SageMaker",
        "MetricName": "NoCapacityInvocationFailures",
        "Dimensions": [{"Name": "InferenceComponentName", "Value": plan.name}],
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "DatapointsToAlarm": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "Tags": kennel_settings.tags(settings),
    }
    return Call("cloudwatch", "put_metric_alarm", request, "AlarmName")


def put(plan: EndpointPlan, settings: Settings, show: Show | None) -> None:
    """The component on an endpoint in service, and then its scaling; all of it, or nothing is left.

    Args:
        show: what happens meanwhile; None: nothing is sent or waited for, as by --dry-run.

    Raises:
        FailedError: SageMaker could not start it; with its reason.
        UserError: AWS refuses.
    """
    try:
        rollout.send(
            [Call("sagemaker", "create_inference_component", component(plan, settings), "InferenceComponentName")],
            settings,
        )
        if show:
            _wait(plan.name, settings, show)
        answers = rollout.send(scaling.of_component(plan), settings)
        rollout.send([_alarm(plan, answers[-1]["PolicyARN"], settings)], settings)
    except BaseException:  # Ctrl-C, too
        if show:
            _take_back(plan.name, settings)
        raise


def _take_back(name: str, settings: Settings) -> None:
    try:
        for call in removal(name, (), settings, component=True):
            with session.translate_errors(f"{call.operation.replace('_', ' ')} {call.name}"):
                session.describe(session.client(call.service, settings), call.operation, **call.request)
        wait_until_gone(name, settings)
    except UserError as error:
        print(f"left behind: {error}", file=sys.stderr)


def removal(name: str, variants: Iterable[str], settings: Settings, *, component: bool) -> list[Call]:
    """What is there of an endpoint's scaling, its component and that one's alarm, in the order in which it goes.

    Args:
        component: it may have one; else that is not asked for, which needs rights of its own.

    Raises:
        UserError: AWS does not say.
    """
    found = scaling.removal(scaling.of_endpoint(name, variants, settings))
    if not component and not any(call.name == scaling.component_resource(name) for call in found):
        return found
    with session.translate_errors(f"inference component {name}"):
        there = of_endpoint(session.client("sagemaker", settings), name) is not None
        alarms = session.client("cloudwatch", settings).describe_alarms(AlarmNames=[alarm_name(name)])["MetricAlarms"]
    calls = [Call("cloudwatch", "delete_alarms", {"AlarmNames": [alarm_name(name)]}, "AlarmNames")] if alarms else []
    calls += found
    if there:
        request = {"InferenceComponentName": name}
        calls.append(Call("sagemaker", "delete_inference_component", request, "InferenceComponentName"))
    return calls


def of_endpoint(client: Any, name: str) -> dict[str, Any] | None:
    """The component of that name, where it is that endpoint's."""
    found = session.describe(client, "describe_inference_component", InferenceComponentName=name)
    return found if found and found["EndpointName"] == name else None


def wait_until_gone(name: str, settings: Settings) -> None:
    """An endpoint is deleted after its components only.

    Raises:
        UserError: AWS does not say, or it stays.
    """
    client = session.client("sagemaker", settings)
    for pause in rollout.pauses():
        with session.translate_errors(f"inference component {name}"):
            found = of_endpoint(client, name)
        if found is None:
            return
        if found["InferenceComponentStatus"] != "Deleting":
            raise UserError(
                f"inference component {name} stays, and is {found['InferenceComponentStatus']} "
                f"({found.get('FailureReason') or 'SageMaker gives no reason'}): kennel delete {name} tries it again"
            )
        time.sleep(pause)


def _wait(name: str, settings: Settings, show: Show) -> None:
    client = session.client("sagemaker", settings)
    for pause in rollout.pauses():
        with session.translate_errors(f"inference component {name}"):
            found = of_endpoint(client, name) or {"InferenceComponentStatus": "gone"}
        status = found["InferenceComponentStatus"]
        show(f"its model: {status}", 0)
        if status == "InService":
            return
        if status not in _CHANGING:
            reason = found.get("FailureReason") or "SageMaker gives no reason"
            raise FailedError(f"inference component {name} is {status}: {reason}")
        time.sleep(pause)
