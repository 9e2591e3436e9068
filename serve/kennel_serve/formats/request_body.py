"""Bytes to photos: the formats that /invocations takes, its limits, and every sentence a client can get for them.

`response_body` is the way back; callers find both here. Knows nothing of the model server or of prediction.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kennel.errors import UserError
from kennel.photos.decoder import MAX_PIXELS, TooManyPixelsError, decode, of_pixels, opened
from kennel.photos.preprocessing import Preprocessing, square
from kennel_serve.formats import mistaken, npy, response_body
from kennel_serve.formats.response_body import JSON as JSON
from kennel_serve.formats.response_body import JSON_LINES as JSON_LINES
from kennel_serve.formats.response_body import Options as Options
from kennel_serve.formats.response_body import RequestError as RequestError
from kennel_serve.formats.response_body import asked as asked
from kennel_serve.formats.response_body import check_accept as check_accept
from kennel_serve.formats.response_body import options as options
from kennel_serve.formats.response_body import write as write
from kennel_serve.formats.response_body import write_error as write_error

PHOTO_TYPES = (
    "application/x-image",
    "application/octet-stream",
    "binary/octet-stream",  # what S3 serves objects as that were stored without a type
    "image/*",
    "image/jpeg",
    "image/jpg",
    "image/pjpeg",
    "image/png",
    "image/x-png",
    "image/webp",
    "image/gif",
    "image/bmp",
    "image/tiff",
    "image/avif",
    "image/heic",
    "image/heif",
)
_MAX_DECODED = 256 << 20  # bytes of all squares of a request: 1,783 photos of 224 pixels
MAX_TOTAL_PIXELS = 3 * MAX_PIXELS  # of a request; each MAX_PIXELS may take seconds to decode, and a worker has 30
_MAX_MARKS = 10_000  # in JSON: 25 MB of empty lists would become 600 MB of objects
_HINT = 'send {"instances": ["<base64>", ...]} or {"image": "<base64>"}'
_LINE_HINT = 'send {"image": "<base64>"}, one photo a line'

_ENCODINGS = ("br", "compress", "dcb", "dcz", "x-compress", "zstd")  # those that exist and are not unpacked
_PIXELS = "uint8 (H, W, 3) or (N, H, W, 3), RGB"

# Types that other endpoints take -> why this one does not.
_REFUSED = {
    "multipart/form-data": "a form is not taken",
    "application/x-www-form-urlencoded": "a form is not taken",
    "application/x-npz": f"an archive of arrays is not taken: send one array as {npy.KIND}",
    "text/csv": "numbers are not taken, because only the photo's file says how it is to be decoded",
}

T = TypeVar("T")


@dataclass(frozen=True)
class PredictionRequest:
    """What one request asks.

    Args:
        photos: uint8 (N, 3, S, S).
        is_list: whether they came as a list.
        errors: of a list, what is wrong with each photo, or ""; one that is not empty is black.
    """

    photos: NDArray[np.uint8]
    is_list: bool
    errors: tuple[str, ...] = ()


def media_type(content_type: str | None) -> str:
    """The known type of a Content-Type header; a request without one is a photo.

    Raises:
        RequestError: 415, the type is none of ours.
    """
    kind = (content_type or PHOTO_TYPES[0]).partition(";")[0].strip().lower()
    known = (JSON, *JSON_LINES, npy.KIND, *PHOTO_TYPES)
    if kind in known:
        return kind
    if kind in _REFUSED:
        way = f"send the photo file's bytes as application/x-image, or {JSON} with base64"
        sentence = f"{_REFUSED[kind]}{', or' if ':' in _REFUSED[kind] else ':'} {way}"
    else:
        sentence = f"content type {kind[:80]!r} is not supported: send one of {', '.join(known)}"
    raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)


def check_encoding(encoding: str | None) -> None:
    """
    Args:
        encoding: the Content-Encoding that a body still has; what is no name of a packing is passed over.

    Raises:
        RequestError: 415, the body is packed in a way that is not unpacked here.
    """
    names = [name.strip() for name in (encoding or "").lower().split(",")]
    if len(names) > 1 or names[0] in _ENCODINGS:
        sentence = (
            f"content encoding {(encoding or '')[:80]!r} is not supported: send gzip, deflate, or the body as it is"
        )
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)


def read(
    body: bytes, content_type: str | None, preprocessing: Preprocessing, on_error: str = response_body.REQUEST
) -> PredictionRequest:
    """The photos of one request's body.

    Args:
        on_error: `response_body.LINE`, so that a bad photo of a list does not fail the others.

    Raises:
        RequestError: 415 for an unknown content type, 413 for too many photos or pixels, 400 for the rest.
    """
    kind = media_type(content_type)
    if not body:
        raise _bad("the body is empty: send a photo's bytes, or JSON")
    if kind in PHOTO_TYPES:
        return PredictionRequest(_photo(body, preprocessing, "")[None], is_list=False)
    if kind == npy.KIND:
        return _arrays(body, preprocessing)
    if kind == JSON:
        found, is_list = _entries(_parse(body, "", "the body", _HINT), most_photos(preprocessing))
        places = [f"instances[{index}]: " if is_list else "" for index in range(len(found))]
        attempts = _Attempts(places, keeps=is_list and on_error == response_body.LINE)
        photos = attempts(lambda entry, place: _base64(entry, place, _HINT), found)
    else:
        lines, is_list = _lines(body, most_photos(preprocessing)), True
        attempts = _Attempts(
            [f"line {number}: " for number in range(1, len(lines) + 1)], on_error == response_body.LINE
        )
        photos = attempts(_line, lines)
    _check_pixels([photo for photo in photos if photo is not None])
    side = preprocessing.image_size
    squares = np.zeros((len(photos), 3, side, side), np.uint8)  # filled in place: twice as many would not fit

    def fill(at: int, place: str) -> None:
        photo = photos[at]
        if photo is not None:
            squares[at] = _photo(photo, preprocessing, place)

    attempts(fill, range(len(photos)))
    return PredictionRequest(squares, is_list, tuple(attempts.errors))


class _Attempts:
    """Work on each photo of a request, of which some may fail."""

    def __init__(self, places: Sequence[str], keeps: bool) -> None:
        """
        Args:
            places: what each is called.
            keeps: whether to go on after one that is bad.
        """
        self._places, self._keeps = places, keeps
        self.errors = [""] * len(places)

    def __call__(self, work: Callable[[Any, str], T], rows: Sequence[Any]) -> list[T | None]:
        """`work` on each row and its place; None for one that is bad.

        Raises:
            RequestError: one is, and others are not to go on without it.
        """
        done: list[T | None] = []
        for at, (row, place) in enumerate(zip(rows, self._places, strict=True)):
            try:
                done.append(work(row, place))
            except RequestError as error:
                if not self._keeps:
                    raise
                self.errors[at] = str(error)
                done.append(None)
        return done


def most_photos(preprocessing: Preprocessing) -> int:
    """How many photos a request may have, by the memory that they take as the model's input."""
    return _MAX_DECODED // (3 * preprocessing.image_size**2)


def _parse(text: bytes, place: str, what: str, hint: str) -> Any:
    if sum(map(text.count, (b"[", b"{", b","))) > _MAX_MARKS:
        if pixels := mistaken.many_pixels(text, hint):
            raise _bad(f"{place}{pixels}")
        raise _large(f"{place}{what} holds more than {_MAX_MARKS} values of JSON: {hint}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if photo := mistaken.as_json(text):
            raise _bad(f"{place}{photo}") from error
        cause = "nested too deep" if isinstance(error, RecursionError) else str(error)[:120]
        raise _bad(f"{place}{what} is not JSON ({cause}): {hint}") from error


def _entries(row: Any, most: int) -> tuple[list[Any], bool]:
    """The photos named by a JSON body, still encoded, and whether it was a list."""
    key = next((key for key in ("instances", "inputs") if isinstance(row, dict) and key in row), None)
    if key:
        row = row[key]
        row = [row] if isinstance(row, str) else row
        if not isinstance(row, list):
            raise _bad(f"'{key}' is no list: {_HINT}")
    if not isinstance(row, list):
        return [row], False
    if not row:
        raise _bad(f"the list of photos is empty: {_HINT}")
    _check_count(len(row), most)
    return row, True


def _lines(body: bytes, most: int) -> list[bytes]:
    """The lines of a JSON Lines body, blank ones at its end left out."""
    whole = body.rstrip()
    if not whole:
        raise _bad(f"there is no line with a photo: {_LINE_HINT}")
    _check_count(1 + whole.count(b"\n"), most)
    return whole.split(b"\n")


def _line(line: bytes, place: str) -> bytes:
    if not line.strip():
        raise _bad(f"{place}it is blank: {_LINE_HINT}")
    return _base64(_parse(line, place, "it", _LINE_HINT), place, _LINE_HINT)


def _base64(entry: Any, place: str, hint: str) -> bytes:
    """The bytes of one entry: base64, or `{"b64": base64}`, or `{"image": base64}`; a data URL's head is dropped."""
    found = entry
    if isinstance(entry, dict):
        found = next((entry[key] for key in ("b64", "image") if key in entry), None)
    if url := mistaken.url(entry if found is None else found):
        raise _bad(f"{place}{url} in base64")
    if pixels := mistaken.pixels(found, hint):
        raise _bad(f"{place}{pixels}")
    if not isinstance(found, str):
        raise _bad(f"{place}no base64 photo there: {hint}")
    text = found.partition(",")[2] if found.startswith("data:") else found
    text = "".join(text.split()).translate(mistaken.URL_SAFE)
    text += "=" * (-len(text) % 4 if len(text) % 4 > 1 else 0)  # which some clients leave out, most often URL-safe ones
    try:
        photo = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"{place}not base64 ({error}): encode the photo file's bytes") from error
    if not photo:
        raise _bad(f"{place}the photo is empty: encode the photo file's bytes")
    return photo


def _check_count(photos: int, most: int) -> None:
    if photos > most:
        raise _large(f"the list has {photos} photos, the limit is {most}: split the request")


def _check_pixels(photos: Sequence[bytes]) -> None:
    """All photos of a request together, by what their heads say, before one of them is decoded.

    One that is too large by itself is refused for that.
    """
    _check_total(sum(size for size in map(_pixels, photos) if size <= MAX_PIXELS) if len(photos) > 1 else 0)


def _check_total(total: int) -> None:
    if total > MAX_TOTAL_PIXELS:
        raise _large(
            f"the photos have {total} pixels together, the limit is {MAX_TOTAL_PIXELS}: split the request, "
            "or make them smaller"
        )


def _pixels(photo: bytes) -> int:
    try:
        with opened(photo) as image:
            return image.width * image.height
    except Exception:  # noqa: BLE001 # Pillow raises nearly anything on hostile bytes; decoding says what is wrong
        return 0


def _arrays(body: bytes, preprocessing: Preprocessing) -> PredictionRequest:
    """The pixels of one photo, or of a list of them, as numpy writes an array."""
    try:
        found = npy.read(body)
    except ValueError as error:
        raise _bad(f"not what numpy.save writes ({error}): send such a file, {_PIXELS}") from error
    if found.dtype != np.uint8 or found.ndim not in (3, 4) or found.shape[-1] != 3 or not found.size:
        shape = ", ".join(map(str, found.shape[:9]))
        raise _bad(f"an array of {found.dtype} ({shape}) is not taken: send {_PIXELS}, or photo files")
    photos: NDArray[np.uint8] = found.reshape(-1, *found.shape[-3:]).view(np.uint8)
    _check_count(len(photos), most_photos(preprocessing))
    height, width = photos.shape[1:3]
    if height * width > MAX_PIXELS:
        raise _large(f"a photo has {width}x{height} pixels, more than {MAX_PIXELS}: make it smaller")
    _check_total(len(photos) * height * width)
    return PredictionRequest(
        np.stack([square(of_pixels(photo, preprocessing), preprocessing) for photo in photos]), found.ndim == 4
    )


def _photo(photo: bytes, preprocessing: Preprocessing, place: str) -> NDArray[np.uint8]:
    try:
        return square(decode(photo, preprocessing), preprocessing)
    except TooManyPixelsError as error:
        raise _large(f"{place}{error}") from error
    except UserError as error:
        if other := mistaken.as_photo(photo):
            raise _bad(f"{place}{other}") from error
        raise _bad(f"{place}{error}") from error


def _bad(sentence: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, sentence)


def _large(sentence: str) -> RequestError:
    return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
