"""What is seen from outside: one JSON line in the log for each request, and Prometheus's figures on a local port.

prometheus_client keeps the figures and writes their format: it is Prometheus's own.
"""

import json
import logging
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, start_http_server
from prometheus_client.registry import Collector

_log = logging.getLogger(__name__)
_MOST_NOTED = 50
_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass
class RequestLog:
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


class _Before(Collector):
    """No figure, but what is to be done before the others are read: a registry asks its members in order."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def collect(self) -> Iterator[Metric]:
        self._act()
        return iter(())


class Telemetry:
    """One endpoint's figures."""

    def __init__(self, log_requests: bool) -> None:
        self._log_requests = log_requests
        self._noted: deque[RequestLog] = deque()  # not yet in the figures: many at once cost less
        self.registry = CollectorRegistry()
        self.registry.register(_Before(self._count))
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

    def done(self, record: RequestLog) -> None:
        """A request was answered."""
        record.ended = time.perf_counter()
        self._noted.append(record)
        if len(self._noted) >= _MOST_NOTED:
            self._count()
        if self._log_requests:
            sys.stdout.write(f"{record.line()}\n")  # what `logging` would write, for an eighth of its time
            sys.stdout.flush()

    def _count(self) -> None:
        with suppress(IndexError):  # the page has a thread of its own
            while True:
                self._take(self._noted.popleft())

    def _take(self, record: RequestLog) -> None:
        self._requests.labels(record.path, str(record.status)).inc()
        if record.answered:
            self._seconds.observe(record.ended - record.began)
            self._queue.observe(record.queue_ms / 1000)
            self._decode.observe(record.decode_ms / 1000)
            self._inference.observe(record.inference_ms / 1000)

    @contextmanager
    def page_on(self, port: int) -> Iterator[None]:
        """Prometheus's page at http://127.0.0.1:<port>/metrics; none where `port` is 0 or taken, which is said."""
        with ExitStack() as stack:
            if port:
                try:
                    server, thread = start_http_server(port, "127.0.0.1", self.registry)
                    stack.callback(thread.join)
                    stack.callback(server.server_close)
                    stack.callback(server.shutdown)
                except OSError as error:
                    _log.warning("no metrics on port %d (%s): set KENNEL_METRICS_PORT", port, error.strerror)
            yield
