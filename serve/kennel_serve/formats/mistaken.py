"""What was sent where a photo's bytes, or its base64, should be: a sentence for what clients often mistake for them."""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from kennel.photos.file_formats import HEAD, suffix
from kennel_serve.formats import npy
from kennel_serve.formats.response_body import JSON

_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,20}://", re.IGNORECASE)
_DEPTH = 3  # of objects in which a URL is looked for
_URL_SENTENCE = "a URL is not fetched: send the photo file's bytes"
_NUMBERS = re.compile(rb"\d\s*,\s*-?\d")
_MANY_QUOTES = 100  # more are strings, and so no pixels
# A body's first bytes -> the Content-Encoding that it should have come with; SageMaker passes none on.
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
URL_SAFE = str.maketrans("-_", "+/")  # base64's other alphabet -> its own
_LOOKED_AT = 200  # characters of base64


def as_photo(body: bytes) -> str:
    """What bytes are that cannot be read as a photo; empty: that isn't known."""
    if packed := next((name for head, name in _PACKED.items() if body.startswith(head)), None):
        return f"this is packed by {packed}, not a photo's bytes: send them unpacked"
    if body.startswith(npy.MAGIC):
        return f"this is a numpy array, not a photo's bytes: send it as {npy.KIND}"
    text = body[:_LOOKED_AT].decode("latin-1").lstrip()
    if _URL.match(text):
        return _URL_SENTENCE
    if text.startswith(("{", "[")):
        return f"this is JSON, not a photo's bytes: send it as {JSON}"
    if text.startswith("data:image/") or suffix(_bytes(text)[:HEAD]):
        return f'this is base64, not a photo\'s bytes: send the bytes, or {JSON} with {{"image": "<base64>"}}'
    return ""


def as_json(body: bytes) -> str:
    """What a body is that is no JSON; empty: that isn't known."""
    if suffix(body[:HEAD]):
        return "this is a photo's bytes, not JSON: send them as application/x-image"
    return ""


def url(entry: Any) -> str:
    """A sentence where a value of JSON is a URL, or an object that holds one; else empty."""
    return _URL_SENTENCE if any(_URL.match(text) for text in _strings(entry)) else ""


def pixels(entry: Any, hint: str) -> str:
    """A sentence where a value of JSON is a number or a list; else empty."""
    return _pixels(hint) if isinstance(entry, list | int | float) and not isinstance(entry, bool) else ""


def many_pixels(text: bytes, hint: str) -> str:
    """A sentence where very much JSON holds hardly a string; else empty."""
    return _pixels(hint) if text.count(b'"') < _MANY_QUOTES and _NUMBERS.search(text[:4096]) else ""


def _pixels(hint: str) -> str:
    return f"pixels are not taken in JSON: {hint}, or an array as {npy.KIND}"


def _strings(entry: Any, depth: int = _DEPTH) -> Iterator[str]:
    if isinstance(entry, dict) and depth:
        for value in entry.values():
            yield from _strings(value, depth - 1)
    elif isinstance(entry, str):
        yield entry


def _bytes(text: str) -> bytes:
    """The first bytes of base64, also in quotes or as Python shows it; empty: it is none."""
    letters = re.match(r"(?:b?['\"])?([A-Za-z0-9+/_\s-]*)", text)
    found = "".join(letters[1].split()).translate(URL_SAFE) if letters else ""
    try:
        return base64.b64decode(found[: len(found) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return b""
