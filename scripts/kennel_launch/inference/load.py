"""What one instance carries: photos asked about again and again, by more and more threads, until answers come too late.

Bounded in time and in number; knows no endpoint but the Question's. What a number means for scaling is here, too.
"""

import itertools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from kennel.errors import UserError
from kennel_launch.aws import session
from kennel_launch.hosting import specs
from kennel_launch.hosting.endpoint_info import EndpointInfo
from kennel_launch.inference import invocation
from kennel_launch.inference.invocation import Question
from kennel_launch.inference.photo_sources import Photo
from kennel_launch.machine.http_probe import RefusedPhotoError

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64)
MOST = 2000  # requests at one concurrency
PHOTOS = 32  # of those given: they are kept in memory
# The share of what it carries that an instance should get. AWS recommends to begin with 0.5:
# https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-loadtest.html (2026-11)
SAFETY_FACTOR = 0.5
_GROWS = 1.05  # more threads that bring less than this are no gain
_STALE = 2  # levels without a gain, one after the other: the endpoint is full
_PAUSE = 0.2  # seconds that a thread waits after an error


@dataclass(frozen=True)
class Level:
    """What was answered at one concurrency; times in milliseconds, of the whole way there and back."""

    concurrency: int
    answers: int
    errors: int
    rate: float  # answers a second
    p50: float
    p99: float
    error: str = ""  # the first


def check(endpoint: EndpointInfo) -> None:
    """
    Raises:
        UserError: its answers do not come at once.
    """
    if endpoint.mode == specs.ASYNC:
        raise UserError(f"endpoint {endpoint.name} is asynchronous and takes all requests at once: leave --load out")


def with_own_client(question: Question) -> Question:
    """The question by a client that keeps enough connections, and counts what AWS refuses instead of trying again."""
    settings, most = question.settings, max(CONCURRENCIES)
    runtime = session.made_client(
        "sagemaker-runtime", settings.profile, settings.region, max_attempts=1, max_pool_connections=most
    )
    return replace(question, runtime=runtime)


def concurrencies(endpoint: EndpointInfo) -> list[int]:
    """Those that it takes."""
    return [count for count in CONCURRENCIES if count <= (endpoint.concurrency or max(CONCURRENCIES))]


def prepared(photos: Sequence[Photo], question: Question) -> list[tuple[bytes, str]]:
    """Bodies and content types of the first photos, each of which was answered once.

    Raises:
        UserError: one is refused.
    """
    found = []
    for photo in photos[:PHOTOS]:
        try:
            body, kind = invocation.fitting(photo, question.endpoint.largest_body, question)
            invocation.at_once(question, body, kind)
        except RefusedPhotoError as error:
            raise UserError(f"{photo.name}: {error}: leave it out") from error
        found.append((body, kind))
    return found


def measured(question: Question, bodies: Sequence[tuple[bytes, str]], concurrency: int, seconds: float) -> Level:
    """One level: so many threads, for so long or until MOST requests are sent.

    Raises:
        UserError: AWS may not be asked at all any more.
    """
    turns, lock = itertools.count(), threading.Lock()
    times: list[float] = []
    errors: list[str] = []
    start = time.perf_counter()

    def ask() -> None:
        while time.perf_counter() - start < seconds and not question.stop.is_set():
            with lock:
                turn = next(turns)
            if turn >= MOST:
                return
            before = time.perf_counter()
            try:
                invocation.at_once(question, *bodies[turn % len(bodies)])
            except (RefusedPhotoError, UserError) as error:
                with lock:
                    errors.append(str(error))
                question.stop.wait(_PAUSE)
            else:
                with lock:
                    times.append(1000 * (time.perf_counter() - before))

    with ThreadPoolExecutor(concurrency) as pool:
        futures = [pool.submit(ask) for _ in range(concurrency)]
        try:
            for future in futures:
                future.result()
        except BaseException:  # Ctrl-C, too
            question.stop.set()
            raise
    took = time.perf_counter() - start
    p50, p99 = (percentile(times, share) for share in (0.5, 0.99))
    return Level(concurrency, len(times), len(errors), len(times) / took, p50, p99, *errors[:1])


def percentile(times: Sequence[float], share: float) -> float:
    """The nearest rank; nan where nothing was answered."""
    return sorted(times)[math.ceil(share * len(times)) - 1] if times else math.nan


def levels(question: Question, bodies: Sequence[tuple[bytes, str]], seconds: float, bound: float) -> Iterator[Level]:
    """More and more at a time, up to the first that has errors or is too slow, or the second that brings nothing.

    Args:
        bound: of p99, milliseconds.
    """
    best, stale = 0.0, 0
    for concurrency in concurrencies(question.endpoint):
        level = measured(question, bodies, concurrency, seconds)
        yield level
        stale = 0 if level.rate >= _GROWS * best else stale + 1
        if not fits(level, bound) or stale == _STALE:
            return
        best = max(best, level.rate)


def fits(level: Level, bound: float) -> bool:
    """Whether all was answered, and in time."""
    return not level.errors and level.p99 <= bound


def best(found: Sequence[Level], bound: float) -> Level | None:
    """The one with most answers a second, of those that fit."""
    return max((level for level in found if fits(level, bound)), key=lambda level: level.rate, default=None)


def invocations_per_instance(level: Level, instances: int) -> int:
    """SageMakerVariantInvocationsPerInstance = MAX_RPS * SAFETY_FACTOR * 60, see SAFETY_FACTOR; at least 1."""
    return max(1, int(level.rate / instances * SAFETY_FACTOR * 60))
