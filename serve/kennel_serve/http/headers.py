"""The heads of HTTP/1.1: what the parser finds in one becomes a request, with limits; a reply becomes bytes."""

import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl

import httptools

from kennel_serve.http.messages import HttpRequest, HttpResponse, RefusedError

HEAD_BYTES = 32 * 1024  # of all headers
_URL_BYTES = 8190
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class Head:
    """One request's, part by part."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self._url = b""
        self._left = HEAD_BYTES

    def add_url(self, part: bytes) -> None:
        self._url += part
        if len(self._url) > _URL_BYTES:
            raise RefusedError(
                HTTPStatus.REQUEST_URI_TOO_LONG, f"the URL is longer than {_URL_BYTES} bytes: shorten it"
            )

    def add(self, name: bytes, value: bytes) -> None:
        self._left -= len(name) + len(value)
        if self._left < 0:
            raise too_long()
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def check(self, version: str) -> None:
        """What the parser would let pass, and a proxy before us could read otherwise.

        Raises:
            RefusedError: 400.
        """
        if version not in ("1.0", "1.1"):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "send HTTP/1.1")
        coding = self.headers.get("transfer-encoding", "chunked").lower()
        if coding != "chunked" or ("transfer-encoding" in self.headers and version == "1.0"):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "of Transfer-Encoding, HTTP/1.1's 'chunked' alone is taken")

    @property
    def length(self) -> int:
        """Of the body, 0 where it comes in chunks."""
        return int(self.headers.get("content-length", 0))

    def request(self, method: bytes, read: Callable[[], Awaitable[bytes | bytearray]]) -> HttpRequest:
        """
        Raises:
            RefusedError: 400.
        """
        url = self._url if self._url.startswith(b"/") else _without_host(self._url)
        path, _, query = url.decode().partition("?")
        options = parse_qsl(query, keep_blank_values=True) if query else []
        return HttpRequest(method.decode(), path, options, self.headers, read)

    def without_upgrade(self, method: bytes, version: str) -> bytes:
        """As it came, but for the other protocol that it offers."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items() if name != "upgrade")
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self._url, version.encode(), lines.encode("latin-1"))


def _without_host(url: bytes) -> bytes:
    """As clients of proxies write it."""
    try:
        parts = httptools.parse_url(url)
    except httptools.HttpParserError as error:
        raise unreadable() from error
    return (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")


def too_long() -> RefusedError:
    sentence = f"the headers are longer than {HEAD_BYTES // 1024} kB: send fewer, or shorter ones"
    return RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, sentence)


def unreadable() -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1: see to the request line and the headers")


def written(reply: HttpResponse, method: str, connection: str) -> bytes:
    """A reply as it is sent."""
    head = (
        f"HTTP/1.1 {reply.status} {_PHRASES.get(reply.status, '')}\r\n"
        f"Content-Type: {reply.content_type}\r\n"
        f"Date: {_date(int(time.time()))}\r\n"
    )
    bodiless = reply.status in _BODILESS
    if not bodiless:
        head += f"Content-Length: {len(reply.body)}\r\n"
    if reply.status == HTTPStatus.SERVICE_UNAVAILABLE:
        head += "Retry-After: 1\r\n"
    if reply.allow:
        head += f"Allow: {reply.allow}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    if connection:
        head += f"Connection: {connection}\r\n"
    return f"{head}\r\n".encode("latin-1", "replace") + (b"" if bodiless or method == "HEAD" else reply.body)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
