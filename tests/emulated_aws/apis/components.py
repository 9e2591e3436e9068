"""Inference components: the models of endpoints whose variants have none. A component's host is a real `serve`; whether
it has a copy is a number, so that a test takes its copies away by `change` and the first request brings one back.
"""

import threading
import time
import uuid
from typing import Any

from botocore.exceptions import ClientError

from ..http.account import Account
from ..http.errors import AwsError, invalid
from ..http.resources import Record
from ..runners.hosting import UnhealthyError, started
from .logs import COMPONENTS

KIND = "InferenceComponent"
_POLL = 0.2  # seconds
_NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if "
    "configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)
_UNHEALTHY = "The container of the inference component did not pass the ping health check."


def of(account: Account, endpoint: str) -> list[Record]:
    """Those of one endpoint."""
    return [one for one in account.store.all(KIND) if one["EndpointName"] == endpoint]


def key(name: str) -> str:
    """What a component is called among the account's hosts and among what can be stopped."""
    return f"inference component {name}"


def create(account: Account, params: Record) -> Record:
    """
    Raises:
        AwsError: refused.
    """
    endpoint = account.store.get("Endpoint", params["EndpointName"])
    variants = {one["VariantName"]: one for one in endpoint["Variants"]}
    if endpoint["EndpointStatus"] != "InService":
        raise invalid(f"Endpoint {params['EndpointName']} is {endpoint['EndpointStatus']}.")
    variant = variants.get(params.get("VariantName", ""))
    if variant is None or variant.get("ModelName"):
        raise invalid("VariantName must be a variant of the endpoint that has no model of its own.")
    spec = params.get("Specification", {})
    if "ComputeResourceRequirements" not in spec or "RuntimeConfig" not in params:
        raise invalid("ComputeResourceRequirements and RuntimeConfig are required.")
    model = account.store.get("Model", spec.get("ModelName", ""))
    count = params["RuntimeConfig"]["CopyCount"]
    record = account.store.add(KIND, params, EndpointArn=endpoint["EndpointArn"], RuntimeConfig=_copies(count))
    if account.held:
        status = "InService" if account.at_once else "Creating"
        account.store.change(record, InferenceComponentStatus=status)
        return {"InferenceComponentArn": record["InferenceComponentArn"]}
    stop = account.stops[key(record[f"{KIND}Name"])] = threading.Event()
    account.background.start(lambda: _run(account, record, model, stop), key(record[f"{KIND}Name"]))
    return {"InferenceComponentArn": record["InferenceComponentArn"]}


def delete(account: Account, params: Record) -> Record:
    """
    Raises:
        AwsError: there is none.
    """
    record = account.store.get(KIND, params[f"{KIND}Name"])
    account.store.change(record, InferenceComponentStatus="Deleting")
    if stop := account.stops.pop(key(record[f"{KIND}Name"]), None):
        stop.set()
    else:
        account.store.remove(KIND, record[f"{KIND}Name"])
    return {}


def has_copy(account: Account, name: str) -> None:
    """Whether a request can be taken; one that cannot starts what an alarm on it would start.

    Raises:
        AwsError: there is no copy.
    """
    record = account.store.get(KIND, name)
    if record["RuntimeConfig"]["CurrentCopyCount"]:
        return
    wanted = {"Name": "InferenceComponentName", "Value": name}
    alarms = account.client("cloudwatch").describe_alarms()["MetricAlarms"]
    actions = [
        action
        for alarm in alarms
        if alarm["MetricName"] == "NoCapacityInvocationFailures" and wanted in alarm["Dimensions"]
        for action in alarm["AlarmActions"]
    ]
    steps = [one for one in account.scaling["policy"] if one["PolicyARN"] in actions]
    if any(one.get("StepScalingPolicyConfiguration") for one in steps):
        account.store.change(record, RuntimeConfig=_copies(1))
    raise AwsError("ValidationError", _NO_CAPACITY)


def scale(account: Account, record: Record, least: int, most: int) -> None:
    """Brings the copies within the limits."""
    count = record["RuntimeConfig"]["DesiredCopyCount"]
    account.store.change(record, RuntimeConfig=_copies(min(most, max(least, count))))


def _copies(count: int) -> dict[str, Any]:
    return {"DesiredCopyCount": count, "CurrentCopyCount": count}


def _run(account: Account, record: Record, model: Record, stop: threading.Event) -> None:
    name = record[f"{KIND}Name"]

    def over() -> bool:
        return stop.is_set() or account.background.closing.is_set()

    log = (f"{COMPONENTS}/{name}", f"AllTraffic/i-{uuid.uuid4().hex[:17]}")
    try:
        with started(account, model, f"{name}-{uuid.uuid4().hex[:8]}", log) as host:
            host.wait_healthy(over)
            account.hosts[key(name)] = host
            account.store.change(record, InferenceComponentStatus="InService")
            while not over() and host.process.poll() is None:
                host.stream.pump()
                time.sleep(_POLL)
            if not over():
                raise UnhealthyError
    except (UnhealthyError, ClientError) as error:
        if not over():
            reason = str(error) or _UNHEALTHY
            account.store.change(record, InferenceComponentStatus="Failed", FailureReason=reason)
            account.stops.pop(key(name), None)  # so that deleting it has nothing to wait for
    account.hosts.pop(key(name), None)
    if record["InferenceComponentStatus"] == "Deleting" and not account.background.closing.is_set():
        account.store.remove(KIND, name)
