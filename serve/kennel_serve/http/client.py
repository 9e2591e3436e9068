"""The model server's inference and management APIs as we ask them: kept connections on a Unix socket each.

httptools parses (the parser of uvicorn and Node); aiohttp's client, made for any server on the Internet, costs a
request 0.4 ms of the front door's one core, this 0.1, and each start of an endpoint a seventh of a second.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import httptools


@dataclass
class UpstreamResponse:
    """What the model server answers: header names in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Backend:
    """Its connections; as many are opened as there are requests at once."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()

    async def ask(
        self,
        method: str,
        path: str,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | bytearray = b"",
    ) -> UpstreamResponse:
        """
        Raises:
            TimeoutError: it takes longer than so many seconds.
            OSError: it does not answer, or hangs up.
        """
        while self._idle and self._idle[-1].closed:
            self._idle.pop()
        kept = bool(self._idle)
        connection = self._idle.pop() if kept else await self._open()
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items() if value)
        head = f"{method} {path} HTTP/1.1\r\nHost: kennel\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        try:
            return await self._asked(connection, head.encode(), body, seconds)
        except ConnectionResetError:
            if not kept or connection.heard or connection.given_up:
                raise
        # A kept connection may be closed just as it is used again: the request was not looked at.
        return await self._asked(await self._open(), head.encode(), body, seconds)

    async def _asked(
        self, connection: "_Connection", head: bytes, body: bytes | bytearray, seconds: float
    ) -> UpstreamResponse:
        self._busy.add(connection)
        try:
            answer = await connection.ask(head, body, seconds)
        except BaseException:  # cancelled too: what may still arrive has no reader
            connection.close()
            raise
        finally:
            self._busy.discard(connection)
        self._idle.append(connection)
        return answer

    def give_up(self) -> None:
        """Fail what is being asked, with OSError: the model server hangs."""
        for connection in list(self._busy):
            connection.give_up()
        self.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _open(self) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_unix_connection(_Connection, self._socket)
        return connection


class _Connection(asyncio.Protocol):
    """One request at a time; the methods that begin with on_ are the parser's."""

    _transport: asyncio.Transport
    _answered: asyncio.Future[UpstreamResponse]
    _deadline: asyncio.TimerHandle

    def __init__(self) -> None:
        self.closed = self.given_up = False
        self.heard = False  # something of the answer
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, head: bytes, body: bytes | bytearray, seconds: float) -> asyncio.Future[UpstreamResponse]:
        loop = asyncio.get_running_loop()
        self._answered = loop.create_future()
        self._answer, self._parts, self.heard = UpstreamResponse(), list[bytes](), False
        self._deadline = loop.call_later(seconds, self._fail, TimeoutError())
        if self.closed:
            self._fail(_hung_up())
        else:
            self._transport.writelines([head, body])
        return self._answered

    def close(self) -> None:
        self.closed = True
        self._transport.close()

    def give_up(self) -> None:
        self.closed = self.given_up = True
        self._transport.abort()  # close() would first send what a stopped process never takes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if hasattr(self, "_answered"):
            self._fail(_hung_up())

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        self._answer.body = b"".join(self._parts)
        self.closed = self.closed or not self._parser.should_keep_alive()
        self._deadline.cancel()
        if not self._answered.done():
            self._answered.set_result(self._answer)

    def _fail(self, error: OSError) -> None:
        self._deadline.cancel()
        if not self._answered.done():
            self._answered.set_exception(error)


def _hung_up() -> OSError:
    return ConnectionResetError("the model server hung up")
