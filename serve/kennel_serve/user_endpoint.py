"""Requests answered by a user's inference.py, one by one; what it leaves out is done as `Endpoint` does it.

Its exceptions go to the log with their traceback. A client reads one sentence, or what the user says to it by a
sagemaker_inference.errors.BaseInferenceToolkitError.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import mms
import numpy as np
from mms.context import Context, RequestProcessor
from multidict import CIMultiDict
from sagemaker_inference import content_types
from sagemaker_inference.errors import BaseInferenceToolkitError
from sagemaker_inference.utils import remove_crlf, retrieve_content_type_header

from kennel.errors import UserError
from kennel.layout import MANIFEST
from kennel_serve import codec, engines, user_code, user_formats
from kennel_serve.codec import RequestError
from kennel_serve.endpoint import CUSTOM_ATTRIBUTES, Answer, Endpoint
from kennel_serve.serving import Serving

_log = logging.getLogger(__name__)


@dataclass
class _Request:
    """One on its way."""

    body: bytes
    headers: Mapping[str, Any]
    accept: str
    context: Any
    photos: int = 0  # that we have read
    is_list: bool | None = None  # None: only the user knows
    decode_ms: float = 0.0
    inference_ms: float = 0.0

    def answer(self, status: int, body: bytes, kind: str = codec.JSON) -> Answer:
        return Answer(_status(status), body, kind, self.photos, self.decode_ms, self.inference_ms)

    @property
    def content_type(self) -> str:
        return str(retrieve_content_type_header(self.headers) or codec.PHOTO_TYPES[0])

    @property
    def given(self) -> str | bytes:
        """The body as the user's code takes it."""
        return user_formats.text(self.body, self.content_type)


class UserEndpoint:
    """A user's code with its model loaded."""

    def __init__(self, serving: Serving, gpu: int | None = None) -> None:
        """
        Raises:
            UserError: the code cannot be imported or lacks what it needs, or its model cannot be loaded.
        """
        self._serving, self._gpu = serving, gpu
        self._program = Path(serving.program)
        with _printing():
            self._functions = user_code.load(self._program)
            self._check()
            self._model = self._load()
        if not self._defines("predict_fn", "transform_fn") and not callable(getattr(self._model, "predict", None)):
            raise self._lacks("predict_fn", "its model_fn gives a model without a method predict(data)")

    def answer(self, requests: Sequence[tuple[bytes, Mapping[str, Any]]]) -> list[Answer]:
        """An answer for each (body, headers with names in lower case), in order; a bad request hurts only itself."""
        with _printing():
            return [self._answer(body, headers) for body, headers in requests]

    def _answer(self, body: bytes, headers: Mapping[str, Any]) -> Answer:
        accept = headers.get("accept") or content_types.ANY
        accept = self._serving.default_accept if accept == content_types.ANY else accept
        request = _Request(body, headers, accept, self._context(headers))
        try:
            result = self._transform(request)
            answer, kind = user_formats.serialised(result, accept)
            return request.answer(request.context.get_response_status(0)[0], answer, kind)
        except BaseInferenceToolkitError as error:
            return request.answer(error.status_code, codec.write_error(remove_crlf(str(error.message))))
        except Exception:  # noqa: BLE001 # the last boundary before the client
            _log.exception("the request failed")
            return request.answer(500, codec.write_error("the request failed: the endpoint's log says why"))

    def _transform(self, request: _Request) -> Any:
        if self._defines("transform_fn"):
            started = time.perf_counter()
            try:
                return self._call(
                    "transform_fn", request.context, self._model, request.given, request.content_type, request.accept
                )
            finally:
                request.inference_ms = 1000 * (time.perf_counter() - started)
        started = time.perf_counter()
        data = self._read(request)
        request.decode_ms = 1000 * (time.perf_counter() - started)
        started = time.perf_counter()
        if self._defines("predict_fn"):
            prediction = self._call("predict_fn", request.context, data, self._model)
        else:
            prediction = self._model.predict(data)
        request.inference_ms = 1000 * (time.perf_counter() - started)
        if self._defines("output_fn"):
            return self._call("output_fn", request.context, prediction, request.accept)
        return self._write(request, prediction)

    def _read(self, request: _Request) -> Any:
        if self._defines("input_fn"):
            return self._call("input_fn", request.context, request.given, request.content_type)
        found = codec.read(request.body, request.content_type, self._serving.preprocessing)
        request.photos, request.is_list = len(found.photos), found.is_list
        return found.photos

    def _write(self, request: _Request, prediction: Any) -> Any:
        """Arrays as our own endpoint would, where they are a share for each class, else as the toolkit's encoders."""
        found = user_formats.array(prediction)
        if not isinstance(found, np.ndarray):
            return found
        if not user_formats.are_probabilities(found, len(self._serving.class_names)):
            return user_formats.encoded(found, request.accept)
        asked = request.headers.get("accept"), request.headers.get(CUSTOM_ATTRIBUTES), request.content_type
        options = codec.options(*asked, self._serving.default_accept)
        is_list = len(found) != 1 if request.is_list is None else request.is_list
        return codec.write(found, self._serving.class_names, options, is_list)

    def _load(self) -> Any:
        """What model_fn gives, else our own model, whose `predict` takes uint8 photos and gives probabilities."""
        if not self._defines("model_fn"):
            return Endpoint(self._serving, self._gpu)
        try:
            return self._run("model_fn", self._context({}), self._serving.folder)
        except (Exception, SystemExit) as error:  # whatever the user's function raises
            reason = user_code.why(error, self._program)
            raise UserError(f"{self._program.name}'s model_fn failed: {reason}") from error

    def _check(self) -> None:
        """Refuse what could only be done with a manifest, where there is none."""
        if self._serving.engine == engines.NONE:
            absent = f"{self._serving.folder} has no {MANIFEST}"
            if not self._defines("model_fn"):
                raise self._lacks("model_fn", absent)
            if not self._defines("input_fn", "transform_fn"):
                raise self._lacks("input_fn", f"{absent} that says how a photo is to be read")

    def _lacks(self, name: str, reason: str) -> UserError:
        define = f"define {name}({', '.join(user_code.PARAMETERS[name])})"
        return UserError(f"{self._program.name} defines no {name}, and {reason}: {define}")

    def _defines(self, *names: str) -> bool:
        return any(name in self._functions for name in names)

    def _call(self, name: str, context: Any, *arguments: Any) -> Any:
        """A function of the user's, whose failure is one sentence for the client."""
        try:
            return self._run(name, context, *arguments)
        except BaseInferenceToolkitError:
            raise
        except (Exception, SystemExit) as error:
            sentence = f"{self._program.name}'s {name} failed: the endpoint's log says why"
            _log.exception("%s's %s failed", self._program.name, name)
            raise RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, sentence) from error

    def _run(self, name: str, context: Any, *arguments: Any) -> Any:
        function = self._functions[name]
        return function.call(*arguments, context) if function.takes_context else function.call(*arguments)

    def _context(self, headers: Mapping[str, Any]) -> Any:
        """The model server's own class, as users know it, of one request; it is told the user's model folder."""
        context = Context("model", self._serving.folder, None, 1, self._gpu, mms.__version__)
        context.request_ids = {0: ""}
        context.request_processor = [RequestProcessor(CIMultiDict(headers))]
        return context


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """What the user's code prints and logs goes to stderr: a worker's stdout is dropped by the model server."""
    with contextlib.ExitStack() as stack:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
                handler.setStream(sys.stderr)
                stack.callback(handler.setStream, sys.stdout)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def _status(code: Any) -> HTTPStatus:
    try:
        status = HTTPStatus(code)
    except ValueError:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
    return status if status >= HTTPStatus.OK else HTTPStatus.INTERNAL_SERVER_ERROR
