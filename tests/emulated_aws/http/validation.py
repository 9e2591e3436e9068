"""A request's parameters judged by botocore's service model, in AWS's own words.

botocore's client looks for missing and unknown members and some types alone; the service looks at lengths, ranges,
patterns and enums, too, and a request that passes the client may still be refused.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape

from .errors import invalid

_NUMBERS = ("integer", "long", "float", "double")
_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "timestamp": (int, float, str),
    "blob": (str, bytes),
}


def check(operation: OperationModel, params: dict[str, Any]) -> None:
    """
    Raises:
        AwsError: ValidationException, with every fault.
    """
    shape = operation.input_shape
    faults = list(_faults(shape, params, "")) if shape else []
    if faults:
        many = "s" if len(faults) > 1 else ""
        raise invalid(f"{len(faults)} validation error{many} detected: {'; '.join(faults)}")


def _faults(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        yield from _structure(shape, value, path)
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            yield _unfit(value, path, "a list")
            return
        yield from _length(shape, len(value), value, path)
        for i, one in enumerate(value, 1):
            yield from _faults(shape.member, one, f"{path}.{i}.member")
    elif isinstance(shape, MapShape):
        if not isinstance(value, dict):
            yield _unfit(value, path, "a map")
            return
        yield from _length(shape, len(value), value, path)
        for key, one in value.items():
            yield from _faults(shape.key, key, path)
            yield from _faults(shape.value, one, f"{path}.{key}.member")
    else:
        yield from _scalar(shape, value, path)


def _structure(shape: StructureShape, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _unfit(value, path, "a structure")
        return
    if getattr(shape, "is_document_type", False):
        return
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"Value null at '{_below(path, name)}' failed to satisfy constraint: Member must not be null"
    for name, one in value.items():
        if name not in shape.members:
            yield f"Unknown parameter '{_below(path, name)}', must be one of: {', '.join(shape.members)}"
        elif one is not None:
            yield from _faults(shape.members[name], one, _below(path, name))


def _scalar(shape: Shape, value: Any, path: str) -> Iterator[str]:
    kind = shape.type_name
    known = _TYPES.get(kind, ())
    if known and (not isinstance(value, known) or (kind != "boolean" and isinstance(value, bool))):
        yield _unfit(value, path, f"of type {kind}")
        return
    if kind == "string":
        yield from _text(shape, value, path)
    elif kind in _NUMBERS:
        if value < shape.metadata.get("min", value):
            yield _unfit(value, path, f"greater than or equal to {shape.metadata['min']}")
        if value > shape.metadata.get("max", value):
            yield _unfit(value, path, f"less than or equal to {shape.metadata['max']}")


def _text(shape: Shape, value: str, path: str) -> Iterator[str]:
    yield from _length(shape, len(value), value, path)
    pattern = shape.metadata.get("pattern")
    if pattern and (known := _compiled(pattern)) and not known.fullmatch(value):
        start = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy"
        yield f"{start} regular expression pattern: {pattern}"
    if isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        start = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy"
        yield f"{start} enum value set: [{', '.join(shape.enum)}]"


def _length(shape: Shape, length: int, value: Any, path: str) -> Iterator[str]:
    if length < shape.metadata.get("min", 0):
        yield _unfit(value, path, "", f"length greater than or equal to {shape.metadata['min']}")
    if length > shape.metadata.get("max", length):
        yield _unfit(value, path, "", f"length less than or equal to {shape.metadata['max']}")


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern, re.ASCII)
    except re.error:  # a few use what Java alone has, \p{L}
        return None


def _unfit(value: Any, path: str, be: str, have: str = "") -> str:
    must = f"have {have}" if have else f"be {be}" if be.startswith("of ") or be.startswith("a ") else f"have value {be}"
    return f"Value '{str(value)[:200]}' at '{path}' failed to satisfy constraint: Member must {must}"


def _below(path: str, name: str) -> str:
    """AWS writes members in lower camel case."""
    own = name[:1].lower() + name[1:]
    return f"{path}.{own}" if path else own
