"""How soon /ping says the truth, how it answers under full load, what the front door costs: ours alone."""

import http.client
import multiprocessing
import random
import signal
import socket
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import load
import psutil
from servers import Server

PINGS = 10_000
DOOR_ROUNDS = 300


def after_signal(server: Server, number: signal.Signals) -> tuple[float, float]:
    """Seconds from a signal to all workers until /ping says no, and from then until it says yes again."""
    for worker in _workers(server):
        worker.send_signal(number)
    sent = time.perf_counter()
    no = _until(server, 503)
    return no - sent, _until(server, 200) - no


def pings_under_load(server: Server, requests: Sequence[bytes], clients: int) -> list[float]:
    """Milliseconds of `PINGS` pings, each on a connection of its own, while so many clients keep every worker busy."""
    others = multiprocessing.get_context("spawn").Process(
        target=load.closed, args=(server.port, requests, clients, 3600.0), daemon=True
    )
    others.start()
    time.sleep(5)
    found = []
    try:
        for _ in range(PINGS):
            began = time.perf_counter()
            if ping(server) != 200:
                raise load.LoadError("/ping said no under load")
            found.append(1000 * (time.perf_counter() - began))
    finally:
        others.kill()
        others.join()
    return sorted(found)


def door(server: Server, mms: Server, requests: Sequence[bytes], rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds that a request takes longer through the front door than to MMS, photo by photo, one client.

    Once than to an MMS that has the public port itself, so by TCP, which is what the door costs an endpoint; and once
    than to the door's own MMS by its Unix socket, which is all that the door does. Each is asked twice and timed the
    second time: a client of one endpoint finds its caches warm.
    """
    folder = Path(psutil.Process(server.pid).environ()["TMPDIR"])
    direct = mms_requests(requests)
    with socket.socket(socket.AF_UNIX) as inside, socket.create_connection(("127.0.0.1", mms.port)) as by_tcp:
        inside.connect(str(next(folder.glob("kennel-*/inference.sock"))))
        with socket.create_connection(("127.0.0.1", server.port)) as through:
            ways = [(through, requests), (by_tcp, direct), (inside, direct)]
            found: list[list[float]] = [[], [], []]
            for turn in range(rounds):
                for way in random.sample(range(3), 3):
                    connection, bodies = ways[way]
                    found[way].append([_milliseconds(connection, bodies[turn % len(bodies)]) for _ in range(2)][1])
    ours, tcp, unix = found
    return [a - b for a, b in zip(ours, tcp, strict=True)], [a - b for a, b in zip(ours, unix, strict=True)]


def mms_requests(requests: Sequence[bytes]) -> list[bytes]:
    """The same for MMS itself, which calls an endpoint's path by its model."""
    return [request.replace(b"/invocations", b"/predictions/model", 1) for request in requests]


def _milliseconds(connection: socket.socket, request: bytes) -> float:
    began = time.perf_counter()
    connection.sendall(request)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    if answer.status != 200:
        raise load.LoadError(f"it answered {answer.status}")
    return 1000 * (time.perf_counter() - began)


def ping(server: Server) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status
    finally:
        connection.close()


def percentile(found: Sequence[float], percent: float) -> float:
    return statistics.quantiles(found, n=1000, method="inclusive")[round(10 * percent) - 1]


def _workers(server: Server) -> list[psutil.Process]:
    """Forks of MMS's script: their parent runs it too."""
    scripts = {}
    for process in server.family():
        with suppress(psutil.Error):
            if any("model_service_worker" in word for word in process.cmdline()):
                scripts[process.pid] = process
    return [process for process in scripts.values() if process.ppid() in scripts]


def _until(server: Server, status: int) -> float:
    while ping(server) != status:
        time.sleep(0.01)
    return time.perf_counter()
