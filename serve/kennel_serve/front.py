"""The front door on aiohttp, a well-kept HTTP library: the public port, its limits and its honest answers.

It owns /ping and /invocations as SageMaker sees them; what an answer holds is the workers' matter.
"""

import asyncio
import json
import logging
from http import HTTPStatus

import aiohttp
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from sagemaker_inference.utils import remove_crlf

from kennel_serve import codec
from kennel_serve.handler import CUSTOM_ATTRIBUTES

_HEADER_LENGTH = 1024  # of the few that are passed on; Java's parser gives up at 8192 in all

_log = logging.getLogger(__name__)


class Front:
    """Answers clients; `healthy` is what /ping says, set by whoever watches the model server."""

    def __init__(self, url: str, max_bytes: int, response_seconds: float) -> None:
        self.healthy = False
        self._url = url
        self._max_bytes = max_bytes
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        timeout = aiohttp.ClientTimeout(total=response_seconds)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._count, _one_sentence], client_max_size=self._max_bytes)
        app.router.add_get("/ping", self._ping)
        app.router.add_post("/invocations", self._invocations)
        app.on_response_prepare.append(_no_version)
        return app

    async def drain(self) -> None:
        """Wait until no request is in flight. aiohttp's own shutdown drops bodies that are still arriving."""
        self.healthy = False
        self._draining = True
        await self._idle.wait()

    async def close(self) -> None:
        await self._session.close()

    async def predict(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """What the workers answer: a status and JSON, whatever went wrong on the way."""
        try:
            async with self._session.post(self._url, data=body, headers=headers) as answer:
                return _honest(answer.status, await answer.read())
        except TimeoutError:
            return _error(HTTPStatus.GATEWAY_TIMEOUT, "no worker answered in time: send less, or raise the timeout")
        except aiohttp.ClientError:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "the model server does not answer: try again")

    async def _ping(self, request: web.Request) -> web.Response:
        if self.healthy:
            return _json(200, b"{}")
        return _json(*_error(HTTPStatus.SERVICE_UNAVAILABLE, "no worker is alive"))

    async def _invocations(self, request: web.Request) -> web.Response:
        try:
            # Before MMS sees it: it would take a form apart, and curl calls every body a form.
            kind = codec.media_type(request.headers.get(hdrs.CONTENT_TYPE))
        except codec.RequestError as error:
            return _json(error.status_code, codec.write_error(str(error)))
        if (request.content_length or 0) > self._max_bytes:
            raise web.HTTPRequestEntityTooLarge(self._max_bytes)
        headers = {
            str(hdrs.CONTENT_TYPE): kind,
            str(hdrs.ACCEPT): _plain(request.headers.get(hdrs.ACCEPT, "")),
            CUSTOM_ATTRIBUTES: _plain(_attributes(request)),
        }
        return _json(*await self.predict(await request.read(), headers))

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._in_flight += 1
        self._idle.clear()
        try:
            response = await handler(request)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
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
        sentence = f"the body is larger than {limit:g} MB: send less, or raise SAGEMAKER_MAX_PAYLOAD_IN_MB"
        response = _json(*_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence))
        response.force_close()  # the rest of the body is not read
        return response
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = _json(*_error(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.path} takes {allowed}"))
        response.headers[hdrs.ALLOW] = allowed
        return response
    except web.HTTPNotFound:
        return _json(*_error(HTTPStatus.NOT_FOUND, "no such path: there are GET /ping and POST /invocations"))
    except web.RequestPayloadError:
        return _json(*_error(HTTPStatus.BAD_REQUEST, "the body does not arrive as its headers say: send it again"))
    except Exception:  # noqa: BLE001 # the last boundary before the client
        _log.exception("the front door failed")
        return _json(*_error(HTTPStatus.INTERNAL_SERVER_ERROR, "the request failed: the endpoint's log says why"))


async def _no_version(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop(hdrs.SERVER, None)


def _attributes(request: web.Request) -> str:
    """The custom attributes; `?top_k=3` goes before them, so that it wins."""
    given = request.headers.get(CUSTOM_ATTRIBUTES, "")
    asked = request.query.get("top_k")
    return given if asked is None else f"top_k={asked[:20]},{given}"


def _plain(value: str) -> str:
    """A header's value that any parser takes: one line, ASCII, not long."""
    return str(remove_crlf(value)).encode("ascii", "replace").decode()[:_HEADER_LENGTH]


def _honest(status: int, body: bytes) -> tuple[int, bytes]:
    """A worker's answer as it is; MMS's own errors, with Java's class names in them, as a sentence."""
    if status < HTTPStatus.BAD_REQUEST:
        return status, body
    try:
        ours = set(json.loads(body)) == {"error"}
    except (ValueError, TypeError):
        ours = False
    if ours:
        return status, body
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE):
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, "no worker is free: try again, or add instances")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large: send less")
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "the worker ended or took too long: the endpoint's log says why")


def _error(status: HTTPStatus, sentence: str) -> tuple[int, bytes]:
    return int(status), codec.write_error(sentence)


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type=codec.JSON)
