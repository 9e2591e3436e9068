"""Application Auto Scaling of endpoints. moto's knows none of SageMaker's things, keeps policies without a target, and
makes no alarms for them; here a target is a variant in service, and what belongs to it goes with it.
"""

import uuid
from collections.abc import Callable
from typing import Any

from botocore.model import ListShape, StructureShape

from ..http.account import Account
from ..http.errors import AwsError
from ..http.recognition import service_model
from ..http.resources import ACCOUNT, Record, now
from . import components

SERVICE = "application-autoscaling"
_KEY = ("ServiceNamespace", "ResourceId", "ScalableDimension")
_INSTANCES = "sagemaker:variant:DesiredInstanceCount"
_COPIES = "sagemaker:inference-component:DesiredCopyCount"
_NAMES = {"policy": "PolicyName", "action": "ScheduledActionName"}


def answer(account: Account, operation: str, params: Record) -> Record | None:
    """None: no operation of ours.

    Raises:
        AwsError: refused.
    """
    if operation in _LISTS:
        return _listed(account, operation, params)
    return _OPERATIONS[operation](account, params) if operation in _OPERATIONS else None


def targets(account: Account, resource: str) -> list[Record]:
    """The scalable targets of one resource, `endpoint/NAME/variant/NAME`; of all of an endpoint by `endpoint/NAME/`."""
    return [
        one for one in account.scaling["target"] if (one["ResourceId"] + "/").startswith(resource.rstrip("/") + "/")
    ]


def forget(account: Account, target: Record) -> None:
    """A target, its policies and their alarms, its scheduled actions."""
    for kind in _NAMES:
        for one in [row for row in account.scaling[kind] if _same(row, target)]:
            _remove(account, kind, one)
    account.scaling["target"].remove(target)


def _register(account: Account, params: Record) -> Record:
    found = next((one for one in account.scaling["target"] if _same(one, params)), None)
    wanted = {**(found or {}), **params}
    least, most = wanted.get("MinCapacity"), wanted.get("MaxCapacity")
    if least is None or most is None or not 0 <= least <= most:
        raise AwsError("ValidationException", "MinCapacity and MaxCapacity are required, the first at most the second.")
    _scale(account, params, least, most)
    if found:
        found |= params
        return {"ScalableTargetARN": found["ScalableTargetARN"]}
    arn = f"arn:aws:{SERVICE}:eu-west-1:{ACCOUNT}:scalable-target/{uuid.uuid4().hex}"
    rest = {"ScalableTargetARN": arn, "CreationTime": now(), "RoleARN": f"arn:aws:iam::{ACCOUNT}:role/linked"}
    account.scaling["target"].append(params | rest)
    return {"ScalableTargetARN": arn}


def _scale(account: Account, params: Record, least: int, most: int) -> None:
    """Brings the variant's number of instances, or the component's of copies, within the limits.

    Raises:
        AwsError: there is no such variant, or its endpoint is not in service.
    """
    parts = params["ResourceId"].split("/")
    if params["ScalableDimension"] == _COPIES and parts[0] == "inference-component":
        record = account.store.get(components.KIND, parts[1])
        if record["InferenceComponentStatus"] != "InService":
            raise AwsError("ValidationException", f"The component is {record['InferenceComponentStatus']}.")
        components.scale(account, record, least, most)
        return
    known = params["ScalableDimension"] == _INSTANCES and len(parts) == 4
    found = [one for one in account.store.all("Endpoint") if known and one["EndpointName"] == parts[1]]
    variants = [row for one in found for row in one["ProductionVariants"] if row["VariantName"] == parts[3]]
    if not variants or "DesiredInstanceCount" not in variants[0]:
        raise AwsError("ValidationException", f"{params['ResourceId']} is no resource that can be scaled.")
    if found[0]["EndpointStatus"] != "InService":
        raise AwsError(
            "ValidationException", f"The endpoint {parts[1]} is not in service: {found[0]['EndpointStatus']}."
        )
    count = min(most, max(least, variants[0]["DesiredInstanceCount"]))
    variants[0] |= {"DesiredInstanceCount": count, "CurrentInstanceCount": count}


def _deregister(account: Account, params: Record) -> Record:
    forget(account, _target(account, params))
    return {}


def _target(account: Account, params: Record) -> Record:
    for one in account.scaling["target"]:
        if _same(one, params):
            return one
    what = ", ".join(str(params[name]) for name in _KEY)
    raise AwsError("ObjectNotFoundException", f"No scalable target found for {what}.")


def _put_policy(account: Account, params: Record) -> Record:
    _target(account, params)
    before = [one for one in account.scaling["policy"] if _same(one, params)]
    metric = _metric(params)
    for one in before:
        if one["PolicyName"] != params["PolicyName"] and metric and _metric(one) == metric:
            raise AwsError("ValidationException", f"Only one TargetTrackingScaling policy for {metric} is allowed.")
    for one in before:
        if one["PolicyName"] == params["PolicyName"]:
            _remove(account, "policy", one)
    path = f"resource/sagemaker/{params['ResourceId']}:policyName/{params['PolicyName']}"
    arn = f"arn:aws:autoscaling:eu-west-1:{ACCOUNT}:scalingPolicy:{uuid.uuid4()}:{path}"
    alarms = [_alarm(account, params, arn, side) for side in ("High", "Low")] if metric else []
    account.scaling["policy"].append(params | {"PolicyARN": arn, "Alarms": alarms, "CreationTime": now()})
    return {"PolicyARN": arn, "Alarms": alarms}


def _metric(policy: Record) -> str:
    tracked = policy.get("TargetTrackingScalingPolicyConfiguration", {})
    return str(tracked.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType", ""))


def _alarm(account: Account, policy: Record, arn: str, side: str) -> dict[str, str]:
    """One of the two alarms of a target tracking policy, as AWS names them."""
    name = f"TargetTracking-{policy['ResourceId']}-Alarm{side}-{uuid.uuid4()}"
    value = policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"]
    operator = {"High": "GreaterThanThreshold", "Low": "LessThanThreshold"}[side]
    account.client("cloudwatch").put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName="InvocationsPerInstance",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods={"High": 3, "Low": 15}[side],
        Threshold=value * {"High": 1.0, "Low": 0.9}[side],
        ComparisonOperator=operator,
        AlarmActions=[arn],
    )
    return {"AlarmName": name, "AlarmARN": f"arn:aws:cloudwatch:eu-west-1:{ACCOUNT}:alarm:{name}"}


def _put_action(account: Account, params: Record) -> Record:
    _target(account, params)
    rows = account.scaling["action"]
    name = params["ScheduledActionName"]
    rows[:] = [one for one in rows if not (_same(one, params) and one["ScheduledActionName"] == name)]
    rows.append(params | {"ScheduledActionARN": f"arn:aws:autoscaling:::scheduledAction:{name}", "CreationTime": now()})
    return {}


def _delete(kind: str) -> Callable[[Account, Record], Record]:
    def delete(account: Account, params: Record) -> Record:
        name = _NAMES[kind]
        for one in account.scaling[kind]:
            if _same(one, params) and one[name] == params[name]:
                _remove(account, kind, one)
                return {}
        raise AwsError("ObjectNotFoundException", f"No scaling {kind} found: {params[name]}.")

    return delete


def _remove(account: Account, kind: str, row: Record) -> None:
    if names := [one["AlarmName"] for one in row.get("Alarms", [])]:
        account.client("cloudwatch").delete_alarms(AlarmNames=names)
    account.scaling[kind].remove(row)


def _same(one: Record, other: Record) -> bool:
    return all(one[name] == other[name] for name in _KEY)


def _listed(account: Account, operation: str, params: Record) -> Record:
    kind, member = _LISTS[operation]
    resources = params.get("ResourceIds") or [params[name] for name in ("ResourceId",) if name in params]
    rows = [one for one in account.scaling[kind] if not resources or one["ResourceId"] in resources]
    dimension = params.get("ScalableDimension")
    rows = [one for one in rows if dimension in (None, one["ScalableDimension"])]
    return {member: [{name: one[name] for name in _members(operation, member) if name in one} for one in rows]}


def _members(operation: str, member: str) -> Any:
    known = service_model(SERVICE)
    assert known
    shape = known.operation_model(operation).output_shape
    assert isinstance(shape, StructureShape)
    listed = shape.members[member]
    assert isinstance(listed, ListShape)
    return listed.member.members


_LISTS = {
    "DescribeScalableTargets": ("target", "ScalableTargets"),
    "DescribeScalingPolicies": ("policy", "ScalingPolicies"),
    "DescribeScheduledActions": ("action", "ScheduledActions"),
}
_OPERATIONS: dict[str, Callable[[Account, Record], Record]] = {
    "RegisterScalableTarget": _register,
    "DeregisterScalableTarget": _deregister,
    "PutScalingPolicy": _put_policy,
    "DeleteScalingPolicy": _delete("policy"),
    "PutScheduledAction": _put_action,
    "DeleteScheduledAction": _delete("action"),
}
