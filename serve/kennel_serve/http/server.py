"""HTTP/1.1 on the public port: its connections and their end; what is answered is the front door's matter.

It is ours, because a server library costs each request more than all the rest of the door: a bare forwarder before
the model server adds 0.3 ms on aiohttp's server, 0.2 on uvicorn, 0.0 on httptools alone, as it is used here. The
parsing, where the dangers are, is httptools' (llhttp, the parser of Node), in its strict mode.
"""

import asyncio
import resource
import socket
import time
from collections.abc import Awaitable, Callable

from kennel_serve.http.connection import Connection
from kennel_serve.http.messages import HttpRequest, HttpResponse

STALLED_SECONDS = 75  # without a byte from a client in mid-request, or taken by one in mid-answer, as nginx has it
IDLE_SECONDS = 3600  # between requests: a platform keeps connections, and one that we close is a request that it loses
_SWEEP_SECONDS = 1
_BACKLOG = 128

Handle = Callable[[HttpRequest], Awaitable[HttpResponse]]  # raises nothing


class HttpServer:
    """The public port."""

    def __init__(
        self, handle: Handle, max_bytes: int, stalled: float = STALLED_SECONDS, idle: float = IDLE_SECONDS
    ) -> None:
        """
        Args:
            max_bytes: of a body.
            stalled: seconds after which a client that stopped in the middle is hung up on.
            idle: the same of one that asks nothing.
        """
        self.handle, self.max_bytes, self.stalled, self.idle = handle, max_bytes, stalled, idle
        self.closing = False
        self.most = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4)  # the rest: model server, files
        self.connections: set[Connection] = set()
        self.answering: set[asyncio.Task[None]] = set()  # from a request's head to its answer
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def in_flight(self) -> int:
        """Requests not answered yet."""
        return len(self.answering)

    async def listen(self, listener: socket.socket) -> None:
        """Open the port.

        Raises:
            OSError: another process listens on it.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), sock=listener, backlog=_BACKLOG)
        self._sweep()

    def make_room(self) -> None:
        """Close the connection that has been idle for longest, where a new one leaves too few descriptors."""
        if len(self.connections) <= self.most:
            return
        idle = [(since, id(each), each) for each in self.connections if (since := each.idle_since) is not None]
        if idle:
            min(idle)[2].drop()

    async def close(self, seconds: float) -> None:
        """Accept nothing more, let the requests in flight finish, also those whose bodies still arrive, hang up."""
        self.closing = True
        if self._server:
            self._server.close()
        ends = time.monotonic() + seconds
        while self.answering and time.monotonic() < ends:
            await asyncio.wait(self.answering, timeout=ends - time.monotonic())
        for task in self.answering:
            task.cancel()
        if self.answering:
            await asyncio.wait(self.answering, timeout=1)  # each says 503
        for connection in list(self.connections):
            connection.close()
        if self._sweeper:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        """One timer for all connections: one for each would have to be set anew by each request."""
        loop = asyncio.get_running_loop()
        for connection in list(self.connections):
            connection.check(loop.time())
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)
