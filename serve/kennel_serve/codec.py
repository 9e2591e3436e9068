"""Bytes to photos, probabilities to bytes: the formats of /invocations, and every sentence a client can get for them.

One photo answers `{"predictions": [{"label": "cat", "probability": 0.93}, ...]}`, most probable first; a JSON list of
photos answers `{"predictions": [[{...}, ...], ...]}`, one row per photo, also when it holds only one.
Knows nothing of the model server, and not how a photo is predicted.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sagemaker_inference.errors import BaseInferenceToolkitError
from sagemaker_inference.utils import parse_accept, remove_crlf

from kennel.errors import UserError
from kennel.preprocessing import Preprocessing, TooManyPixelsError, decode, square

JSON = "application/json"
PHOTO_TYPES = (
    "application/x-image",
    "application/octet-stream",
    "image/jpeg",
    "image/jpg",
    "image/png",
    "image/webp",
    "image/gif",
    "image/bmp",
    "image/tiff",
)
MAX_PHOTOS = 256
TOP_K = 5
_HINT = 'send {"instances": ["<base64>", ...]} or {"image": "<base64>"}'


class RequestError(BaseInferenceToolkitError, UserError):  # type: ignore[misc] # the toolkit has no types
    """A request that its sender can mend: an HTTP status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(int(status), remove_crlf(sentence), status.phrase)

    def __str__(self) -> str:
        return str(self.message)


@dataclass(frozen=True)
class Request:
    """What one request asks: photos, uint8 (N, 3, S, S), and whether they came as a list."""

    photos: NDArray[np.uint8]
    is_list: bool


def media_type(content_type: str | None) -> str:
    """The known type of a Content-Type header; a request without one is a photo.

    Raises:
        RequestError: 415, the type is none of ours.
    """
    kind = (content_type or PHOTO_TYPES[0]).partition(";")[0].strip().lower()
    if kind in (JSON, *PHOTO_TYPES):
        return kind
    known = ", ".join((JSON, *PHOTO_TYPES))
    raise RequestError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content type {kind[:80]!r} is not supported: send one of {known}"
    )


@dataclass(frozen=True)
class Options:
    """How an answer is to look."""

    top_k: int


def options(accept: str | None, attributes: str | None) -> Options:
    """What the Accept header and the custom attributes (`top_k=3`) ask for.

    Raises:
        RequestError: 406 for an Accept that cannot be served, 400 for the rest.
    """
    check_accept(accept)
    return Options(top_k(attributes))


def check_accept(accept: str | None) -> None:
    """Raises RequestError 406 where the Accept header leaves out JSON, the only answer there is."""
    kinds = [kind.partition(";")[0].lower() for kind in parse_accept(accept or JSON)]
    if not {JSON, "application/*", "*/*", ""} & set(kinds):
        raise RequestError(
            HTTPStatus.NOT_ACCEPTABLE, f"accept {(accept or '')[:80]!r} cannot be served: ask for {JSON} or */*"
        )


def read(body: bytes, content_type: str | None, preprocessing: Preprocessing) -> Request:
    """The photos of one request's body.

    Raises:
        RequestError: 415 for an unknown content type, 413 for too many photos or pixels, 400 for the rest.
    """
    kind = media_type(content_type)
    if not body:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is empty: send a photo's bytes, or JSON")
    if kind != JSON:
        return Request(_photo(body, preprocessing, "")[None], is_list=False)
    found, is_list = _entries(_parse(body))
    rows = []
    for index, entry in enumerate(found):
        place = f"instances[{index}]: " if is_list else ""
        rows.append(_photo(_base64(entry, place), preprocessing, place))
    return Request(np.stack(rows), is_list)


def write(
    probabilities: NDArray[np.float32], class_names: tuple[str, ...], options: Options, is_list: bool
) -> tuple[bytes, str]:
    """The answer to probabilities (N, classes), and its content type."""
    answers = []
    for row in probabilities:
        best = np.argsort(-row, kind="stable")[: options.top_k]
        answers.append([{"label": class_names[i], "probability": round(float(row[i]), 6)} for i in best])
    return json.dumps({"predictions": answers if is_list else answers[0]}).encode(), JSON


def write_error(sentence: str) -> bytes:
    return json.dumps({"error": sentence}).encode()


def top_k(attributes: str | None) -> int:
    """The number of labels asked for in X-Amzn-SageMaker-Custom-Attributes (`top_k=3`), 5 where it says nothing.

    Raises:
        RequestError: 400, not a whole number from 1.
    """
    for pair in (attributes or "").replace(";", ",").split(","):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "top_k":
            text = value.strip()
            if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) > 0):
                raise RequestError(HTTPStatus.BAD_REQUEST, f"top_k={text[:20]!r}: write a whole number from 1")
            return int(text)
    return TOP_K


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        cause = "nested too deep" if isinstance(error, RecursionError) else str(error)[:120]
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not JSON ({cause}): {_HINT}") from error


def _entries(row: Any) -> tuple[list[Any], bool]:
    """The photos named by a JSON body, still encoded, and whether it was a list."""
    if isinstance(row, dict) and "instances" in row:
        row = row["instances"]
        if not isinstance(row, list):
            raise RequestError(HTTPStatus.BAD_REQUEST, f"'instances' is no list: {_HINT}")
    if not isinstance(row, list):
        return [row], False
    if not row:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the list of photos is empty: {_HINT}")
    if len(row) > MAX_PHOTOS:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the list has {len(row)} photos, the limit is {MAX_PHOTOS}: split the request",
        )
    return row, True


def _base64(entry: Any, place: str) -> bytes:
    """The bytes of one entry: base64, or `{"b64": base64}`, or `{"image": base64}`; a data URL's head is dropped."""
    if isinstance(entry, dict):
        entry = next((entry[key] for key in ("b64", "image") if key in entry), None)
    if not isinstance(entry, str):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{place}no base64 photo there: {_HINT}")
    text = entry.partition(",")[2] if entry.startswith("data:") else entry
    try:
        photo = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            HTTPStatus.BAD_REQUEST, f"{place}not base64 ({error}): encode the photo file's bytes"
        ) from error
    if not photo:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{place}the photo is empty: encode the photo file's bytes")
    return photo


def _photo(photo: bytes, preprocessing: Preprocessing, place: str) -> NDArray[np.uint8]:
    try:
        return square(decode(photo, preprocessing), preprocessing)
    except TooManyPixelsError as error:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{place}{error}") from error
    except UserError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{place}{error}") from error
