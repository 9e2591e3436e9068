"""A transform job: `serve` in batch mode, each object of a prefix posted to it, each answer an .out file."""

import http.client
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from ..apis import objects
from ..apis.logs import TRANSFORM
from ..http.account import Account
from ..http.lookups import s3_parts
from ..http.resources import Record, now
from .hosting import Host, UnhealthyError, started

_MB = 1024 * 1024
_USUAL = {"MaxConcurrentTransforms": 1, "BatchStrategy": "MultiRecord", "MaxPayloadInMB": 6}  # SageMaker's own
_SECONDS = 600.0  # for an answer


class TransformError(Exception):
    """An object could not be transformed; the text is the job's FailureReason."""


class StoppedError(Exception):
    """By StopTransformJob."""


def start(account: Account, record: Record) -> None:
    """In the background."""
    name = record["TransformJobName"]
    account.stops[name] = threading.Event()
    account.background.start(lambda: _run(account, record), f"transform job {name}")


def _run(account: Account, record: Record) -> None:
    name = record["TransformJobName"]
    model = account.store.get("Model", record["ModelName"])
    status, reason = "Completed", ""
    account.store.change(record, TransformStartTime=now())
    try:
        with started(account, model, name, (TRANSFORM, f"{name}/i-{uuid.uuid4().hex[:17]}"), _env(record)) as host:
            host.wait_healthy(lambda: _over(account, name))
            _transform(account, record, host)
    except StoppedError:
        status = "Stopped"
    except UnhealthyError as error:
        status, reason = "Failed", f"ClientError: {error or 'the container did not pass the ping health check'}"
        if account.stops[name].is_set():
            status, reason = "Stopped", ""
    except (TransformError, ClientError) as error:
        status, reason = "Failed", f"ClientError: {error}"
    if not account.background.closing.is_set():
        more = {"FailureReason": reason[:1024]} if reason else {}
        account.store.change(record, TransformJobStatus=status, TransformEndTime=now(), **more)


def _env(record: Record) -> dict[str, str]:
    """What the platform tells a container of a batch; only what the request says."""
    names = {
        "MaxPayloadInMB": "SAGEMAKER_MAX_PAYLOAD_IN_MB",
        "BatchStrategy": "SAGEMAKER_BATCH_STRATEGY",
        "MaxConcurrentTransforms": "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",
    }
    environment = {variable: str(record[name]) for name, variable in names.items() if name in record}
    if "SAGEMAKER_BATCH_STRATEGY" in environment:
        environment["SAGEMAKER_BATCH_STRATEGY"] = _single(environment["SAGEMAKER_BATCH_STRATEGY"])
    return {"SAGEMAKER_BATCH": "true", **environment, **record.get("Environment", {})}


def _single(strategy: str) -> str:
    return "SINGLE_RECORD" if strategy == "SingleRecord" else "MULTI_RECORD"


def _transform(account: Account, record: Record, host: Host) -> None:
    wanted = _parameters(record, host)
    source, output = record["TransformInput"], record["TransformOutput"]
    headers = {"Content-Type": source.get("ContentType", ""), "Accept": output.get("Accept", "")}
    headers = {key: value for key, value in headers.items() if value}
    bucket = s3_parts(source["DataSource"]["S3DataSource"]["S3Uri"])[0]
    failed: list[str] = []
    for key, name in _inputs(account, source["DataSource"]["S3DataSource"]):
        if _over(account, record["TransformJobName"]):
            raise StoppedError
        host.stream.pump()
        try:
            answers = [_post(host, body, headers) for body in _bodies(account, bucket, key, source, wanted)]
        except TransformError as error:
            failed.append(f"{key}: {error}")
            continue
        joint = b"\n" if output.get("AssembleWith") == "Line" else b""
        whole = joint.join(one.rstrip(b"\n") if joint else one for one in answers)
        objects.write_url(account, f"{output['S3OutputPath'].rstrip('/')}/{name}.out", whole)
    if failed:
        raise TransformError(f"See job logs for more information. {failed[0]}")


def _parameters(record: Record, host: Host) -> dict[str, Any]:
    """The request's, else what the container asks for, else SageMaker's own."""
    status, body, _ = host.request("GET", "/execution-parameters")
    asked = json.loads(body) if status == http.HTTPStatus.OK else {}
    if "BatchStrategy" in asked:
        asked["BatchStrategy"] = "SingleRecord" if asked["BatchStrategy"] == "SINGLE_RECORD" else "MultiRecord"
    return _USUAL | asked | {name: record[name] for name in _USUAL if name in record}


def _inputs(account: Account, source: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, name of the output below the output's path without .out)."""
    if source["S3DataType"] != "ManifestFile":
        yield from objects.keys(account, source["S3Uri"])
        return
    first, *names = json.loads(objects.read_url(account, source["S3Uri"]) or b"[{}]")
    for name in names:
        yield s3_parts(first["prefix"])[1] + name, name


def _bodies(account: Account, bucket: str, key: str, source: dict[str, Any], wanted: dict[str, Any]) -> Iterator[bytes]:
    """An object, whole or split into lines; as many of them in one body as fit, where that is the strategy."""
    body, most = objects.read(account, bucket, key), wanted["MaxPayloadInMB"] * _MB or 1 << 40
    if source.get("SplitType", "None") != "Line":
        parts = [body]
    elif wanted["BatchStrategy"] == "SingleRecord":
        parts = body.splitlines()
    else:
        parts = [b""]
        for line in body.splitlines(keepends=True):
            if parts[-1] and len(parts[-1]) + len(line) > most:
                parts.append(b"")
            parts[-1] += line
    for part in parts:
        if len(part) > most:
            raise TransformError(f"the record has {len(part)} bytes, MaxPayloadInMB allows {most}")
        yield part


def _post(host: Host, body: bytes, headers: dict[str, str]) -> bytes:
    try:
        status, content, _ = host.request("POST", "/invocations", body, headers, _SECONDS)
    except (OSError, http.client.HTTPException) as error:
        raise TransformError(f"the container does not answer ({error})") from error
    if not 200 <= status < 300:
        raise TransformError(f"{status}: {content.decode(errors='replace')[:300]}")
    return content


def _over(account: Account, name: str) -> bool:
    return account.stops[name].is_set() or account.background.closing.is_set()
