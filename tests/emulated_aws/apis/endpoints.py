"""Endpoints: a host for each, from Creating to InService, Failed or gone."""

import copy
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from ..http import checks, limits
from ..http.account import Account
from ..http.errors import invalid
from ..http.recognition import Call
from ..http.resources import Record
from ..runners.hosting import UnhealthyError, started
from . import components, scaling
from .logs import ENDPOINTS

_POLL = 0.2  # seconds
_UNHEALTHY = (
    "The primary container for production variant {variant} did not pass the ping health check. Please check "
    "CloudWatch logs for this endpoint."
)


def create(account: Account, params: Record) -> Record:
    """
    Raises:
        AwsError: refused.
    """
    config = account.store.get("EndpointConfig", params["EndpointConfigName"])
    checks.endpoint(account, config)
    record = account.store.add("Endpoint", params, **_shown(config))
    _start(account, record, config)
    return {"EndpointArn": record["EndpointArn"]}


def update(account: Account, params: Record) -> Record:
    """A new host beside the old one, which answers until the new one is healthy.

    Raises:
        AwsError: refused.
    """
    record = account.store.get("Endpoint", params["EndpointName"])
    config = account.store.get("EndpointConfig", params["EndpointConfigName"])
    if record["EndpointStatus"] not in ("InService", "Failed"):
        raise invalid(f'Cannot update in-progress endpoint "{record["EndpointArn"]}".')
    for variant in config["ProductionVariants"]:
        if "ModelName" in variant:
            account.store.get("Model", variant["ModelName"])
    checks.scaled(scaling.targets(account, f"endpoint/{record['EndpointName']}/"), record["Variants"], config)
    if params.get("RetainAllVariantProperties"):
        config = _retained(config, record)
    account.store.change(record, EndpointStatus="Updating")
    _start(account, record, config)
    return {"EndpointArn": record["EndpointArn"]}


def delete(account: Account, params: Record) -> Record:
    """
    Raises:
        AwsError: there is none, or it is still being made.
    """
    record = account.store.get("Endpoint", params["EndpointName"])
    if record["EndpointStatus"] in ("Creating", "Updating") and not account.held:
        raise invalid(f'Cannot update in-progress endpoint "{record["EndpointArn"]}".')
    if components.of(account, record["EndpointName"]):
        raise invalid(f"Endpoint {record['EndpointName']} has inference components: delete them first.")
    for target in scaling.targets(account, f"endpoint/{record['EndpointName']}/"):
        checks.allowed(account, Call(scaling.SERVICE, "DeregisterScalableTarget"))
        scaling.forget(account, target)
    account.store.change(record, EndpointStatus="Deleting")
    stop = account.stops.pop(_key(record), None)
    if stop:
        stop.set()
    else:
        account.store.remove("Endpoint", record["EndpointName"])
    return {}


def _retained(config: Record, record: Record) -> Record:
    """The configuration with the number of instances that its variants have by now."""
    counts = {row["VariantName"]: row.get("DesiredInstanceCount") for row in record["ProductionVariants"]}
    kept = copy.deepcopy(config)
    for variant in kept["ProductionVariants"]:
        if count := counts.get(variant["VariantName"]):
            variant["InitialInstanceCount"] = count
    return kept


def _start(account: Account, record: Record, config: Record) -> None:
    empty = "ModelName" not in config["ProductionVariants"][0]  # a component brings the model, and a host for it
    if account.held or empty:
        if account.at_once or empty:
            record.pop("DataCaptureConfig", None)
            account.store.change(record, EndpointStatus="InService", **_shown(config))
        return
    stop, before = threading.Event(), account.stops.get(_key(record))
    account.stops[_key(record)] = stop

    def ready() -> None:
        if before:
            before.set()

    model = account.store.get("Model", config["ProductionVariants"][0]["ModelName"])  # it may be deleted at once
    work = _Work(account, record, config, model, stop, ready)
    account.background.start(work.run, f"endpoint {record['EndpointName']}")


class _Work:
    """The thread of one host: it holds the host's process as a context for as long as it is in service."""

    def __init__(
        self,
        account: Account,
        record: Record,
        config: Record,
        model: Record,
        stop: threading.Event,
        ready: Callable[[], None],
    ) -> None:
        self._account, self._record, self._config, self._model = account, record, config, model
        self._stop, self._ready = stop, ready

    def run(self) -> None:
        name, variant = self._record["EndpointName"], self._config["ProductionVariants"][0]
        log = (f"{ENDPOINTS}/{name}", f"{variant['VariantName']}/i-{uuid.uuid4().hex[:17]}")
        folder = f"{name}-{uuid.uuid4().hex[:8]}"
        try:
            with started(self._account, self._model, folder, log) as host:
                host.wait_healthy(self._over)
                self._account.hosts[name] = host
                self._record.pop("DataCaptureConfig", None)  # of an earlier configuration
                self._account.store.change(self._record, EndpointStatus="InService", **_shown(self._config))
                self._ready()
                while not self._over() and host.process.poll() is None:
                    host.stream.pump()
                    time.sleep(_POLL)
                if not self._over():
                    raise UnhealthyError
        except (UnhealthyError, ClientError) as error:
            if not self._over():
                reason = str(error) or _UNHEALTHY.format(variant=variant["VariantName"])
                self._account.store.change(self._record, EndpointStatus="Failed", FailureReason=reason)
                self._account.hosts.pop(name, None)
                self._account.stops.pop(_key(self._record), None)  # so that deleting it has nothing to wait for
        if self._record["EndpointStatus"] == "Deleting" and not self._account.background.closing.is_set():
            self._account.hosts.pop(name, None)
            self._account.store.remove("Endpoint", name)

    def _over(self) -> bool:
        return self._stop.is_set() or self._account.background.closing.is_set()


def _key(record: Record) -> str:
    return f"endpoint {record['EndpointName']}"


def _shown(config: Record) -> dict[str, Any]:
    """What DescribeEndpoint repeats of its configuration."""
    rows = []
    for variant in config["ProductionVariants"]:
        row: dict[str, Any] = {"VariantName": variant["VariantName"], "CurrentWeight": 1.0, "DesiredWeight": 1.0}
        if "ServerlessConfig" in variant:
            row |= dict.fromkeys(("CurrentServerlessConfig", "DesiredServerlessConfig"), variant["ServerlessConfig"])
        else:
            count = variant.get("InitialInstanceCount", 1)
            row |= {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
            if "InstancePools" in variant:  # there is always enough of the first
                row["InstancePools"] = [{"InstanceType": limits.first_type(variant), "CurrentInstanceCount": count}]
        rows.append(row)
    # The last is for us, who count instances after the configuration is gone; no answer shows it.
    more = {"AsyncInferenceConfig": config["AsyncInferenceConfig"]} if "AsyncInferenceConfig" in config else {}
    if capture := config.get("DataCaptureConfig"):
        more["DataCaptureConfig"] = {
            "EnableCapture": capture.get("EnableCapture", True),
            "CaptureStatus": "Started",
            "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
            "DestinationS3Uri": capture["DestinationS3Uri"],
            "KmsKeyId": capture.get("KmsKeyId", ""),
        }
    return {
        "ProductionVariants": rows,
        "EndpointConfigName": config["EndpointConfigName"],
        **more,
        "Variants": config["ProductionVariants"],
    }
