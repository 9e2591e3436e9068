"""A loaded model that answers requests: decoded one by one, predicted together, each answered for itself.

Used by a worker, and once by the server to check the model. Knows neither HTTP nor the model server.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from sagemaker_inference.utils import retrieve_content_type_header

from kennel import cgroup
from kennel_serve.formats import request_body
from kennel_serve.formats.request_body import Options, PredictionRequest, RequestError
from kennel_serve.inference import engines
from kennel_serve.inference.model_spec import ModelSpec
from kennel_serve.inference.predictor import Predictor

SAGEMAKER = "x-amzn-sagemaker-"  # its headers' names begin so; its own of an answer go on to the client
CUSTOM_ATTRIBUTES = f"{SAGEMAKER}custom-attributes"
OURS = "x-kennel-"  # between the front door and the workers, from and to no client
TIMING = f"{OURS}timing"  # how a worker tells the front door what `Answer.timing` gives
SAMPLE = f"{OURS}sample"  # set on the photo that is asked at the start

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictionResponse:
    """What one request gets."""

    status: HTTPStatus
    body: bytes
    content_type: str = request_body.JSON
    photos: int = 0
    decode_ms: float = 0.0
    inference_ms: float = 0.0  # of all requests that were predicted with it
    headers: Mapping[str, str] = field(default_factory=dict)  # further ones, SageMaker's

    def timing(self) -> str:
        return f"{self.photos} {self.decode_ms:.2f} {self.inference_ms:.2f}"


@dataclass(frozen=True)
class _Asked:
    """A request that could be read."""

    request: PredictionRequest
    options: Options
    decode_ms: float


class Endpoint:
    """A loaded model."""

    def __init__(self, serving: ModelSpec, gpu: int | None = None) -> None:
        """
        Raises:
            UserError: the model cannot be loaded.
        """
        self.serving = serving
        row = serving.preprocessing
        classes = len(serving.class_names)
        network = engines.load(serving.engine, Path(serving.folder), serving.backbone, row.image_size, classes, gpu)
        self.predict = Predictor(network, classes, serving.temperature).predict
        self._threads = ThreadPoolExecutor(cgroup.cpus(), "decode")  # it starts none before a batch needs one

    def answer(self, requests: Sequence[tuple[bytes, Mapping[str, Any]]]) -> list[PredictionResponse]:
        """An answer for each (body, headers with names in lower case), in order; a bad request hurts only itself."""
        if len(requests) == 1:
            read = [self._read(*requests[0])]
        else:
            read = list(self._threads.map(lambda row: self._read(*row), requests))
        asked = [row for row in read if isinstance(row, _Asked)]
        try:
            answers = iter(self._predict(asked) if asked else [])
        except Exception:  # noqa: BLE001 # the last boundary before the client
            _log.exception("the prediction failed")
            failed = refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the prediction failed: the endpoint's log says why")
            answers = iter([failed] * len(asked))
        return [next(answers) if isinstance(row, _Asked) else row for row in read]

    def _predict(self, asked: Sequence[_Asked]) -> list[PredictionResponse]:
        started = time.perf_counter()
        photos = [row.request.photos for row in asked]
        found = self.predict(photos[0] if len(photos) == 1 else np.concatenate(photos))
        took = 1000 * (time.perf_counter() - started)
        ends = np.cumsum([len(row.request.photos) for row in asked])
        answers = []
        for row, probabilities in zip(asked, np.split(found, ends[:-1]), strict=True):
            asked_as = row.options, row.request.is_list, row.request.errors
            body, kind = request_body.write(probabilities, self.serving.class_names, *asked_as)
            answers.append(PredictionResponse(HTTPStatus.OK, body, kind, len(probabilities), row.decode_ms, took))
        return answers

    def _read(self, body: bytes, headers: Mapping[str, Any]) -> _Asked | PredictionResponse:
        started = time.perf_counter()
        try:
            kind, ours = retrieve_content_type_header(headers), self.serving
            said = headers.get("accept"), headers.get(CUSTOM_ATTRIBUTES), kind
            options = request_body.options(*said, ours.default_accept, ours.on_error)
            request_body.check_encoding(headers.get("content-encoding"))
            request = request_body.read(body, kind, ours.preprocessing, options.on_error)
        except RequestError as error:
            return refusal(HTTPStatus(error.status_code), str(error))
        except Exception:  # noqa: BLE001 # as above
            _log.exception("the request could not be read")
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the request failed: the endpoint's log says why")
        return _Asked(request, options, 1000 * (time.perf_counter() - started))


def refusal(status: HTTPStatus, sentence: str) -> PredictionResponse:
    """An answer that says what is wrong."""
    return PredictionResponse(status, request_body.write_error(sentence))
