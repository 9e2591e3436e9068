"""One client's connection: which request is answered when, and how it all ends. Heads and bodies are read elsewhere.

Requests of a client that does not wait are answered one after another; meanwhile nothing more is read from it.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from kennel_serve.http import headers
from kennel_serve.http.headers import Head
from kennel_serve.http.messages import Body, HttpRequest, HttpResponse, RefusedError, broken, refusal, too_large

_LINGER_SECONDS = 5  # for a client to read our last word: were its bytes unread when we close, it might lose that
_MOST_WAITING = 100
_PROBE_SECONDS = 3  # a client that is answered sooner sees nothing of it
_RESET_SECONDS = 0.05
_TCP_CLOSE = 7  # Linux's number of the state
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_log = logging.getLogger(__name__)


class State(Enum):
    """How far a connection has come; it only goes forward.

    | from | to | when |
    |---|---|---|
    | OPEN | ENDING | a request is refused, or the client has sent its last byte |
    | OPEN, ENDING | LINGERING | the last answer is written: the last that was asked for, or one that says `close` |
    | any | CLOSED | the client has hung up, or was hung up on |
    """

    OPEN = auto()  # requests are read
    ENDING = auto()  # those that wait are answered, what still comes is dropped
    LINGERING = auto()  # we have sent our end, and wait for the client's
    CLOSED = auto()


class Server(Protocol):
    """What a connection uses of the port that it belongs to."""

    handle: Callable[[HttpRequest], Awaitable[HttpResponse]]  # raises nothing
    max_bytes: int  # of a body
    stalled: float  # seconds
    idle: float  # seconds
    closing: bool
    connections: "set[Connection]"
    answering: set[asyncio.Task[None]]

    def make_room(self) -> None: ...


@dataclass(eq=False)
class _Exchange:
    """A request and what its answer has to heed."""

    request: HttpRequest
    body: Body
    keep: bool  # the connection, as the client wishes
    old: bool  # HTTP/1.0


class Connection(asyncio.Protocol):
    """The methods that begin with on_ are the parser's; what they raise ends in `_feed`."""

    _transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._time = asyncio.get_running_loop().time
        self._since = self._time()  # ... when the client has done nothing that it has to do
        self._parser = httptools.HttpRequestParser(self)
        self._head = Head()  # of the request that arrives, or the last one
        self._body: Body | None = None  # ... its body, once the head is complete
        self._arriving = False
        self._barren = 0  # bytes since a body's last, or since the request before
        self._current: _Exchange | None = None  # being answered, or answered before all of it has arrived
        self._task: asyncio.Task[None] | None = None  # which answers it
        self._waiting: deque[_Exchange | RefusedError] = deque()
        self._state = State.OPEN
        self._gone = False  # the client sends no more
        self._clogged = False  # the client does not read
        self._unsent = 0  # bytes, at the last check
        self._paused = False  # we do not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._server.connections.add(self)
        self._server.make_room()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)
        self._state, self._gone = State.CLOSED, True
        self._waiting.clear()
        if self._task:
            self._task.cancel()  # its answer has no reader
        if self._body and not self._body.complete:
            self._body.fail(broken())
        del self._parser  # it refers to us

    def data_received(self, data: bytes) -> None:
        self._barren += len(data)
        while data and self._state is State.OPEN:
            data = self._feed(data)
        # Or a header without an end would fill the memory.
        if self._barren > headers.HEAD_BYTES and self._state is State.OPEN:
            self._refuse(headers.too_long())

    def eof_received(self) -> bool:
        """A client that has sent all may still wait for answers."""
        self._gone = True
        if self._arriving and self._state is State.OPEN:
            self._refuse(broken())
        self._end()
        wanted = bool(self._current or self._waiting) and self._state is State.ENDING
        if wanted and self._current and not self._current.old:
            asyncio.get_running_loop().call_later(_PROBE_SECONDS, self._probe, self._current)
        return wanted

    def _probe(self, asked: _Exchange) -> None:
        """The client has closed one direction, or both: in the latter case what we send comes back as a reset."""
        if self._current is asked and self._task and not self._transport.is_closing():
            self._transport.write(_CONTINUE)
            asyncio.get_running_loop().call_later(_RESET_SECONDS, self._leave_if_reset)

    def _leave_if_reset(self) -> None:
        """After its end nothing is read from a connection, so that its reset is not heard of."""
        if not self._transport.is_closing() and self._transport.get_extra_info("socket").getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, 1
        ) == bytes([_TCP_CLOSE]):
            self._transport.abort()

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        if not self._current:
            self._next()

    def close(self) -> None:
        self._transport.close()

    @property
    def idle_since(self) -> float | None:
        """None where something is asked or answered."""
        return None if self._current or self._waiting else self._since

    def drop(self) -> None:
        self._transport.abort()

    def check(self, now: float) -> None:
        """Hang up on a client that keeps us waiting, or has left."""
        if self._gone:
            self._leave_if_reset()
        if self._task and self._current and (self._current.body.complete or self._current.body.error):
            return
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._since = unsent, now
        limit = self._server.stalled if self._arriving or self._barren or unsent else self._server.idle
        if now - self._since < (_LINGER_SECONDS if self._state is State.LINGERING and not unsent else limit):
            return
        if self._arriving and self._state is State.OPEN:
            self._refuse(RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the request stopped arriving: send it again"))
        else:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._head, self._body = Head(), None
        self._arriving, self._since = True, self._time()

    def on_url(self, part: bytes) -> None:
        self._head.add_url(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._body:  # those that follow a chunked body are dropped
            self._head.add(name, value)

    def on_headers_complete(self) -> None:
        method, version = self._parser.get_method(), self._parser.get_http_version()
        if method == b"CONNECT":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "this is no proxy: CONNECT is not taken")
        if self._parser.should_upgrade():
            return  # to `_feed`
        self._head.check(version)
        if len(self._waiting) >= _MOST_WAITING:
            raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS, "too many requests at once: wait for the answers")
        fields, limit = self._head.headers, self._server.max_bytes
        asks = fields.get("expect", "").lower() == "100-continue" and version == "1.1"
        proceed = partial(self._transport.write, _CONTINUE) if asks else None
        body = Body(limit, fields.get("content-encoding", "").lower(), proceed)
        request = self._head.request(method, body.read)
        self._body = body
        self._take(_Exchange(request, body, self._parser.should_keep_alive(), version == "1.0"))
        if self._head.length > limit:
            raise too_large(limit)

    def on_body(self, part: bytes) -> None:
        self._barren, self._since = 0, self._time()
        if self._body and self._state is State.OPEN:
            self._body.add(part)

    def on_message_complete(self) -> None:
        if not self._body:
            return
        self._arriving, self._barren, self._since = False, 0, self._time()
        self._body.finish()
        if self._current and self._current.body is self._body and not self._task:
            self._next()

    def _feed(self, data: bytes) -> bytes:
        """Parse; what is to be parsed after it."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # curl and Java offer HTTP/2 so, and take no answer for a no; the parser would take the body for HTTP/2.
            head = self._head.without_upgrade(self._parser.get_method(), self._parser.get_http_version())
            self._parser = httptools.HttpRequestParser(self)
            return head + data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if self._state is State.OPEN:
                self._refuse(self._reason(error))
        return b""

    def _reason(self, error: httptools.HttpParserError) -> RefusedError:
        cause = error.__context__  # what a callback raised
        if isinstance(cause, RefusedError):
            return cause
        if isinstance(error, httptools.HttpParserCallbackError):
            _log.error("the front door failed", exc_info=cause)
        return broken() if self._body and self._arriving else headers.unreadable()

    def _refuse(self, error: RefusedError) -> None:
        """The request that arrives, and whatever would come after it."""
        self._end()
        if not (self._body and self._arriving):
            self._take(error)
            return
        self._body.fail(error)
        if self._current and self._current.body is self._body and not self._task:  # answered already
            self._hang_up()

    def _end(self) -> None:
        """Take no more requests."""
        if self._state is State.OPEN:
            self._state = State.ENDING

    def _take(self, asked: _Exchange | RefusedError) -> None:
        if not (self._current or self._waiting or self._clogged):
            self._begin(asked)
            return
        self._waiting.append(asked)
        self._pause(True)

    def _begin(self, asked: _Exchange | RefusedError) -> None:
        if isinstance(asked, RefusedError):
            self._transport.write(headers.written(refusal(asked.status, str(asked)), "", "close"))
            self._hang_up()
            return
        self._current = asked
        self._task = asyncio.get_running_loop().create_task(self._answer(asked))
        self._server.answering.add(self._task)
        self._task.add_done_callback(self._server.answering.discard)

    async def _answer(self, asked: _Exchange) -> None:
        try:
            reply = await self._server.handle(asked.request)
        except asyncio.CancelledError:  # the client has left, or the endpoint ends
            reply = refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the endpoint stops before the answer is there: ask again")
        finally:
            self._task = None
        if not self._transport.is_closing():
            self._reply(asked, reply)

    def _reply(self, asked: _Exchange, reply: HttpResponse) -> None:
        body = asked.body
        unread = not body.complete and (body.error or body.proceed)  # it will not come, or not as it should
        ending = self._state is not State.OPEN and not self._waiting
        last = not asked.keep or unread or self._server.closing or ending
        connection = "close" if last else "keep-alive" if asked.old else ""
        self._transport.write(headers.written(reply, asked.request.method, connection))
        self._since = self._time()
        body.unwanted = True
        if last:
            self._hang_up()
        elif body.complete:
            self._next()

    def _next(self) -> None:
        """The request before is over."""
        self._current = None
        if self._waiting and not self._clogged:
            self._begin(self._waiting.popleft())
            self._pause(bool(self._waiting))
        if self._state is not State.OPEN and not (self._current or self._waiting):
            self._hang_up()

    def _hang_up(self) -> None:
        """Say so, and drop what still comes until the client has hung up too."""
        self._current = None
        if self._state in (State.LINGERING, State.CLOSED):
            return
        self._state, self._since = State.LINGERING, self._time()
        if self._gone:
            self._transport.close()
            return
        self._waiting.clear()
        self._pause(False)
        self._transport.write_eof()

    def _pause(self, wanted: bool) -> None:
        if wanted == self._paused or self._gone or self._transport.is_closing():
            return
        self._paused = wanted
        (self._transport.pause_reading if wanted else self._transport.resume_reading)()
