"""How soon /ping says the truth, how it answers under full load, what the front door costs: ours alone."""

import http.client
import multiprocessing
import signal
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import load
import psutil
from servers import Server

PINGS = 10_000
_TURNS = 7  # with the front door and without, after each other


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


def door(server: Server, requests: Sequence[bytes], seconds: float) -> list[float]:
    """Milliseconds that one client's median is longer through the front door than at MMS's own socket, by turns."""
    folder = Path(psutil.Process(server.pid).environ()["TMPDIR"])
    inside = str(next(folder.glob("kennel-*/inference.sock")))
    direct = [request.replace(b"/invocations", b"/predictions/model", 1) for request in requests]
    found = []
    for _ in range(_TURNS):
        through = load.closed(server.port, requests, 1, seconds).percentile(50)
        found.append(through - load.closed(inside, direct, 1, seconds).percentile(50))
    return found


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
