"""The front door on aiohttp, a well-kept HTTP library: the public port, its limits and its honest answers.

It owns /ping and /invocations as SageMaker sees them; what an answer holds is the workers' matter.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from sagemaker_inference.utils import remove_crlf

from kennel_serve import codec
from kennel_serve.backend import Backend
from kennel_serve.endpoint import CUSTOM_ATTRIBUTES, TIMING
from kennel_serve.model_server import MODEL
from kennel_serve.telemetry import Record, Telemetry

_FORMS = ("multipart/", "application/x-www-form-urlencoded")
_HEADER_LENGTH = 1024  # of the few that are passed on; Java's parser gives up at 8192 in all

RECORD = "record"  # of the request, in it
_ID = "X-Amzn-SageMaker-Inference-Id"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """What a client is answered."""

    status: int
    body: bytes
    content_type: str = codec.JSON


class Front:
    """Answers clients; `healthy` is what /ping says, set by whoever watches the model server."""

    def __init__(self, socket: str, max_bytes: int, response_seconds: float, telemetry: Telemetry) -> None:
        """
        Args:
            socket: the model server's.
        """
        self.healthy = False
        self._telemetry = telemetry
        self._max_bytes = max_bytes
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._response_seconds = response_seconds
        self._backend = Backend(socket)

    def app(self, routes: Iterable[web.RouteDef]) -> web.Application:
        """/ping, and `routes`."""
        app = web.Application(middlewares=[self._count, _one_sentence], client_max_size=self._max_bytes)
        app.router.add_get("/ping", self._ping)
        app.router.add_routes(routes)
        app.on_response_prepare.append(_no_version)
        return app

    async def drain(self) -> None:
        """Wait until no request is in flight. aiohttp's own shutdown drops bodies that are still arriving."""
        self.healthy = False
        self._draining = True
        await self._idle.wait()

    def close(self) -> None:
        self._backend.close()

    async def predict(self, model: str, body: bytes, headers: dict[str, str], record: Record) -> Reply:
        """What a model's workers answer, whatever went wrong on the way."""
        record.bytes, record.asked = len(body), time.perf_counter()
        try:
            async with asyncio.timeout(self._response_seconds):
                answer = await self._backend.post(f"/predictions/{model}", headers, body)
        except TimeoutError:
            return _error(HTTPStatus.GATEWAY_TIMEOUT, "no worker answered in time: send less, or raise the timeout")
        except OSError:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "the model server does not answer: try again")
        finally:
            record.answered = time.perf_counter()
        if TIMING not in answer.headers:
            return _honest(answer.status)
        record.take(answer.headers[TIMING])
        return Reply(answer.status, answer.body, answer.headers.get("content-type", codec.JSON))

    async def _ping(self, request: web.Request) -> web.Response:
        if self.healthy:
            return _response(Reply(200, b"{}"))
        return _response(_error(HTTPStatus.SERVICE_UNAVAILABLE, "no worker is alive"))

    async def invocations(self, request: web.Request) -> web.Response:
        return await self.invoke(request, MODEL)

    async def invoke(self, request: web.Request, model: str) -> web.Response:
        """What a model answers, by the model server's name for it."""
        try:
            # Before MMS sees it: it would take a form apart, and curl calls every body a form. Other types are a
            # matter of the model.
            kind = _plain(request.headers.get(hdrs.CONTENT_TYPE, "")) or codec.PHOTO_TYPES[0]
            if kind.lower().startswith(_FORMS):
                codec.media_type(kind)
            attributes = _attributes(request)
        except codec.RequestError as error:
            return _response(Reply(error.status_code, codec.write_error(str(error))))
        if (request.content_length or 0) > self._max_bytes:
            raise web.HTTPRequestEntityTooLarge(self._max_bytes)
        headers = {
            str(hdrs.CONTENT_TYPE): kind,
            str(hdrs.ACCEPT): _plain(request.headers.get(hdrs.ACCEPT, "")),
            CUSTOM_ATTRIBUTES: attributes,
        }
        return _response(await self.predict(model, await request.read(), headers, request[RECORD]))

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every request is noted; /ping, which comes all the time, only where it says no."""
        record = request[RECORD] = Record(_id(request), _path(request))
        self._in_flight += 1
        self._idle.clear()
        try:
            response = await handler(request)
            record.status = response.status
        finally:
            self._in_flight -= 1
            self._telemetry.in_flight.set(self._in_flight)
            if not self._in_flight:
                self._idle.set()
            if record.path != "/ping" or record.status != HTTPStatus.OK:
                asyncio.get_running_loop().call_soon(self._telemetry.done, record)  # once the answer is on its way
        if self._draining:
            response.force_close()
        return response


@web.middleware
async def _one_sentence(request: web.Request, handler: Handler) -> web.StreamResponse:
    """aiohttp's own refusals as JSON."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        limit = request.client_max_size / 1024 / 1024
        sentence = f"the body is larger than {limit:g} MB: send less, or raise SAGEMAKER_MAX_PAYLOAD_IN_MB (or memory)"
        response = _response(_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence))
        response.force_close()  # the rest of the body is not read
        return response
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = _response(_error(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.path} takes {allowed}"))
        response.headers[hdrs.ALLOW] = allowed
        return response
    except web.HTTPNotFound:
        known = ", ".join(sorted({resource.canonical for resource in request.app.router.resources()}))
        return _response(_error(HTTPStatus.NOT_FOUND, f"no such path: there are {known}"))
    except web.RequestPayloadError:
        return _response(_error(HTTPStatus.BAD_REQUEST, "the body does not arrive as its headers say: send it again"))
    except Exception:  # noqa: BLE001 # the last boundary before the client
        _log.exception("the front door failed")
        return _response(_error(HTTPStatus.INTERNAL_SERVER_ERROR, "the request failed: the endpoint's log says why"))


async def _no_version(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop(hdrs.SERVER, None)


def _attributes(request: web.Request) -> str:
    """The custom attributes; the query's options go before them, so that they win."""
    return codec.asked(request.query.items(), _plain(request.headers.get(CUSTOM_ATTRIBUTES, "")))


def _plain(value: str) -> str:
    """A header's value that any parser takes: one line, ASCII, not long."""
    return str(remove_crlf(value)).encode("ascii", "replace").decode()[:_HEADER_LENGTH]


def _honest(status: int) -> Reply:
    """MMS's own errors, with Java's class names in them, as a sentence."""
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE):
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, "no worker is free: try again, or add instances")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large: send less")
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "the worker ended or took too long: the endpoint's log says why")


def _error(status: HTTPStatus, sentence: str) -> Reply:
    return Reply(int(status), codec.write_error(sentence))


def _response(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers={hdrs.CONTENT_TYPE: reply.content_type})


def _path(request: web.Request) -> str:
    """The route's pattern, so that clients cannot invent figures' labels."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "other"


def _id(request: web.Request) -> str:
    """The caller's name for the request, else one of ours."""
    return _plain(request.headers.get(_ID, ""))[:64] or uuid.uuid4().hex
