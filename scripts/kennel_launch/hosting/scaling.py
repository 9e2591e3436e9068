"""Application Auto Scaling of an endpoint: what is registered of it, and the calls that register or remove it.

Sends nothing that changes something: the calls are for `rollout.send` and `kennel delete`.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import session
from kennel_launch.hosting import specs
from kennel_launch.hosting.endpoint_info import EndpointInfo
from kennel_launch.hosting.rollout import Call
from kennel_launch.hosting.specs import Autoscale, EndpointPlan
from kennel_launch.settings import Settings

SERVICE = "application-autoscaling"
POLICY = "kennel-invocations-per-instance"
_INSTANCES = "sagemaker:variant:DesiredInstanceCount"
_COPIES = "sagemaker:inference-component:DesiredCopyCount"
_WAKING = "kennel-from-zero"
_NAMES = ("ServiceNamespace", "ResourceId", "ScalableDimension")


@dataclass(frozen=True)
class _Kind:
    """How the API speaks of one kind of thing: its list, what makes and removes it, and what its request has."""

    listing: str
    members: str
    make: str
    remove: str
    key: str
    request: tuple[str, ...]


_TARGET = _Kind(
    "describe_scalable_targets",
    "ScalableTargets",
    "register_scalable_target",
    "deregister_scalable_target",
    "ResourceId",
    ("MinCapacity", "MaxCapacity", "SuspendedState"),
)
_POLICY = _Kind(
    "describe_scaling_policies",
    "ScalingPolicies",
    "put_scaling_policy",
    "delete_scaling_policy",
    "PolicyName",
    (
        "PolicyName",
        "PolicyType",
        "StepScalingPolicyConfiguration",
        "TargetTrackingScalingPolicyConfiguration",
        "PredictiveScalingPolicyConfiguration",
    ),
)
_ACTION = _Kind(
    "describe_scheduled_actions",
    "ScheduledActions",
    "put_scheduled_action",
    "delete_scheduled_action",
    "ScheduledActionName",
    ("ScheduledActionName", "Schedule", "Timezone", "StartTime", "EndTime", "ScalableTargetAction"),
)
_OWNED = (_POLICY, _ACTION)  # what a scalable target takes with it when it goes


@dataclass(frozen=True)
class Found:
    """What is registered: each kind's requests, by which it can be made again."""

    targets: tuple[dict[str, Any], ...] = ()
    owned: tuple[tuple[_Kind, dict[str, Any]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.targets)

    def __str__(self) -> str:
        """`1 to 4 instances at 300 requests a minute each`."""
        target = self.targets[0]
        values = [
            request["TargetTrackingScalingPolicyConfiguration"]["TargetValue"]
            for _, request in self.owned
            if "TargetTrackingScalingPolicyConfiguration" in request
        ]
        each = f" at {values[0]:g} requests a minute each" if values else ""
        return f"{target['MinCapacity']} to {target['MaxCapacity']} instances{each}"


NOTHING = Found()


def parse(text: str, invocations: int) -> Autoscale:
    """`1..4`.

    Raises:
        UserError: something else.
    """
    match = re.fullmatch(r"(\d{1,4})\.\.(\d{1,4})", text.strip())
    least, most = (int(match[1]), int(match[2])) if match else (1, 0)
    if not least <= most or most < 1:
        raise UserError(f"--autoscale {text!r}: write the least and the most instances, as in 1..4")
    return Autoscale(least, most, invocations)


def resource(endpoint: str, variant: str = specs.VARIANT) -> str:
    """What Application Auto Scaling calls a variant."""
    return f"endpoint/{endpoint}/variant/{variant}"


def component_resource(name: str) -> str:
    """What it calls an inference component."""
    return f"inference-component/{name}"


def of_endpoint(name: str, variants: Iterable[str], settings: Settings, *, needed: bool = False) -> Found:
    """What is registered of an endpoint's variants, ours among them, and of our component, whether it is there or not.

    Args:
        needed: a caller without the right to look is refused; else that is a warning, since an endpoint must be
            deletable without it.

    Raises:
        UserError: AWS does not say.
    """
    resources = [resource(name, variant) for variant in dict.fromkeys([specs.VARIANT, *variants])]
    resources.append(component_resource(name))
    try:
        with session.translate_errors(f"whether {name} is scaled automatically"):
            return _found(session.client(SERVICE, settings), resources)
    except UserError as error:
        if needed or not session.is_denied(error):
            raise
        print(f"not known: {error}", file=sys.stderr)
        return NOTHING


def of_plan(plan: EndpointPlan, there: EndpointInfo | None, settings: Settings) -> Found:
    """What is registered of the endpoint that a deployment makes or updates; nothing, where it can't matter.

    Raises:
        UserError: AWS does not say.
    """
    if plan.mode == specs.SERVERLESS or not (there or plan.autoscale):
        return NOTHING
    variants = there.variants if there else ()
    return of_endpoint(plan.name, variants, settings, needed=plan.autoscale is not None)


def _found(client: Any, resources: list[str]) -> Found:
    pages = client.get_paginator(_TARGET.listing).paginate(ServiceNamespace="sagemaker", ResourceIds=resources)
    targets = [row for page in pages for row in page[_TARGET.members]]
    owned = [
        (kind, _request(kind, row))
        for target in targets
        for kind in _OWNED
        for page in client.get_paginator(kind.listing).paginate(**{name: target[name] for name in _NAMES})
        for row in page[kind.members]
    ]
    return Found(tuple(_request(_TARGET, row) for row in targets), tuple(owned))


def _request(kind: _Kind, row: Mapping[str, Any]) -> dict[str, Any]:
    """The request that makes it again, of what AWS says of it."""
    return {name: row[name] for name in (*_NAMES, *kind.request) if name in row}


def removal(found: Found) -> list[Call]:
    """Policies and scheduled actions, then their targets; each call can be taken back.

    AWS removes the first with the last by itself, and so could not put them back.
    """
    return [_removed(kind, request) for kind, request in (*found.owned, *((_TARGET, one) for one in found.targets))]


def _removed(kind: _Kind, request: dict[str, Any]) -> Call:
    named = {name: request[name] for name in dict.fromkeys((*_NAMES, kind.key))}
    return Call(SERVICE, kind.remove, named, kind.key, kind.make, request)


def _made(kind: _Kind, request: dict[str, Any]) -> Call:
    named = {name: request[name] for name in dict.fromkeys((*_NAMES, kind.key))}
    return Call(SERVICE, kind.make, request, kind.key, kind.remove, named)


def calls(plan: EndpointPlan, there: EndpointInfo | None, found: Found) -> tuple[list[Call], list[Call]]:
    """What goes before an endpoint's update, and what follows once it is in service.

    An update to another instance type, or without the variant, is refused while that is a scalable target; one to
    another model alone is not. Only an endpoint in service can be registered.
    https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html (2026-11)

    Args:
        there: the endpoint that is updated.
        found: what is registered of it.
    """
    if plan.mode == specs.SERVERLESS or plan.to_zero:
        return [], []
    if plan.autoscale:
        return removal(found), _registered(plan.name, plan.autoscale)
    if not plan.retain:  # a number of instances is asked for: it stays that
        return removal(found), []
    if there and there.variants != {specs.VARIANT: plan.types}:
        again = [_made(_TARGET, one) for one in found.targets if one["ResourceId"] == resource(plan.name)]
        owned = [_made(kind, one) for kind, one in found.owned if one["ResourceId"] == resource(plan.name)]
        return removal(found), again + owned
    return [], []


def _registered(name: str, wanted: Autoscale) -> list[Call]:
    """A scalable target and its policy.

    https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-add-code-define.html (2026-11)
    """
    named = {"ServiceNamespace": "sagemaker", "ResourceId": resource(name), "ScalableDimension": _INSTANCES}
    return _tracked(named, wanted, "SageMakerVariantInvocationsPerInstance")


def _tracked(named: dict[str, str], wanted: Autoscale, metric: str) -> list[Call]:
    """A scalable target, and the policy that keeps its metric at the target value."""
    limits = {"MinCapacity": wanted.least, "MaxCapacity": wanted.most}
    tracking = {
        "TargetValue": float(wanted.invocations),
        "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
    }
    policy = {"PolicyName": POLICY, "PolicyType": "TargetTrackingScaling"}
    policies = named | policy | {"TargetTrackingScalingPolicyConfiguration": tracking}
    return [_made(_TARGET, {**named, **limits}), _made(_POLICY, policies)]


def of_component(plan: EndpointPlan) -> list[Call]:
    """A component's scaling; the last is the policy for an alarm, since target tracking alone never leaves zero.

    https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-zero-instances.html (2026-11)
    """
    assert plan.autoscale
    resource = component_resource(plan.name)
    named = {"ServiceNamespace": "sagemaker", "ResourceId": resource, "ScalableDimension": _COPIES}
    step = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Maximum",
        "Cooldown": 60,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
    }
    waking = {**named, "PolicyName": _WAKING, "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": step}
    return [*_tracked(named, plan.autoscale, "SageMakerInferenceComponentInvocationsPerCopy"), _made(_POLICY, waking)]
