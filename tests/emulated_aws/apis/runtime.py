"""SageMaker's runtime: invocations, passed on to the container of an endpoint, at once or asynchronously."""

import http.client
import json
import uuid
from typing import Any

from werkzeug import Response

from ..http.account import Account
from ..http.errors import AwsError
from ..http.resources import ACCOUNT, Record
from ..runners.hosting import Host, model_error
from . import components, objects

_MB = 1024 * 1024
REAL_TIME, SERVERLESS, ASYNCHRONOUS = 25 * _MB, 4 * _MB, 1024 * _MB  # bodies
_SECONDS, _ASYNC_SECONDS = 60.0, 900.0  # for an answer
_HEADERS = {
    "ContentType": "Content-Type",
    "Accept": "Accept",
    "CustomAttributes": "X-Amzn-SageMaker-Custom-Attributes",
    "TargetModel": "X-Amzn-SageMaker-Target-Model",
    "InferenceId": "X-Amzn-SageMaker-Inference-Id",
}


def answer(account: Account, operation: str, params: dict[str, Any]) -> Response | None:
    """None: no operation of ours.

    Raises:
        AwsError: refused, or the container's own error.
    """
    if operation not in ("InvokeEndpoint", "InvokeEndpointAsync"):
        return None
    record, host = _host(account, params["EndpointName"], params.get("InferenceComponentName", ""))
    asynchronous = "AsyncInferenceConfig" in record
    if asynchronous != (operation == "InvokeEndpointAsync"):
        kind = "an asynchronous" if asynchronous else "no asynchronous"
        raise AwsError("ValidationError", f"Endpoint {record['EndpointName']} is {kind} inference endpoint.")
    return _later(account, record, host, params) if asynchronous else _now(account, record, host, params)


def _host(account: Account, name: str, component: str) -> tuple[Record, Host]:
    found = [one for one in account.store.all("Endpoint") if one["EndpointName"] == name]
    if found and bool(component) != any("ModelName" not in one for one in found[0]["Variants"]):
        raise AwsError("ValidationError", f"Endpoint {name}: InferenceComponentName is for endpoints that have some.")
    if component:
        components.has_copy(account, component)
    host = account.hosts.get(components.key(component) if component else name)
    if not found or not host or found[0]["EndpointStatus"] not in ("InService", "Updating"):
        raise AwsError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
    return found[0], host


def _now(account: Account, record: Record, host: Host, params: dict[str, Any]) -> Response:
    body = params.get("Body", b"")
    variant = record["ProductionVariants"][0]
    if len(body) > (SERVERLESS if "CurrentServerlessConfig" in variant else REAL_TIME):
        return Response(b"", 413)
    status, content, headers = _ask(account, host, body, params, _SECONDS)
    if not 200 <= status < 300:
        raise model_error(account, status, content.decode(errors="replace"))
    found = Response(content, content_type=headers.get("content-type", "application/octet-stream"))
    found.headers["x-Amzn-Invoked-Production-Variant"] = variant["VariantName"]
    custom = headers.get("x-amzn-sagemaker-custom-attributes")
    if custom:
        found.headers["X-Amzn-SageMaker-Custom-Attributes"] = custom
    return found


def _ask(
    account: Account, host: Host, body: bytes, params: dict[str, Any], limit: float
) -> tuple[int, bytes, dict[str, str]]:
    headers = {header: params[name] for name, header in _HEADERS.items() if name in params}
    path = host.path(params.get("TargetModel", ""))
    try:
        return host.request("POST", path, body, headers, limit)
    except (OSError, http.client.HTTPException) as error:
        why = f"Your invocation timed out or was cut while waiting for a response from container primary ({error})"
        raise model_error(account, 0, why) from error


def _later(account: Account, record: Record, host: Host, params: dict[str, Any]) -> Response:
    config = record["AsyncInferenceConfig"]["OutputConfig"]
    job = str(uuid.uuid4())
    output = f"{config['S3OutputPath'].rstrip('/')}/{job}.out"
    failure = f"{config['S3FailurePath'].rstrip('/')}/{job}-error.out" if "S3FailurePath" in config else ""

    def work() -> None:
        body = objects.read_url(account, params["InputLocation"])
        try:
            if body is None or len(body) > ASYNCHRONOUS:
                raise AwsError("ClientError", f"Unable to read {params['InputLocation']}")
            status, content, _ = _ask(account, host, body, params, _ASYNC_SECONDS)
            if not 200 <= status < 300:
                raise model_error(account, status, content.decode(errors="replace"))
            objects.write_url(account, output, content)
        except AwsError as error:
            if failure:
                objects.write_url(account, failure, error.message.encode())

    account.background.start(work, f"asynchronous inference {job}")
    response = Response(json.dumps({"InferenceId": params.get("InferenceId", job)}), 202, mimetype="application/json")
    response.headers["X-Amzn-SageMaker-OutputLocation"] = output
    if failure:
        response.headers["X-Amzn-SageMaker-FailureLocation"] = failure
    return response
