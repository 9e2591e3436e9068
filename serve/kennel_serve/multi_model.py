"""A multi-model endpoint's /models, as SageMaker's contract has it: load, list, get, unload, invoke.

What is loaded, and whether it can be, is models.py's matter.
"""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from kennel_serve import codec
from kennel_serve.front import RECORD, Front
from kennel_serve.models import Models, RefusedError

PAGE = 100  # models in one answer, at most
_TARGET = "X-Amzn-SageMaker-Target-Model"  # what the caller named, where the name is the platform's
_Handler = Callable[[web.Request], Awaitable[web.Response]]


def routes(models: Models, front: Front) -> list[web.RouteDef]:
    """All of /models."""

    async def load(request: web.Request) -> web.Response:
        await models.load(*_asked(await request.read()))
        return _json({})

    async def list_page(request: web.Request) -> web.Response:
        return _json(_page(models.urls(), request.query.get("limit"), request.query.get("next_page_token", "")))

    async def get(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return _json(_row(name, models.url(name)))

    async def unload(request: web.Request) -> web.Response:
        await models.unload(request.match_info["name"])
        return _json({})

    async def invoke(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        request[RECORD].model = request.headers.get(_TARGET) or name
        return await models.ask(name, lambda id: front.invoke(request, id))

    return [
        web.post("/models", _answered(load)),
        web.get("/models", _answered(list_page)),
        web.get("/models/{name}", _answered(get)),
        web.delete("/models/{name}", _answered(unload)),
        web.post("/models/{name}/invoke", _answered(invoke)),
    ]


def _answered(handler: _Handler) -> _Handler:
    """A refusal as the answer that it is."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except RefusedError as error:
            return web.Response(status=error.status, body=codec.write_error(str(error)), content_type=codec.JSON)

    return answer


def _asked(body: bytes) -> tuple[str, str]:
    try:
        row = json.loads(body)
        name, url = row["model_name"], row["url"]
    except (ValueError, RecursionError, KeyError, TypeError):
        name = url = None
    if not (isinstance(name, str) and name and isinstance(url, str) and url):
        raise RefusedError(HTTPStatus.BAD_REQUEST, 'send {"model_name": "<name>", "url": "<folder of the model>"}')
    return name, url


def _page(urls: dict[str, str], limit: str | None, after: str) -> dict[str, Any]:
    """One page, by name. Its token is its last name, so that no model that stays is left out of the next."""
    limit = limit or str(PAGE)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and int(limit)):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"limit={limit[:20]!r}: write a whole number from 1")
    names = sorted(name for name in urls if name > after)
    page = names[: min(int(limit), PAGE)]
    token = {"nextPageToken": page[-1]} if len(page) < len(names) else {}
    return {"models": [_row(name, urls[name]) for name in page], **token}


def _row(name: str, url: str) -> dict[str, str]:
    return {"modelName": name, "modelUrl": url}


def _json(row: dict[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(row).encode(), content_type=codec.JSON)
