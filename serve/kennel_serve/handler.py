"""The model server's boundary: it calls `handle` in each worker, once to load the model and then for every batch.

The worker learns all it needs from serving.json in the private folder that stands for the model there. Turns every
exception into an answer of one sentence; what nobody expected goes to the log with its traceback, never to the client.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sagemaker_inference.utils import retrieve_content_type_header

from kennel.preprocessing import Preprocessing
from kennel_serve import codec
from kennel_serve.codec import RequestError
from kennel_serve.predictor import Predictor

SERVING = "serving.json"
NAME = "kennel_serve.handler:handle"  # what the model server is told to call
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"

# Java passes a worker's stderr on to the log and drops its stdout, where the root logger writes.
_log = logging.getLogger(__name__)
_log.addHandler(logging.StreamHandler(sys.stderr))
_log.propagate = False


@dataclass(frozen=True)
class Serving:
    """What a worker must know, checked by the server before it starts one."""

    model: str  # the ONNX file
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    default_accept: str
    temperature: float

    def save(self, folder: Path) -> None:
        (folder / SERVING).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> "Serving":
        row = json.loads((folder / SERVING).read_text())
        row["preprocessing"] = Preprocessing.from_json(row["preprocessing"])
        return cls(**{**row, "class_names": tuple(row["class_names"])})


class Endpoint:
    """A loaded model that answers requests, in a worker or in the server's own check."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self._predictor = Predictor(Path(serving.model), len(serving.class_names), temperature=serving.temperature)

    def answer(self, body: bytes, headers: Mapping[str, Any]) -> bytes:
        """The answer to one request; header names in lower case.

        Raises:
            RequestError: the request is at fault.
        """
        codec.check_accept(headers.get("accept") or self.serving.default_accept)
        top_k = codec.top_k(headers.get(CUSTOM_ATTRIBUTES))
        request = codec.read(body, retrieve_content_type_header(headers), self.serving.preprocessing)
        probabilities = self._predictor.predict(request.photos)
        return codec.write(probabilities, self.serving.class_names, top_k, request.is_list)


_endpoint: Endpoint | None = None


def handle(data: Sequence[Mapping[str, Any]] | None, context: Any) -> list[bytes]:
    """One answer per request of `data`; without data, load the model that `context` names."""
    global _endpoint
    if data is None:
        try:
            _endpoint = Endpoint(Serving.load(Path(context.system_properties["model_dir"])))
        except Exception:
            _log.exception("the worker cannot load the model")  # the model server keeps the reason to itself
            raise
        return []
    if _endpoint is None:
        raise RuntimeError("the worker was asked before it was initialised")
    return [_answer(_endpoint, row, context, index) for index, row in enumerate(data)]


def _answer(endpoint: Endpoint, row: Mapping[str, Any], context: Any, index: int) -> bytes:
    """One request's answer, whatever happens: a bad one must not hurt the others of its batch."""
    headers = {key.lower(): value for key, value in context.get_all_request_header(index).items()}
    context.set_response_content_type(index, codec.JSON)
    try:
        return endpoint.answer(bytes(row.get("body", b"")), headers)
    except RequestError as error:
        context.set_response_status(error.status_code, error.phrase, index)
        return codec.write_error(str(error))
    except Exception:  # noqa: BLE001 # the last boundary before the client
        _log.exception("the prediction failed")
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        context.set_response_status(int(status), status.phrase, index)
        return codec.write_error("the prediction failed: the endpoint's log says why")
