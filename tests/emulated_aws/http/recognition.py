"""Which operation of which service a request is, and with which parameters: by its signature and botocore's models.

Judges nothing; of S3, whose bodies may be large, it reads the address alone.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape
from werkzeug import Request

# What the signature calls a service, where that is not botocore's name for it.
_SIGNED_AS = {"servicequotas": "service-quotas", "monitoring": "cloudwatch"}
_SCOPE = re.compile(r"(?P<key>[^/=\s]+)/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")


@dataclass(frozen=True)
class Call:
    """One request, as its sender meant it."""

    service: str  # botocore's name; "": not signed
    operation: str = ""  # "": none that botocore knows
    params: dict[str, Any] = field(default_factory=dict)
    key: str = ""  # the access key that signed it
    region: str = ""
    model: OperationModel | None = None  # None where the parameters cannot be judged


def read(request: Request) -> Call:
    signed = _SCOPE.search(request.headers.get("Authorization") or request.args.get("X-Amz-Credential", ""))
    if not signed:
        return Call("")
    service = _SIGNED_AS.get(signed["service"], signed["service"])
    target = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
    if service == "sagemaker" and not target:
        service = "sagemaker-runtime"
    known = service_model(service)
    if known is None:
        return Call(service, target, key=signed["key"], region=signed["region"])
    operation, params, judged = _read(known, request, target)
    model = known.operation_model(operation) if judged else None
    return Call(service, operation, params, signed["key"], signed["region"], model)


@cache
def service_model(name: str) -> ServiceModel | None:
    session = botocore.session.get_session()
    return session.get_service_model(name) if name in session.get_available_services() else None


def _read(known: ServiceModel, request: Request, target: str) -> tuple[str, dict[str, Any], bool]:
    """(operation, parameters, whether they can be judged by the model)."""
    if target:
        there = target in known.operation_names
        return target, _object(request.get_data()), there
    if request.mimetype == "application/x-www-form-urlencoded":  # the query protocol, with its lists spelt out
        form = dict(parse_qsl(request.get_data().decode(), keep_blank_values=True))
        return form.pop("Action", ""), {key: value for key, value in form.items() if key != "Version"}, False
    found = _by_address(known, request)
    if found is None:
        return "", {}, False
    operation, labels = found
    if known.service_name == "s3":
        return operation.name, labels | {k: v for k, v in request.args.items() if not k.startswith("X-Amz-")}, False
    return operation.name, labels | _parts(operation, request), True


def _by_address(known: ServiceModel, request: Request) -> tuple[OperationModel, dict[str, Any]] | None:
    """The operation whose address asks for most of what the request has, and what stands in its path."""
    best: tuple[int, OperationModel, dict[str, Any]] | None = None
    for name, method, path, query in _addresses(known):
        matched = path.fullmatch(request.path) if method == request.method else None
        if not matched or any(request.args.get(key, None) is None for key in query):
            continue
        operation = known.operation_model(name)
        needed = _needed(operation)
        if not all(_there(request, shape) for shape in needed):
            continue
        rank = len(query) + len(needed)
        if best is None or rank > best[0]:
            best = rank, operation, dict(matched.groupdict())
    return best[1:] if best else None


@cache
def _addresses(known: ServiceModel) -> list[tuple[str, str, re.Pattern[str], list[str]]]:
    found = []
    for name in known.operation_names:
        http = known.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        pattern = re.sub(r"\\{(\w+)(\\\+)?\\}", lambda m: f"(?P<{m[1]}>{'.+' if m[2] else '[^/]+'})", re.escape(path))
        keys = [key for key, _ in parse_qsl(query, keep_blank_values=True)]
        found.append((name, http["method"], re.compile(pattern + "/?"), keys))
    return found


def _needed(operation: OperationModel) -> list[Shape]:
    """Required members that travel in the query or in a header: they tell UploadPart from PutObject."""
    shape = operation.input_shape
    members = [shape.members[name] for name in shape.required_members] if shape else []
    return [one for one in members if one.serialization.get("location") in ("querystring", "header")]


def _there(request: Request, shape: Shape) -> bool:
    where = request.args if shape.serialization["location"] == "querystring" else request.headers
    return shape.serialization["name"] in where


def _parts(operation: OperationModel, request: Request) -> dict[str, Any]:
    """A rest-json request's query, headers and body; what stood in the path is the caller's."""
    found: dict[str, Any] = {}
    shape = operation.input_shape
    payload = shape.serialization.get("payload") if shape else None
    if payload:
        found[payload] = request.get_data()
    elif request.mimetype == "application/json":
        found |= _object(request.get_data())
    sources: dict[str, Mapping[str, str]] = {
        "querystring": request.args.to_dict(),
        "header": {name.lower(): value for name, value in request.headers.items()},
    }
    for name, member in (shape.members if shape else {}).items():
        location, key = member.serialization.get("location"), member.serialization.get("name", name)
        key = key.lower() if location == "header" else key
        if location in sources and key in sources[location]:
            found[name] = _typed(member, sources[location][key])
    return found


def _typed(shape: Shape, text: str) -> Any:
    if shape.type_name in ("integer", "long"):
        return int(text) if text.lstrip("-").isdigit() else text
    if shape.type_name == "boolean":
        return text == "true"
    return base64.b64decode(text) if shape.type_name == "blob" else text


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
