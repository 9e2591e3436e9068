"""What travels between a client's connection and the front door: a request, its body on the way, the reply.

How they are written on the wire is `server`'s matter.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from kennel.errors import UserError
from kennel_serve.formats.response_body import JSON, write_error

_BROKEN = "the body does not arrive as its headers say: send it again"
# Content-Encoding -> zlib's window bits. Others are left as they are: the photo's own head decides.
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_FIRST_STEP = 512  # bytes; what follows a member is copied, so that a step of all would be quadratic in members
_RAW_DEFLATE = -15  # what some clients call deflate


class RefusedError(UserError):
    """What is not done: an HTTP status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(" ".join(sentence.split()))
        self.status = status


@dataclass(frozen=True)
class HttpRequest:
    """What a client asks; its body may still be on its way.

    Args:
        path: as it came, without the query.
        headers: by names in lower case.
        read: waits for the body; raises RefusedError where it cannot be had.
    """

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    read: Callable[[], Awaitable[bytes | bytearray]]


@dataclass(frozen=True)
class HttpResponse:
    """What a client is answered."""

    status: int
    body: bytes
    content_type: str = JSON
    allow: str = ""  # the methods, where another one was used
    headers: Mapping[str, str] = field(default_factory=dict)  # a user's code's own, with names in lower case


def unpacks(encoding: str) -> bool:
    """Whether a body of this Content-Encoding is unpacked before it is handed on."""
    return encoding.lower() in _WINDOWS


def refusal(status: int, sentence: str) -> HttpResponse:
    return HttpResponse(int(status), write_error(sentence))


class Body:
    """A request's body as it arrives."""

    def __init__(self, limit: int, encoding: str, proceed: Callable[[], None] | None) -> None:
        """
        Args:
            limit: of bytes, packed or not.
            proceed: sends `100 Continue` to a client that waits for it (`Expect: 100-continue`).
        """
        self.complete = self.unwanted = False  # the latter: it was answered without it
        self.error: RefusedError | None = None
        self.proceed = proceed
        self._limit, self._encoding = limit, encoding
        self._bytes: bytes | bytearray = b""  # mostly one part, which is not copied
        self._size = 0
        self._wanted: asyncio.Future[None] | None = None

    async def read(self) -> bytes | bytearray:
        """
        Raises:
            RefusedError: 413, or 400 for what is not as its headers say.
        """
        if not self.complete and self.error is None:
            if self.proceed:
                self.proceed()
                self.proceed = None
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        if self.error:
            raise self.error
        if self._encoding in _WINDOWS:
            return await asyncio.to_thread(_unpacked, self._bytes, self._encoding, self._limit)
        return self._bytes

    def add(self, part: bytes) -> None:
        """
        Raises:
            RefusedError: 413.
        """
        self._size += len(part)
        if self._size > self._limit:
            raise too_large(self._limit)
        if self.unwanted:
            return
        if not self._bytes:
            self._bytes = part
            return
        if isinstance(self._bytes, bytes):
            self._bytes = bytearray(self._bytes)
        self._bytes += part

    def finish(self) -> None:
        self.complete = True
        self._wake()

    def fail(self, error: RefusedError) -> None:
        self.error = error
        self._wake()

    def _wake(self) -> None:
        if self._wanted and not self._wanted.done():
            self._wanted.set_result(None)


def too_large(limit: int) -> RefusedError:
    sentence = f"the body is larger than {limit / 1024 / 1024:g} MB: send less, or raise SAGEMAKER_MAX_PAYLOAD_IN_MB"
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{sentence} (or memory)")


def broken() -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, _BROKEN)


def _unpacked(packed: bytes | bytearray, encoding: str, limit: int) -> bytes:
    """A body without its Content-Encoding, never more than `limit`: a bomb ends where it would be too large."""
    window = _WINDOWS[encoding]
    if encoding == "deflate" and packed and packed[0] & 0xF != zlib.DEFLATED:
        window = _RAW_DEFLATE
    body, rest, at = bytearray(), memoryview(packed), 0
    try:
        while at < len(rest):  # gzip may have several members
            unpacker, step = zlib.decompressobj(window), _FIRST_STEP
            while not unpacker.eof:
                part = rest[at : at + step]
                if not part:
                    raise broken()
                body += unpacker.decompress(part, limit + 1 - len(body))
                if len(body) > limit:
                    raise too_large(limit)
                at += len(part) - len(unpacker.unused_data)
                step *= 2
    except zlib.error as error:
        raise broken() from error
    return bytes(body)
