"""A multi-model endpoint's /models, as SageMaker's contract has it: load, list, get, unload, invoke.

What is loaded, and whether it can be, is `model_registry`'s matter.
"""

import json
from http import HTTPStatus
from typing import Any

from kennel_serve.front.gateway import Front
from kennel_serve.front.model_registry import Models
from kennel_serve.front.telemetry import RequestLog
from kennel_serve.http.messages import HttpRequest, HttpResponse, RefusedError
from kennel_serve.http.routes import Route

PAGE = 100  # models in one answer, at most
_TARGET = "x-amzn-sagemaker-target-model"  # what the caller named, where the name is the platform's


def routes(models: Models, front: Front) -> list[Route]:
    """All of /models."""

    async def load(request: HttpRequest, record: RequestLog) -> HttpResponse:
        await models.load(*_asked(await request.read()))
        return _json({})

    async def list_page(request: HttpRequest, record: RequestLog) -> HttpResponse:
        query = dict(reversed(request.query))  # of what is said twice the first counts
        return _json(_page(models.urls(), query.get("limit"), query.get("next_page_token", "")))

    async def get(request: HttpRequest, record: RequestLog, name: str) -> HttpResponse:
        return _json(_row(name, models.url(name)))

    async def unload(request: HttpRequest, record: RequestLog, name: str) -> HttpResponse:
        await models.unload(name)
        return _json({})

    async def invoke(request: HttpRequest, record: RequestLog, name: str) -> HttpResponse:
        record.model = request.headers.get(_TARGET) or name
        return await models.ask(name, lambda id: front.invoke(request, record, id))

    return [
        Route("POST", "/models", load),
        Route("GET", "/models", list_page),
        Route("GET", "/models/{name}", get),
        Route("DELETE", "/models/{name}", unload),
        Route("POST", "/models/{name}/invoke", invoke),
    ]


def _asked(body: bytes | bytearray) -> tuple[str, str]:
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


def _json(row: dict[str, Any]) -> HttpResponse:
    return HttpResponse(200, json.dumps(row).encode())
