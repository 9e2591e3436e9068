"""What a batch transform may ask first: how many requests at once, of which size."""

import json

from kennel_serve.front.telemetry import RequestLog
from kennel_serve.http.messages import HttpRequest, HttpResponse
from kennel_serve.http.routes import Route

_MB = 1024 * 1024
_LARGEST_MB = 100  # SageMaker's limit, for one request and for all at once
_USUAL_MB = 6  # the default


def parameters(workers: int, max_bytes: int) -> dict[str, int | str]:
    """A request for each worker, as large as SageMaker then allows, but never smaller than it would choose.

    SINGLE_RECORD: one photo is one record; several of them in one body would be no photo.
    """
    megabytes = min(max_bytes // _MB, _LARGEST_MB, max(_USUAL_MB, _LARGEST_MB // workers))
    concurrent = min(workers, _LARGEST_MB // megabytes)
    return {"MaxConcurrentTransforms": concurrent, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": megabytes}


def route(workers: int, max_bytes: int) -> Route:
    """GET /execution-parameters."""
    reply = HttpResponse(200, json.dumps(parameters(workers, max_bytes)).encode())

    async def answer(request: HttpRequest, record: RequestLog) -> HttpResponse:
        return reply

    return Route("GET", "/execution-parameters", answer)
