"""Bodies as a user's code takes them, and what it gives as bytes: AWS's contract, by the encoders of its toolkit."""

import json
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import numpy as np
from sagemaker_inference import content_types, encoder
from sagemaker_inference.utils import parse_accept, remove_crlf

from kennel_serve.formats import npy, request_body
from kennel_serve.formats.request_body import RequestError

_HEADER_LENGTH = 1024  # as SageMaker takes them


def text(body: bytes, content_type: str) -> str | bytes:
    """A request's body: JSON and CSV as text.

    Raises:
        RequestError: 400, it is none.
    """
    if content_type.partition(";")[0].strip().lower() not in content_types.UTF8_TYPES:
        return body
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is not UTF-8: encode it so") from error


def array(prediction: Any) -> Any:
    """A tensor of torch's as numpy's array, anything else as it is."""
    if not hasattr(prediction, "detach"):
        return prediction
    tensor = prediction.detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:  # numpy has no bfloat16
        return tensor.float().numpy()


def are_probabilities(found: Any, classes: int) -> bool:
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
        return False
    fits = found.ndim == 2 and found.shape[1] == classes > 0 and len(found) > 0
    return fits and bool(((found >= 0) & (found <= 1 + 1e-5)).all())


def encoded(found: Any, accept: str) -> Any:
    """An array as the first type of an Accept header that the toolkit can write, and that type.

    A list is one where CSV or NPY is asked for and it fills an array; anything else comes back as it is.

    Raises:
        RequestError: 406, there is no such type, or it is CSV and the array has more than two dimensions.
    """
    kind = _kind(accept)
    if isinstance(found, list) and kind in (content_types.CSV, npy.KIND):
        with suppress(ValueError):  # rows of different lengths
            made = np.array(found)
            found = made if made.dtype.kind in "biufU" else found
    if not isinstance(found, np.ndarray):
        return found
    if not kind:
        known = ", ".join(sorted(encoder.SUPPORTED_CONTENT_TYPES))
        raise RequestError(
            HTTPStatus.NOT_ACCEPTABLE, f"accept {accept[:80]!r} cannot be served: ask for one of {known}"
        )
    if kind == content_types.CSV and found.ndim > 2:
        sentence = f"an answer of {found.ndim} dimensions is no CSV: ask for {request_body.JSON} or {npy.KIND}"
        raise RequestError(HTTPStatus.NOT_ACCEPTABLE, sentence)
    return encoder.encode(found, kind), kind


def _kind(accept: str) -> str:
    """The first type of an Accept header that the toolkit's encoders can write; empty: there is none."""
    names = (part.partition(";")[0].lower() for part in parse_accept(accept))
    kinds = (request_body.JSON if name.endswith("/*") else name for name in names)
    return next((kind for kind in kinds if kind in encoder.SUPPORTED_CONTENT_TYPES), "")


def serialised(result: Any, accept: str) -> tuple[bytes, str]:
    """An answer's bytes and content type, of whatever the user's code or ours gives: maybe both, as a tuple.

    Raises:
        TypeError: JSON has no word for it.
    """
    body, kind = result, ""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
        body, kind = result
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes | bytearray | memoryview):
        return json.dumps(body, default=_plain).encode(), header(kind) or request_body.JSON
    first = parse_accept(accept)[0].partition(";")[0]
    return bytes(body), header(kind) or (request_body.JSON if "*" in first else first)


def header(value: Any) -> str:
    """A header's value that the model server can send: one short line of ASCII. Others cost it the worker."""
    line = remove_crlf(str(value))[:_HEADER_LENGTH]
    return "".join(letter if " " <= letter <= "~" else "?" for letter in line)


def _plain(value: Any) -> Any:
    """What JSON has no word for: numpy's and torch's numbers and arrays."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON: let output_fn give str or bytes")
