"""A light HTTP load: one process, asyncio on raw sockets, requests made beforehand, answers hardly looked at.

It shares the cores with the server that it measures; `Load.client_ms` says what it takes of them.
"""

import asyncio
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
Address = int | str  # a port on this machine, or a Unix socket's path
_APART = 0.01  # seconds between clients that come: of a crowd, one of uvicorn's workers would take all


class LoadError(Exception):
    """The server refused a request or hung up."""


@dataclass(frozen=True)
class Load:
    """What one load has found. Times are milliseconds."""

    per_second: float
    answers: list[float]
    client_ms: float  # the client's own CPU time, a request

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.answers, n=100, method="inclusive")[percent - 1]


def post(photo: bytes) -> bytes:
    head = f"POST /invocations HTTP/1.1\r\nHost: bench\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photo)}\r\n"
    return f"{head}Accept: application/json\r\n\r\n".encode() + photo


def closed(to: Address, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Each client sends its next request when it has the answer to its last; the first of each is not counted."""
    return asyncio.run(_closed(to, requests, clients, seconds))


def paced(to: Address, requests: Sequence[bytes], rate: float, seconds: float, even: bool) -> Load:
    """`rate` requests a second, come what may, evenly or as if by many strangers; timed from when each was due."""
    return asyncio.run(_paced(to, requests, rate, seconds, even))


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, done: Callable[["_Connection", float], None], fail: Callable[[str], None]) -> None:
        self._done, self._fail = done, fail
        self._buffer = bytearray()
        self._busy, self._since = False, 0.0
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: bytes, since: float) -> None:
        self._busy, self._since = True, since
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = _LENGTH.search(self._buffer, 0, end + 2)
        if self._buffer[9:12] != b"200" or not length:
            return self._fail(f"it answered {bytes(self._buffer[:300])!r}")
        if len(self._buffer) < end + 4 + int(length[1]):
            return None
        self._buffer.clear()
        self._busy = False
        self.answers += 1
        return self._done(self, time.perf_counter() - self._since)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._fail("it hung up on a request")


async def _open(to: Address, done: Callable[[_Connection, float], None], fail: Callable[[str], None]) -> _Connection:
    loop = asyncio.get_running_loop()
    if isinstance(to, str):
        return (await loop.create_unix_connection(lambda: _Connection(done, fail), to))[1]
    return (await loop.create_connection(lambda: _Connection(done, fail), "127.0.0.1", to))[1]


def _failing(finished: "asyncio.Future[None]") -> Callable[[str], None]:
    def fail(reason: str) -> None:
        if not finished.done():
            finished.set_exception(LoadError(reason))

    return fail


async def _closed(to: Address, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answers: list[float] = []
    numbers = count()
    begin = end = cpu = client = 0.0  # the window: from the answer that made all clients warm to the last one in it
    active = clients
    connections: list[_Connection] = []

    def done(connection: _Connection, took: float) -> None:
        nonlocal begin, end, cpu, client, active
        now = time.perf_counter()
        if not begin:
            if len(connections) == clients and all(one.answers for one in connections):
                begin, cpu = now, time.process_time()
        elif now <= begin + seconds or len(answers) < 2:
            answers.append(1000 * took)
            end, client = now, time.process_time() - cpu
        if begin and now >= begin + seconds and len(answers) >= 2:
            active -= 1
            if not active and not finished.done():
                finished.set_result(None)
        else:
            connection.send(requests[next(numbers) % len(requests)], now)

    try:
        for _ in range(clients):
            connections.append(await _open(to, done, _failing(finished)))
            connections[-1].send(requests[next(numbers) % len(requests)], time.perf_counter())
            await asyncio.sleep(_APART)
        await finished
    finally:
        for connection in connections:
            connection.transport.abort()
    return Load(len(answers) / (end - begin), answers, 1000 * client / len(answers))


async def _paced(to: Address, requests: Sequence[bytes], rate: float, seconds: float, even: bool) -> Load:
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answers: list[float] = []
    idle: list[_Connection] = []
    every: list[_Connection] = []
    total = round(rate * seconds)
    chance = random.Random(0)
    gaps = [1 / rate if even else chance.expovariate(rate) for _ in range(total)]

    def done(connection: _Connection, took: float) -> None:
        answers.append(1000 * took)
        idle.append(connection)
        if len(answers) == total and not finished.done():
            finished.set_result(None)

    cpu, began = time.process_time(), time.perf_counter()
    due = began
    try:
        for number, gap in enumerate(gaps):
            due += gap
            await asyncio.sleep(due - time.perf_counter())
            if finished.done():
                break
            if not idle:
                idle.append(await _open(to, done, _failing(finished)))
                every.append(idle[-1])
            idle.pop().send(requests[number % len(requests)], due)
        await finished
    finally:
        for connection in every:
            connection.transport.abort()
    return Load(total / (time.perf_counter() - began), answers, 1000 * (time.process_time() - cpu) / total)
