"""What an answer of /invocations holds, how it is written, and how its client says which it wants.

JSON is `{"predictions": [{"label": "cat", "probability": 0.93}, ...]}`, most probable first, or a list of such lists;
JSON Lines is one such object a photo; CSV one row a photo. Knows neither photos nor the model server.
The Accept header is taken apart here: werkzeug could do it, and would cost each worker 85 ms at its start.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sagemaker_inference.errors import BaseInferenceToolkitError
from sagemaker_inference.utils import parse_accept, remove_crlf

from kennel.errors import UserError

JSON = "application/json"
CSV = "text/csv"
JSON_LINES = ("application/jsonlines", "application/x-jsonlines", "application/jsonl")
TOP_K = 5
MAX_BYTES = 100 * 1024 * 1024  # of a body; a worker that sends more is lost
_DIGITS = 6  # of a probability
_COLUMNS = ("label", "probability")
_TRUE, _FALSE = ("", "1", "true"), ("0", "false")
REQUEST, LINE = ON_ERROR = ("request", "line")  # what a bad photo of a list fails: all of it, or its own line


class RequestError(BaseInferenceToolkitError, UserError):  # type: ignore[misc] # the toolkit has no types
    """A request that its sender can fix: an HTTP status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(int(status), remove_crlf(sentence), status.phrase)

    def __str__(self) -> str:
        return str(self.message)


@dataclass(frozen=True)
class Options:
    """How an answer is to look."""

    top_k: int | None = TOP_K  # None: every class
    threshold: float = 0.0  # labels below it are left out
    kind: str = JSON
    header: bool = False  # a first row that names CSV's columns
    on_error: str = REQUEST


def options(
    accept: str | None,
    attributes: str | None,
    content_type: str | None = None,
    default_accept: str = JSON,
    default_on_error: str = REQUEST,
) -> Options:
    """What the Accept header and the custom attributes (`top_k=3,threshold=0.1`, `all`) ask for.

    Args:
        content_type: of the request: JSON Lines are answered in kind where nothing else is asked for.
        default_accept: the endpoint's, for requests without an Accept header.
        default_on_error: the endpoint's, for requests that do not say it.

    Raises:
        RequestError: 406 for an Accept that cannot be served, 400 for the rest.
    """
    sent = (content_type or "").partition(";")[0].strip().lower()
    default = "*/*" if default_accept == JSON else default_accept
    kind, header = _negotiate(accept or default, sent if sent in JSON_LINES else JSON)
    said = _said(_pairs(attributes or ""))
    counts = [name for name in said if name == "top_k" or (name == "all" and said[name].lower() in _TRUE)]
    top_k = None if counts[:1] == ["all"] else int(said.get("top_k", TOP_K))
    return Options(top_k, float(said.get("threshold", 0)), kind, header, said.get("on_error", default_on_error))


def asked(query: Iterable[tuple[str, str]], attributes: str) -> str:
    """A URL's options put before the custom attributes, so that they win: of what is said twice the first counts.

    Raises:
        RequestError: 400, a name or a value in the query that means nothing here.
    """
    pairs = list(query)
    for name, _ in pairs:
        if name not in _VALUES:
            known = ", ".join(_VALUES)
            raise RequestError(HTTPStatus.BAD_REQUEST, f"the query's {name[:40]!r} is no option: there are {known}")
    said = [f"{name}={value}" for name, value in _said(pairs).items()]
    return ",".join([*said, attributes] if attributes else said)


def check_accept(accept: str | None) -> None:
    """Raises RequestError 406 where an Accept header allows none of our content types."""
    _negotiate(accept, JSON)


def write(
    probabilities: NDArray[np.float32],
    class_names: tuple[str, ...],
    options: Options,
    is_list: bool,
    errors: Sequence[str] = (),
) -> tuple[bytes, str]:
    """The answer to probabilities (N, classes), and its content type.

    Args:
        errors: of N photos what is wrong with each, or "": stands in the place of its labels; in CSV it has none.
    """
    shares = probabilities.astype(np.float64).round(_DIGITS)  # so that the threshold is held against what is shown
    errors = errors or [""] * len(shares)
    if options.kind == CSV:
        shares[[bool(error) for error in errors]] = -1  # below any threshold
        return _csv(shares, class_names, options), CSV
    best = [_best(row, class_names, options) for row in shares]
    named: list[Any] = [
        {"error": error} if error else [dict(zip(_COLUMNS, pair, strict=True)) for pair in row]
        for row, error in zip(best, errors, strict=True)
    ]
    if options.kind in JSON_LINES:
        lines = [row if error else {"predictions": row} for row, error in zip(named, errors, strict=True)]
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines), options.kind
    return json.dumps({"predictions": named if is_list else named[0]}).encode(), JSON


def write_error(sentence: str) -> bytes:
    return json.dumps({"error": sentence}).encode()


def _best(row: NDArray[np.float64], class_names: tuple[str, ...], options: Options) -> list[tuple[str, float]]:
    order = np.argsort(-row, kind="stable")[: options.top_k]
    return [(class_names[i], float(row[i])) for i in order if row[i] >= options.threshold]


def _csv(shares: NDArray[np.float64], class_names: tuple[str, ...], options: Options) -> bytes:
    """One row a photo: label, probability, label, ... or, where all are asked for, a probability per class in order.

    What the threshold leaves out is empty cells: every row has as many.
    """
    columns: list[object] = list(class_names)
    rows: list[list[object]] = [[p if p >= options.threshold else "" for p in row] for row in shares.tolist()]
    if options.top_k is not None:
        places = range(1, min(options.top_k, len(class_names)) + 1)
        columns = [f"{name}_{place}" for place in places for name in _COLUMNS]
        rows = [[cell for pair in _best(row, class_names, options) for cell in pair] for row in shares]
        rows = [row + [""] * (len(columns) - len(row)) for row in rows]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns] * options.header + rows)
    return text.getvalue().encode()


def _negotiate(accept: str | None, preferred: str) -> tuple[str, bool]:
    """The content type that an Accept header asks for, and whether CSV is to name its columns (`header=present`)."""
    wanted = dict(_range(text) for text in parse_accept(accept or "") if text) or {"*/*": (1.0, False)}
    best, kind = 0.0, ""
    for offer in dict.fromkeys((preferred, JSON, *JSON_LINES, CSV)):
        names = (offer, offer.partition("/")[0] + "/*", "*/*")  # the most exact one that is there counts
        quality = next((wanted[name][0] for name in names if name in wanted), 0.0)
        if quality > best:
            best, kind = quality, offer
    if not kind:
        raise RequestError(
            HTTPStatus.NOT_ACCEPTABLE,
            f"accept {(accept or '')[:80]!r} cannot be served: ask for {JSON}, {JSON_LINES[0]}, {CSV} or */*",
        )
    return kind, kind in wanted and wanted[kind][1]


def _range(text: str) -> tuple[str, tuple[float, bool]]:
    """One part of an Accept header: its name, its quality, and whether it says `header=present`."""
    name, *rest = text.lower().split(";")
    parameters = dict(part.partition("=")[::2] for part in rest)
    quality = parameters.get("q", "1")
    return name, (float(quality) if _is_share(quality) else 1.0, parameters.get("header") == "present")


def _pairs(attributes: str) -> list[tuple[str, str]]:
    found = (pair.partition("=") for pair in attributes.replace(";", ",").split(","))
    return [(name.strip().lower(), value) for name, _, value in found]


def _said(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The options among the pairs, in order, checked; others are somebody else's. A name's first value counts."""
    found: dict[str, str] = {}
    for name, value in pairs:
        text = value.strip()
        if name in _VALUES:
            is_one, hint = _VALUES[name]
            if not is_one(text):
                raise RequestError(HTTPStatus.BAD_REQUEST, f"{name}={text[:20]!r}: write {hint}")
            found.setdefault(name, text)
    return found


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7 and int(text) > 0


def _is_share(text: str) -> bool:
    try:
        return text.isascii() and "_" not in text and len(text) < 30 and 0 <= float(text) <= 1
    except ValueError:
        return False


def _is_switch(text: str) -> bool:
    return text.lower() in (*_TRUE, *_FALSE)


# Option -> what its value may be, and what to write.
_VALUES: dict[str, tuple[Callable[[str], bool], str]] = {
    "top_k": (_is_count, "a whole number from 1"),
    "threshold": (_is_share, "a number from 0 to 1"),
    "all": (_is_switch, "true or false"),
    "on_error": (ON_ERROR.__contains__, " or ".join(ON_ERROR)),
}
