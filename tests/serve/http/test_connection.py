"""HTTP/1.1 as clients of every kind speak it: on raw sockets to a real endpoint, and slow ones to a port of its own."""

import asyncio
import gzip
import json
import re
import socket
import struct
import threading
import time
import zlib
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
import uvloop

from kennel_serve.http.messages import HttpResponse, RefusedError, refusal
from kennel_serve.http.server import HttpServer

LIMIT = 2 * 1024 * 1024
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Client:
    """One connection, and what it has not read yet."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.rest = b""

    def send(self, *parts):
        for part in parts:
            self.socket.sendall(part)

    def answer(self, body=True):
        """(status, headers, body) of the next one."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert first.startswith("HTTP/1.1 ")
        assert "server" not in headers
        length = int(headers.get("content-length", 0)) if body else 0
        while len(self.rest) < length:
            self._more()
        found, self.rest = self.rest[:length], self.rest[length:]
        return int(first.split()[1]), headers, found

    def refused(self, status):
        """It is refused by one sentence, and then hung up on."""
        code, headers, body = self.answer()
        row = json.loads(body)
        assert (code, list(row), headers["connection"]) == (status, ["error"], "close")
        assert not re.search(r"Traceback|Exception|httptools|llhttp|\.py|\n", row["error"])
        assert self.ended()
        return row["error"]

    def ended(self):
        """Nothing more comes, and the server has hung up."""
        return self.rest == b"" and self.socket.recv(1000) == b""

    def close(self):
        self.socket.close()

    def _more(self):
        data = self.socket.recv(65536)
        assert data, f"hung up after {self.rest!r}"
        self.rest += data


@contextmanager
def clients(port, count):
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Client(port))) for _ in range(count)]


@pytest.fixture
def client(endpoint):
    with closing(Client(endpoint.port)) as connected:
        yield connected
    assert endpoint.ping() == 200
    assert "Traceback" not in endpoint.log


def post(body, *lines, path="/invocations", length=True):
    found = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: image/jpeg", *lines]
    found += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*found, "", ""]).encode("latin-1") + body


def label(answer):
    status, _, body = answer
    assert status == 200, body
    return json.loads(body)["predictions"][0]["label"]


def chunks(body, size, extension=b"", trailer=b""):
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n" + trailer + b"\r\n"


def test_a_connection_is_kept(client, photo):
    for color in ("red", "blue", "green"):
        client.send(post(photo(color)))
        assert label(client.answer()) == color
    client.send(LAST)
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert client.ended()


def test_what_is_refused_in_order_keeps_the_connection(client, photo):
    """Also where the body arrives after the answer."""
    for request, status in (
        (post(b"no photo"), 400),
        (post(b"x" * 100_000, path="/nothing"), 404),
        (post(b"x" * 100_000, path="/ping"), 405),
        (post(b"a=b").replace(b"image/jpeg", b"multipart/form-data"), 415),
        (b"GET /invocations HTTP/1.1\r\n\r\n", 405),
        (b"GET /a%2Fb?c#d HTTP/1.1\r\n\r\n", 404),
        (b"GET http://x/ping?y HTTP/1.1\r\n\r\n", 200),
    ):
        head, separator, body = request.partition(b"\r\n\r\n")
        client.send(head + separator)
        time.sleep(0.05)
        client.send(body)
        assert client.answer()[0] == status, request[:80]
    client.send(post(photo("blue")))
    assert label(client.answer()) == "blue"


def test_allowed_methods_are_said(client):
    for method, path, allowed in (("DELETE", "/ping", "GET, HEAD"), ("TRACE", "/invocations", "POST")):
        client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, headers, body = client.answer()
        assert (status, headers["allow"]) == (405, allowed)
        assert json.loads(body)["error"] == f"{path} takes {allowed}"


def test_head_is_get_without_a_body(client):
    for path, status in (("/ping", 200), ("/execution-parameters", 200), ("/invocations", 405), ("/x", 404)):
        client.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        code, headers, _ = client.answer(body=False)
        assert code == status
        assert int(headers["content-length"]) > 0
    client.send(PING)
    assert client.answer()[2] == b"{}"


def test_requests_that_do_not_wait_are_answered_in_order(client, photo):
    colors = ["red", "blue", "green", "blue"] * 5
    both = [[post(photo(color)), PING] for color in colors]
    sender = threading.Thread(target=client.send, args=[b"".join(b"".join(pair) for pair in both)])
    sender.start()
    for color in colors:
        assert label(client.answer()) == color
        assert client.answer()[2] == b"{}"
    sender.join()


def test_large_bodies_that_do_not_wait(client, photo):
    body = photo("blue", "BMP", (800, 800))
    sender = threading.Thread(target=client.send, args=[post(body) * 3])
    sender.start()
    for _ in range(3):
        assert label(client.answer()) == "blue"
    sender.join()


def test_no_flood_of_requests_is_kept(client):
    client.send(post(b"no photo") + PING * 1000)
    assert client.answer()[0] == 400
    found = []
    while not found or found[-1] == 200:
        found.append(client.answer()[0])
    assert found[-1] == 429
    assert len(found) == 101
    assert client.ended()


def test_garbage_after_a_request_is_refused_after_its_answer(client, photo):
    client.send(post(photo("blue")) + b"\x16\x03\x01 garbage\r\n\r\n")
    assert label(client.answer()) == "blue"
    client.refused(400)


def test_nothing_is_read_after_the_last_request(client):
    client.send(LAST + PING)
    assert client.answer()[0] == 200
    assert client.ended()


def test_a_client_that_has_sent_all_gets_its_answers(client, photo):
    client.send(post(photo("blue")) + post(photo("red")))
    client.socket.shutdown(socket.SHUT_WR)
    assert label(client.answer()) == "blue"
    status, headers, body = client.answer()
    assert label((status, headers, body)) == "red"
    assert headers.get("connection", "close") == "close"  # absent where both were answered before its end arrived
    assert client.ended()


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("extension", "trailer"), [(b"", b""), (b";a=b", b"Content-Type: text/csv\r\nExpires: never\r\n")]
)
def test_chunks(client, photo, size, extension, trailer):
    body = photo("green")
    client.send(post(b"", "Transfer-Encoding: Chunked", length=False) + chunks(body, size, extension, trailer), PING)
    assert label(client.answer()) == "green"
    assert client.answer()[2] == b"{}"


def test_a_request_a_byte_at_a_time(client, photo):
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = photo("blue", "PNG", (8, 8))
    client.send(*(bytes([byte]) for byte in post(body) + post(b"", "Transfer-Encoding: chunked", length=False)))
    client.send(*(bytes([byte]) for byte in chunks(body, 10, b";x", b"A: b\r\n")))
    assert label(client.answer()) == label(client.answer()) == "blue"


def test_a_client_that_waits_to_be_told(client, photo):
    body = photo("blue")
    request = post(body, "Expect: 100-Continue")
    client.send(request.removesuffix(body))
    assert client.answer() == (100, {}, b"")
    client.send(body)
    assert label(client.answer()) == "blue"
    client.send(request)  # without having waited
    assert label(client.answer()) == "blue"


@pytest.mark.parametrize(
    ("line", "path", "status"),
    [
        ("Content-Length: 3000000", "/invocations", 413),
        ("Content-Length: 3", "/", 404),
        ("Content-Length: 3", "/ping", 405),
    ],
)
def test_a_client_that_waits_to_be_told_is_refused_at_once(client, line, path, status):
    client.send(post(b"", "Expect: 100-continue", line, path=path, length=False))
    client.refused(status)


def test_http_1_0(client, photo):
    request = (
        post(photo("blue")).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: x\r\n", b"Connection: keep-alive\r\n")
    )
    for _ in range(2):
        client.send(request)
        answer = client.answer()
        assert (label(answer), answer[1]["connection"]) == ("blue", "keep-alive")
    client.send(b"GET /ping HTTP/1.0\r\n\r\n")
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert client.ended()


def test_an_offer_of_http_2_is_left_aside(client, photo):
    """As curl and Java make it: the body follows in HTTP/1.1."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    body = photo("blue")
    client.send(post(body, *offer) + post(b"", *offer, "Transfer-Encoding: chunked", length=False) + chunks(body, 99))
    assert label(client.answer()) == label(client.answer()) == "blue"
    head = post(body, *offer).removesuffix(body)
    client.send(head[:-3])
    client.send(head[-3:])
    client.send(body + PING)
    assert label(client.answer()) == "blue"
    assert client.answer()[2] == b"{}"


@pytest.mark.parametrize(
    "request_",
    [
        post(b"0\r\n\r\n", "Transfer-Encoding: chunked"),
        post(b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked", length=False),
        post(b"abc", "Content-Length: 3"),
        post(b"abcd", "Content-Length: 3"),
        post(b"abc", "Content-Length: 3, 3", length=False),
        post(b"abc", "Content-Length: +3", length=False),
        post(b"abc", "Content-Length: -3", length=False),
        post(b"abc", "Content-Length: 99999999999999999999", length=False),
        post(b"0\r\n\r\n", "Transfer-Encoding: gzip", length=False),
        post(b"0\r\n\r\n", "Transfer-Encoding: gzip, chunked", length=False),
        post(b"0\r\n\r\n", "Transfer-Encoding: chunked, chunked", length=False),
        post(b"0\r\n\r\n", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", length=False),
        post(b"0\r\n\r\n", "Transfer-Encoding: chunked", "Transfer-Encoding: identity", length=False),
        post(b"0\r\n\r\n", "Transfer-Encoding : chunked", length=False),
        post(b"0\r\n\r\n", "X: y\r\n folded: z", length=False),
        post(b"0\r\n\r\n", "X: y\nTransfer-Encoding: chunked", length=False),
        post(b"0\r\n\r\n", "Transfer-Encoding: chunked", length=False).replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"GET /ping\r\n\r\n",
        b"GET /ping HTTP/2.0\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nX: \x00\r\n\r\n",
        b"GET /p\xffng HTTP/1.1\r\n\r\n",
        b"GET ping HTTP/1.1\r\n\r\n",
        b"FETCH /ping HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT /ping HTTP/1.1\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_could_be_read_in_two_ways_is_not_read(client, request_):
    client.send(request_ + LAST)
    client.refused(400)


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"3\r\nabcd\r\n",
        b"-1\r\n",
        b"fffffffffffffffff\r\n",
        b"3;a\nabc\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nContent-Length: 3\r\n\r\n",
    ],
)
def test_chunks_that_are_none(client, body):
    client.send(post(b"", "Transfer-Encoding: chunked", length=False) + body)
    assert "does not arrive as its headers say" in client.refused(400)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /" + b"x" * 300_000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 33_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 300_000, 431),  # without an end
        (b"GET / HTTP/1.1\r\n" + b"y" * 300_000, 431),
        (post(b"", "Transfer-Encoding: chunked", length=False) + b"3;" + b"x" * 300_000, 431),
        (post(b"", "Transfer-Encoding: chunked", length=False) + b"1\r\na\r\n0\r\nX: " + b"y" * 300_000, 431),
    ],
)
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_oversized_heads(client, head, status, step):
    with suppress(OSError):  # it may be refused before all of it is sent
        client.send(*(head[at : at + step] for at in range(0, len(head), step)))
    client.refused(status)


def test_heads_up_to_the_limits(client):
    client.send(b"GET /ping?" + b"x" * 8000 + b" HTTP/1.1\r\nX: " + b"y" * 24_000 + b"\r\n\r\n")
    assert client.answer()[0] == 200


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_refused_before_it_is_sent(client, chunked):
    if chunked:
        client.send(
            post(b"", "Transfer-Encoding: chunked", length=False), chunks(bytes(LIMIT + 1), LIMIT + 1)[: LIMIT + 9]
        )
    else:
        client.send(post(b"", f"Content-Length: {LIMIT + 1}", length=False))
    assert "larger than 2 MB" in client.refused(413)


def test_the_rest_of_a_refused_body_is_swallowed(client):
    """A client that writes all before it reads would lose the answer to a reset."""
    client.send(post(bytes(4 * LIMIT)))
    time.sleep(0.2)
    assert client.answer()[0] == 413
    assert client.ended()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda body: gzip.compress(body[:99]) + gzip.compress(body[99:])),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
    ],
)
def test_packed_bodies(client, photo, encoding, pack):
    body = pack(photo("blue"))
    client.send(post(body, f"Content-Encoding: {encoding}"))
    assert label(client.answer()) == "blue"
    client.send(post(body[:-9], f"Content-Encoding: {encoding}"))
    assert client.answer()[0] == 400
    client.send(post(pack(bytes(LIMIT + 1)), f"Content-Encoding: {encoding}"))
    assert client.answer()[0] == 413


def test_a_packed_body_of_very_many_parts(client, photo):
    """Its time grows with its size, not with its square: minutes."""
    client.send(post(gzip.compress(b"") * 80_000 + gzip.compress(photo("blue")), "Content-Encoding: gzip"))
    client.socket.settimeout(10)
    assert label(client.answer()) == "blue"


def test_many_clients_at_once_are_all_answered(endpoint, photo):
    body = post(photo("blue"))
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Client(endpoint.port))) for _ in range(300)]
        for each in clients:
            each.send(body)
        assert {each.answer()[0] for each in clients} == {200}


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6(endpoint):
    with closing(socket.create_connection(("::1", endpoint.port), 60)) as client:
        client.sendall(PING)
        assert client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "part",
    [
        b"POST /invoc",
        b"POST /invocations HTTP/1.1\r\nContent-Le",
        post(b"x" * 1000)[:-1],
        post(b"", "Transfer-Encoding: chunked", length=False) + b"5\r\nab",
    ],
)
@pytest.mark.parametrize("half", [True, False])
def test_a_client_that_hangs_up_in_mid_request(endpoint, client, part, half):
    client.send(part)
    time.sleep(0.05)
    if half:
        client.socket.shutdown(socket.SHUT_WR)
        client.refused(400)


@pytest.mark.parametrize("requests", [1, 2])
@pytest.mark.parametrize("reset", [True, False])
def test_a_client_that_hangs_up_while_it_is_answered(endpoint, photo, requests, reset):
    for _ in range(5):
        with closing(Client(endpoint.port)) as client:
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.send(post(photo()) * requests)
            time.sleep(0.003)
    status, answer = endpoint.invoke(photo("blue"))
    assert (status, answer["predictions"][0]["label"]) == (200, "blue")
    assert "Traceback" not in endpoint.log


@contextmanager
def port(answer, stalled=60.0, idle=60.0, drain_seconds=10.0):
    """An HttpServer that answers by `answer`; at the end it is closed as `serve` closes it."""
    ready, stop, ports = threading.Event(), asyncio.Event(), []

    async def live():
        loops.append(asyncio.get_running_loop())
        server = HttpServer(answer, LIMIT, stalled, idle)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            await server.listen(listener)
            ports.append(listener.getsockname()[1])
            ready.set()
            await stop.wait()
            await server.close(drain_seconds)
            await asyncio.sleep(0.1)
            assert not server.connections
            assert not server.answering

    loops, failed = [], []

    def run():
        try:
            uvloop.run(live())
        except BaseException as error:
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()

    def end():
        loops[0].call_soon_threadsafe(stop.set)

    try:
        yield ports[0], end
    finally:
        end()
        thread.join()
    assert failed == []


def test_what_still_runs_when_the_drain_ends_is_refused():
    async def endless(request):
        await asyncio.sleep(3600)

    with port(endless, drain_seconds=0.2) as (number, end), closing(Client(number)) as client:
        client.send(post(b"x"))
        time.sleep(0.2)
        end()
        assert "the endpoint stops" in client.refused(503)


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_what_nobody_waits_for_is_dropped(leave):
    dropped = threading.Event()

    async def endless(request):
        try:
            await asyncio.sleep(3600)
        finally:
            dropped.set()

    with port(endless, drain_seconds=0.2) as (number, _):
        client = Client(number)
        client.send(post(b"x"))
        if leave == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
        assert dropped.wait(10)


async def count(request):
    """How long the body is."""
    try:
        return HttpResponse(200, b"%d" % len(await request.read()))
    except RefusedError as error:
        return refusal(error.status, str(error))


def test_idle_clients_are_hung_up_on():
    with port(count, stalled=1, idle=1) as (number, _), clients(number, 5) as (silent, kept, half, stalled, unheard):
        kept.send(post(b"abc"))
        assert kept.answer()[2] == b"3"
        half.send(b"GET /ping HTT")
        stalled.send(post(b"abc")[:-1])
        unheard.send(LAST)  # and it does not hang up, though it is asked to
        began = time.monotonic()
        for client in (silent, kept):
            with suppress(ConnectionResetError):
                assert client.ended()
        for client in (half, stalled):
            assert "stopped arriving" in client.refused(408)
        assert 0.5 < time.monotonic() - began < 6
        assert unheard.answer()[2] == b"0"
        until_reset(unheard)


def test_a_client_that_stopped_in_the_middle_is_given_less_time_than_one_between_requests():
    with port(count, stalled=1, idle=60) as (number, _), clients(number, 3) as (kept, half, stalled):
        kept.send(post(b"abc"))
        assert kept.answer()[2] == b"3"
        half.send(b"GET /ping HTT")
        stalled.send(post(b"abc")[:-1])
        for client in (half, stalled):
            assert "stopped arriving" in client.refused(408)
        kept.send(post(b"abcd"))
        assert kept.answer()[2] == b"4"


def until_reset(client):
    """The server has forgotten a connection whose end the client did not heed."""
    ends = time.monotonic() + 15
    while time.monotonic() < ends:
        try:
            client.send(b"x")
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError("the connection still stands")


def test_slow_answers_and_slow_bodies_are_no_idle_clients():
    async def slow(request):
        reply = await count(request)
        await asyncio.sleep(3)
        return reply

    with port(slow, stalled=1, idle=1) as (number, _), closing(Client(number)) as client:
        body = b"x" * 20
        client.send(post(body).removesuffix(body))
        for _ in range(10):
            time.sleep(0.3)
            client.send(b"xx")
        assert client.answer()[2] == b"20"


def test_a_client_that_does_not_read_is_not_answered_on():
    """Its answers would pile up; once it reads, it gets them all."""
    asked = []

    async def large(request):
        asked.append(request)
        return HttpResponse(200, bytes(1 << 20))

    with port(large) as (number, _), closing(Client(number)) as client:
        client.send(PING * 50)
        time.sleep(1)
        assert len(asked) < 20
        for _ in range(50):
            assert len(client.answer()[2]) == 1 << 20
        assert len(asked) == 50
        client.send(LAST)
        assert len(client.answer()[2]) == 1 << 20
        assert client.ended()


def test_nothing_is_read_while_an_answer_is_made():
    """Or a client could fill the memory."""
    ready = threading.Event()

    async def slow(request):
        while not ready.is_set():
            await asyncio.sleep(0.01)
        return await count(request)

    with port(slow) as (number, _), closing(Client(number)) as client:
        client.send(PING)
        client.socket.settimeout(1)
        sent, body = 0, post(bytes(LIMIT))
        with suppress(TimeoutError):
            while sent < 40 * len(body):
                sent += client.socket.send(body[sent % len(body) :])
        assert sent < 20 * len(body)
        ready.set()
        client.socket.settimeout(60)
        assert client.answer()[2] == b"0"
        for _ in range(sent // len(body)):
            assert client.answer()[2] == b"%d" % LIMIT


def test_a_slow_reader_gets_a_large_last_answer():
    async def large(request):
        return HttpResponse(200, bytes(30 << 20))

    with port(large) as (number, _), closing(Client(number)) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.send(LAST)
        left = 30 << 20
        time.sleep(8)
        while data := client.socket.recv(1 << 20):
            left -= len(data)
        assert left < 0  # by the head


def test_an_answer_before_the_body():
    async def answer(request):
        return HttpResponse(200, b"at once")

    with port(answer) as (number, _), closing(Client(number)) as client:
        body = bytes(LIMIT)
        client.send(post(body).removesuffix(body))
        assert client.answer()[2] == b"at once"
        client.send(body + post(body, path="/2").removesuffix(body))
        assert client.answer()[2] == b"at once"
        client.send(body + PING)
        assert client.answer()[2] == b"at once"


def test_closing_waits_for_requests_and_says_so():
    entered = threading.Event()

    async def slow(request):
        entered.set()
        await asyncio.sleep(0.5)
        return await count(request)

    with port(slow) as (number, end), clients(number, 4) as (idle, busy, late, piped):
        for client in (idle, late, piped):
            client.send(PING)
            assert client.answer()[0] == 200
        entered.clear()
        busy.send(post(b"abc")[:-1])
        piped.send(PING * 3)
        entered.wait()
        end()
        time.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            Client(number)
        late.send(PING)
        for client in (late, piped):
            status, headers, _ = client.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert client.ended()
        busy.send(b"c")
        status, headers, body = busy.answer()
        assert (status, headers["connection"], body) == (200, "close", b"3")
        assert busy.ended()
        assert idle.ended()
