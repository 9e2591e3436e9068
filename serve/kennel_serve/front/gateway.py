"""The front door: what each path answers, and what of it is logged and counted.

It owns /ping and /invocations as SageMaker sees them; what an answer holds is decided in `worker`, how it travels in
`http`.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from kennel_serve.formats import request_body
from kennel_serve.front.telemetry import RequestLog, Telemetry
from kennel_serve.http.client import Backend, UpstreamResponse
from kennel_serve.http.messages import HttpRequest, HttpResponse, RefusedError, refusal, unpacks
from kennel_serve.http.routes import Route, RouteMatch, Routes
from kennel_serve.http.server import Handle
from kennel_serve.model_server.configuration import Share
from kennel_serve.model_server.process import MODEL
from kennel_serve.worker.endpoint import CUSTOM_ATTRIBUTES, OURS, SAGEMAKER, TIMING

_FORMS = ("multipart/", "application/x-www-form-urlencoded")
_HEADER_LENGTH = 1024  # of the three that are always passed on; Java's parser gives up at 8192 in all
_OTHERS_LENGTH = 4096  # of all others together
_ENCODING = "content-encoding"
# Not passed on: the three, what belongs to the connection, and what the model server's own client writes.
_NOT_PASSED = {"content-type", "accept", CUSTOM_ATTRIBUTES, "connection", "content-length", "expect", "host"}
_NOT_PASSED |= {"keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
_AHEAD = 2  # requests for each place in a batch: the one worked on, and the next
_BUSY = "no worker is free: try again, or add instances"
_HANGS = "the model server does not answer"
_ID = "x-amzn-sagemaker-inference-id"

_log = logging.getLogger(__name__)


class Front:
    """Answers clients; `healthy` is what /ping says, set by the watch over the model server.

    Requests wait here and not in the model server, whose queue is short and keeps those whose clients have left.
    """

    def __init__(self, socket: str, response_seconds: float, telemetry: Telemetry, waiting_bytes: int) -> None:
        """
        Args:
            socket: the model server's.
            response_seconds: for which a request waits for its turn, and again for its answer.
            waiting_bytes: of the bodies that wait for their turn.
        """
        self.healthy = self._hanging = False
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._own_code: set[str] = set()  # the models of users' own code
        self._waiting_bytes, self._most_waiting_bytes = 0, waiting_bytes
        self._asking: set[asyncio.Task[UpstreamResponse]] = (
            set()
        )  # a task is kept only as long as something refers to it
        self._telemetry = telemetry
        self._response_seconds = response_seconds
        self._backend = Backend(socket)

    def answers(self, routes: Iterable[Route]) -> Handle:
        """What answers /ping and `routes`."""
        return partial(self._answer, Routes([Route("GET", "/ping", self._ping), *routes]))

    def close(self) -> None:
        self._backend.close()

    def admit(self, model: str, share: Share) -> None:
        """Hand a model's workers what they work on and the next of it, at once."""
        self._turns[model] = asyncio.Semaphore(_AHEAD * share.workers * share.batch_size)
        if share.own_code:
            self._own_code.add(model)

    def dismiss(self, model: str) -> None:
        self._turns.pop(model, None)
        self._own_code.discard(model)

    @property
    def hanging(self) -> bool:
        """Whether Java hangs: then nothing is asked of it, and what was asked is answered with 503."""
        return self._hanging

    @hanging.setter
    def hanging(self, hangs: bool) -> None:
        if hangs and not self._hanging:
            self._backend.give_up()
        self._hanging = hangs

    @property
    def trouble(self) -> str:
        """Why it is not healthy."""
        return _HANGS if self._hanging else "no worker is alive"

    async def predict(
        self, model: str, body: bytes | bytearray, headers: dict[str, str], record: RequestLog
    ) -> HttpResponse:
        """What a model's workers answer, whatever went wrong on the way."""
        record.bytes, record.asked = len(body), time.perf_counter()
        try:
            turn = await self._turn(model, len(body))
            answer = await self._asked(turn, model, headers, body)
        except TimeoutError:
            return refusal(HTTPStatus.GATEWAY_TIMEOUT, "no worker answered in time: send less, or raise the timeout")
        except OSError:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"{_HANGS}: try again")
        finally:
            record.answered = time.perf_counter()
        if TIMING not in answer.headers:
            return _sanitized_error(answer.status)
        record.take(answer.headers[TIMING])
        passed = {name: value for name, value in answer.headers.items() if name.startswith(SAGEMAKER)}
        return HttpResponse(
            answer.status, answer.body, answer.headers.get("content-type", request_body.JSON), headers=passed
        )

    async def _turn(self, model: str, size: int) -> asyncio.Semaphore:
        """Wait until a worker can be handed the request.

        Raises:
            RefusedError: 503 where it would wait too long, or too much waits already.
        """
        turn = self._turns.setdefault(model, asyncio.Semaphore(_AHEAD))
        if not turn.locked():
            await turn.acquire()
            return turn
        if self._waiting_bytes + size > self._most_waiting_bytes:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, _BUSY)
        self._waiting_bytes += size
        try:
            async with asyncio.timeout(self._response_seconds):
                await turn.acquire()
        except TimeoutError:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, _BUSY) from None
        finally:
            self._waiting_bytes -= size
        return turn

    async def _asked(
        self, turn: asyncio.Semaphore, model: str, headers: dict[str, str], body: bytes | bytearray
    ) -> UpstreamResponse:
        """Ask the model server; where the client leaves, the turn is over only when the worker is free."""
        if self._hanging:
            turn.release()
            raise ConnectionResetError(_HANGS)
        ask = self._backend.ask("POST", f"/predictions/{model}", self._response_seconds, headers, body)
        task = asyncio.get_running_loop().create_task(ask)
        self._asking.add(task)
        task.add_done_callback(partial(self._over, turn))
        return await asyncio.shield(task)

    def _over(self, turn: asyncio.Semaphore, task: asyncio.Task[UpstreamResponse]) -> None:
        self._asking.discard(task)
        turn.release()
        if not task.cancelled():
            task.exception()  # its client may have left before: not to be reported as never seen

    async def invocations(self, request: HttpRequest, record: RequestLog) -> HttpResponse:
        return await self.invoke(request, record, MODEL)

    async def invoke(self, request: HttpRequest, record: RequestLog, model: str) -> HttpResponse:
        """What a model answers, by the model server's name for it."""
        try:
            # Before MMS sees it: it would take a form apart, and curl calls every body a form. Other types are a
            # matter of the model.
            kind = _plain(request.headers.get("content-type", "")) or request_body.PHOTO_TYPES[0]
            if kind.lower().startswith(_FORMS):
                request_body.media_type(kind)
            # The query's options go before the custom attributes, so that they win.
            attributes = request_body.asked(request.query, _plain(request.headers.get(CUSTOM_ATTRIBUTES, "")))
        except request_body.RequestError as error:
            return refusal(error.status_code, str(error))
        accept = _plain(request.headers.get("accept", ""))
        headers = {"Content-Type": kind, "Accept": accept, CUSTOM_ATTRIBUTES: attributes}
        headers |= _others(request.headers, own_code=model in self._own_code)
        return await self.predict(model, await request.read(), headers, record)

    async def _ping(self, request: HttpRequest, record: RequestLog) -> HttpResponse:
        if self.healthy:
            return HttpResponse(200, b"{}")
        return refusal(HTTPStatus.SERVICE_UNAVAILABLE, self.trouble)

    async def _answer(self, routes: Routes, request: HttpRequest) -> HttpResponse:
        """Every request is noted; /ping, which comes all the time, only where it says no."""
        found = routes.find(request.path)
        # The route's pattern, not the path: clients cannot invent figures' labels.
        path = found.pattern if found and request.method in found.handlers else "other"
        record = RequestLog(_plain(request.headers.get(_ID, ""))[:64], path)
        try:
            reply = await _dispatch(routes, found, request, record)
            record.status = reply.status
        finally:
            if record.path != "/ping" or record.status != HTTPStatus.OK:
                asyncio.get_running_loop().call_soon(self._telemetry.done, record)  # once the answer is on its way
        return reply


async def _dispatch(routes: Routes, found: RouteMatch | None, request: HttpRequest, record: RequestLog) -> HttpResponse:
    """What a path's function answers, whatever it raises."""
    if not found:
        return refusal(HTTPStatus.NOT_FOUND, f"no such path: there are {routes.known}")
    handler = found.handlers.get(request.method)
    if not handler:
        sentence = f"{request.path} takes {found.allowed}"
        return replace(refusal(HTTPStatus.METHOD_NOT_ALLOWED, sentence), allow=found.allowed)
    try:
        return await handler(request, record, *found.names)
    except RefusedError as error:
        return refusal(error.status, str(error))
    except Exception:  # noqa: BLE001 # the last boundary before the client
        _log.exception("the front door failed")
        return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the request failed: the endpoint's log says why")


def _others(headers: Mapping[str, str], own_code: bool) -> dict[str, str]:
    """What else is passed on: all to a user's code, SageMaker's first; to ours how a body is still packed."""
    names = sorted(headers, key=lambda name: not name.startswith(SAGEMAKER)) if own_code else [_ENCODING]
    found, left = {}, _OTHERS_LENGTH
    for name in names:
        value = headers.get(name, "")
        if name in _NOT_PASSED or name.startswith(OURS) or (name == _ENCODING and unpacks(value)):
            continue
        left -= len(name) + len(value)
        if value and left >= 0:
            found[name] = _ascii(value)
    return found


def _ascii(value: str) -> str:
    return value if value.isascii() else value.encode("ascii", "replace").decode()


def _plain(value: str) -> str:
    """A header's value that any parser takes: ASCII, not long; the parser saw to it that it is one line."""
    return _ascii(value)[:_HEADER_LENGTH]


def _sanitized_error(status: int) -> HttpResponse:
    """MMS's own errors, with Java's class names in them, as a sentence."""
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE):
        return refusal(HTTPStatus.SERVICE_UNAVAILABLE, _BUSY)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large: send less")
    return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the worker ended or took too long: the endpoint's log says why")
