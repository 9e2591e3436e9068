"""The model server's boundary: it calls `handle` in each worker, once to load the model and then for every batch.

The worker learns all it needs from serving.json in the private folder that stands for the model there. Turns every
exception into an answer of one sentence; an unexpected one goes to the log with its traceback, never to the client.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from kennel.errors import UserError
from kennel_serve.formats.response_body import MAX_BYTES
from kennel_serve.inference.model_spec import ModelSpec
from kennel_serve.worker.endpoint import TIMING, Endpoint, PredictionResponse, refusal
from kennel_serve.worker.heartbeat import Heartbeat

NAME = "kennel_serve.worker.handler:handle"  # what the model server calls
PULSES = "workers"  # the folder of the workers' files
REASON = "reason"  # the file in which a worker says why it cannot load the model
_NICE = 5  # workers as many as CPUs must not keep the front door from answering /ping

# Java passes a worker's stderr on to the log and drops its stdout, where the root logger writes.
_log = logging.getLogger("kennel_serve")
_log.addHandler(logging.StreamHandler(sys.stderr))
_log.propagate = False


class _Answers(Protocol):
    """Our endpoint, or a user's."""

    def answer(self, requests: Sequence[tuple[bytes, Mapping[str, Any]]]) -> list[PredictionResponse]: ...


_loaded: tuple[_Answers, Heartbeat] | None = None


def handle(data: Sequence[Mapping[str, Any]] | None, context: Any) -> list[bytes]:
    """One answer per request of `data`; without data, load the model that `context` names."""
    global _loaded
    if data is None:
        try:
            _loaded = _load(Path(context.system_properties["model_dir"]), context.system_properties.get("gpu_id"))
        except Exception as error:
            _log.exception("the worker cannot load the model")  # the model server keeps the reason to itself
            if isinstance(error, UserError):
                Path(context.system_properties["model_dir"], REASON).write_text(str(error))
            raise
        return []
    if _loaded is None:
        raise RuntimeError("the worker was asked before it was initialised")
    endpoint, pulse = _loaded
    with pulse.busy():
        return _answers(endpoint, data, context)


def _load(folder: Path, gpu: int | None) -> tuple[_Answers, Heartbeat]:
    logging.getLogger("mms").setLevel(logging.WARNING)  # it writes each request's metrics to Java, which drops them
    os.nice(_NICE)
    serving = ModelSpec.load(folder)
    if serving.program:
        from kennel_serve.worker.user_endpoint import UserEndpoint  # here: it costs others memory and time for nothing

        return UserEndpoint(serving, folder, gpu), Heartbeat(folder / PULSES)
    return Endpoint(serving, gpu), Heartbeat(folder / PULSES)


def _answers(endpoint: _Answers, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
    requests = []
    for index, row in enumerate(data):
        headers = {key.lower(): value for key, value in context.get_all_request_header(index).items()}
        requests.append((bytes(row.get("body", b"")), headers))
    answers = [_sendable(answer) for answer in endpoint.answer(requests)]
    for index, answer in enumerate(answers):
        for name, value in answer.headers.items():
            context.set_response_header(index, name, value)
        context.set_response_content_type(index, answer.content_type)
        context.set_response_header(index, TIMING, answer.timing())
        context.set_response_status(int(answer.status), answer.status.phrase, index)
    return [answer.body for answer in answers]


def _sendable(answer: PredictionResponse) -> PredictionResponse:
    """What the model server takes of an answer."""
    if len(answer.body) <= MAX_BYTES:
        return answer
    sentence = f"the answer is larger than {MAX_BYTES >> 20} MB: split the request, or ask for less"
    return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
