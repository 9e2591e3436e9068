"""What is seen from outside: one JSON line in the log for each request, and Prometheus's figures on a local port.

prometheus_client keeps the figures and writes their format: it is Prometheus's own.
"""

import json
import logging
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_log = logging.getLogger(__name__)
_MOST_NOTED = 50
_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Record:
    """One request on its way: what the log will say of it."""

    id: str  # the caller's; one of ours where it is empty
    path: str
    began: float = field(default_factory=time.perf_counter)
    model: str = ""  # of many
    status: int = 0
    bytes: int = 0
    photos: int = 0
    decode_ms: float = 0.0
    inference_ms: float = 0.0
    asked: float = 0.0  # when the model server was, and when it answered
    answered: float = 0.0
    ended: float = 0.0

    def take(self, timing: str) -> None:
        """What a worker said of its own time, as endpoint.Answer.timing gives it."""
        photos, decode, inference = timing.split()
        self.photos, self.decode_ms, self.inference_ms = int(photos), float(decode), float(inference)

    @property
    def queue_ms(self) -> float:
        """Between the front door and back that no worker worked: waiting, and the model server's own share."""
        return max(0.0, 1000 * (self.answered - self.asked) - self.decode_ms - self.inference_ms)

    def line(self) -> str:
        row = {
            "id": self.id or uuid.uuid4().hex,
            "path": self.path,
            **({"model": self.model} if self.model else {}),
            "status": self.status,
            "bytes": self.bytes,
            "photos": self.photos,
            "ms": round(1000 * (self.ended - self.began), 2),
            "queue_ms": round(self.queue_ms, 2),
            "decode_ms": self.decode_ms,
            "inference_ms": self.inference_ms,
        }
        return json.dumps(row)


class Telemetry:
    """One endpoint's figures."""

    def __init__(self, log_requests: bool) -> None:
        self._log_requests = log_requests
        self._noted: list[Record] = []  # not yet in the figures: many at once cost less
        self.registry = CollectorRegistry()
        self._requests = Counter("kennel_requests", "Requests answered.", ["path", "status"], registry=self.registry)
        self._seconds = self._histogram("request", "From the first byte to the last.")
        self._queue = self._histogram("queue", "Of it, waiting for a worker.")
        self._decode = self._histogram("decode", "Of it, photos read.")
        self._inference = self._histogram("inference", "Of it, the network.")
        self._in_flight = Gauge("kennel_requests_in_flight", "Requests not answered yet.", registry=self.registry)
        self.workers = Gauge("kennel_workers", "Workers that live and do not hang.", registry=self.registry)
        self.healthy = Gauge("kennel_healthy", "Whether /ping says so.", registry=self.registry)

    def count_in_flight(self, count: Callable[[], int]) -> None:
        """`count` is asked when somebody looks."""
        self._in_flight.set_function(count)

    def _histogram(self, part: str, text: str) -> Histogram:
        return Histogram(f"kennel_{part}_seconds", text, registry=self.registry, buckets=_BUCKETS)

    def done(self, record: Record) -> None:
        """A request was answered."""
        record.ended = time.perf_counter()
        self._noted.append(record)
        if len(self._noted) >= _MOST_NOTED:
            self._count()
        if self._log_requests:
            sys.stdout.write(f"{record.line()}\n")  # what `logging` would write, for an eighth of its time
            sys.stdout.flush()

    def _count(self) -> None:
        for record in self._noted:
            self._take(record)
        self._noted.clear()

    def _take(self, record: Record) -> None:
        self._requests.labels(record.path, str(record.status)).inc()
        if record.answered:
            self._seconds.observe(record.ended - record.began)
            self._queue.observe(record.queue_ms / 1000)
            self._decode.observe(record.decode_ms / 1000)
            self._inference.observe(record.inference_ms / 1000)

    @asynccontextmanager
    async def page_on(self, port: int) -> AsyncIterator[None]:
        """Prometheus's page at http://127.0.0.1:<port>/metrics; none where `port` is 0 or taken, which is said."""
        app = web.Application()
        app.router.add_get("/metrics", self._page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            if port:
                try:
                    await web.TCPSite(runner, "127.0.0.1", port).start()
                except OSError as error:
                    _log.warning("no metrics on port %d (%s): set KENNEL_METRICS_PORT", port, error.strerror)
            yield
        finally:
            await runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        self._count()
        body, headers = generate_latest(self.registry), {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=body, headers=headers)
