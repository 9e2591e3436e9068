"""Requests answered by a user's inference.py, one by one; what it leaves out is done as `Endpoint` does it.

Where the model is none of ours, what it leaves out is done as in AWS's PyTorch image. Its exceptions go to the log with
their traceback. A client reads one sentence, or what the user says to it by a
sagemaker_inference.errors.BaseInferenceToolkitError.
"""

import asyncio
import contextlib
import inspect
import logging
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagemaker_inference import content_types
from sagemaker_inference.errors import BaseInferenceToolkitError
from sagemaker_inference.utils import remove_crlf

from kennel.errors import UserError
from kennel_serve.formats import request_body, response_body
from kennel_serve.formats.request_body import RequestError
from kennel_serve.inference import engines
from kennel_serve.inference.model_spec import ModelSpec
from kennel_serve.worker import import_turns, user_code, user_formats, user_request
from kennel_serve.worker.endpoint import CUSTOM_ATTRIBUTES, Endpoint, PredictionResponse
from kennel_serve.worker.user_request import UserRequest

if TYPE_CHECKING:
    from kennel_serve.worker.torch_defaults import TorchDefaults

_LOG_SAYS_WHY = "the endpoint's log says why"
_log = logging.getLogger(__name__)


class UserEndpoint:
    """A user's code with its model loaded."""

    def __init__(self, serving: ModelSpec, folder: Path, gpu: int | None = None) -> None:
        """
        Args:
            folder: the private one that stands for the model.

        Raises:
            UserError: the code cannot be imported or lacks what it needs, or its model cannot be loaded.
        """
        self._serving, self._gpu = serving, gpu
        self._program = Path(serving.program)
        self._is_ours = serving.engine != engines.NONE
        self._torch: TorchDefaults | None = None
        self._runner = asyncio.Runner()  # one loop for all, which what model_fn opened may belong to
        weakref.finalize(self, self._runner.close)
        with _printing():
            with import_turns.turn(folder, self._program.name):
                self._functions = user_code.load(self._program)
            if not self._is_ours and not self._defines("input_fn", "transform_fn"):
                self._defaults("input_fn")  # a lack of torch is said now
            self._model = self._load()
            self._predict = self._chosen()

    def answer(self, requests: Sequence[tuple[bytes, Mapping[str, Any]]]) -> list[PredictionResponse]:
        """An answer for each (body, headers with names in lower case), in order; a bad request hurts only itself."""
        with _printing():
            return [self._answer(body, headers) for body, headers in requests]

    def _answer(self, body: bytes, headers: Mapping[str, Any]) -> PredictionResponse:
        accept = headers.get("accept") or content_types.ANY
        accept = self._serving.default_accept if accept == content_types.ANY else accept
        request = UserRequest(body, headers, accept, self._context(headers))
        try:
            result = self._transform(request)
            answer, kind = user_formats.serialised(result, accept)
            return request.answer(request.context.get_response_status(0)[0], answer, kind)
        except BaseInferenceToolkitError as error:
            return request.answer(error.status_code, request_body.write_error(remove_crlf(str(error.message))))
        except Exception as error:  # noqa: BLE001 # the last boundary before the client
            return request.answer(500, request_body.write_error(self._failed("the request", request, error)))

    def _transform(self, request: UserRequest) -> Any:
        started = time.perf_counter()
        if self._defines("transform_fn"):
            try:
                return self._call("transform_fn", request, self._model, request.given, request.content_type)
            finally:
                request.inference_ms = 1000 * (time.perf_counter() - started)
        data = self._read(request)
        request.decode_ms = 1000 * (time.perf_counter() - started)
        started = time.perf_counter()
        prediction = self._predict(request, data)
        request.inference_ms = 1000 * (time.perf_counter() - started)
        if self._defines("output_fn"):
            return self._call("output_fn", request, prediction)
        return self._write(request, prediction)

    def _read(self, request: UserRequest) -> Any:
        if self._defines("input_fn"):
            return self._call("input_fn", request, request.given, request.content_type)
        if not self._is_ours:
            return self._defaults("input_fn").tensor(request.given, request.content_type)
        request_body.check_encoding(request.headers.get("content-encoding"))
        found = request_body.read(
            request.body, request.content_type, self._serving.preprocessing, self._on_error(request)
        )
        request.photos, request.is_list, request.errors = len(found.photos), found.is_list, found.errors
        return found.photos

    def _on_error(self, request: UserRequest) -> str:
        """What a bad photo of a list fails: only an answer that we write has a place for its error."""
        if self._defines("output_fn"):
            return response_body.REQUEST
        try:
            return self._options(request).on_error
        except RequestError:
            return response_body.REQUEST  # another answer than ours may be asked for

    def _options(self, request: UserRequest) -> response_body.Options:
        asked = request.headers.get("accept"), request.headers.get(CUSTOM_ATTRIBUTES), request.content_type
        return request_body.options(*asked, self._serving.default_accept, self._serving.on_error)

    def _write(self, request: UserRequest, prediction: Any) -> Any:
        """Arrays as our own endpoint would, where they are a share for each class, else as the toolkit's encoders."""
        found = user_formats.array(prediction)
        ours = user_formats.are_probabilities(found, len(self._serving.class_names))
        bad = next(filter(None, request.errors), "")
        if bad and not (ours and len(found) == len(request.errors)):
            raise RequestError(HTTPStatus.BAD_REQUEST, bad)
        if not ours:
            return user_formats.encoded(found, request.accept)
        is_list = len(found) != 1 if request.is_list is None else request.is_list
        return request_body.write(found, self._serving.class_names, self._options(request), is_list, request.errors)

    def _load(self) -> Any:
        """What model_fn gives, else our own model, whose `predict` takes uint8 photos and gives probabilities."""
        folder = self._serving.folder
        self._once("pre_model_fn", folder)
        if self._defines("model_fn"):
            model = self._once("model_fn", folder)
        elif self._is_ours:
            model = Endpoint(self._serving, self._gpu)
        else:
            model = self._defaults("model_fn").load(Path(folder))
        self._once("model_warmup_fn", folder, model)
        return model

    def _once(self, name: str, *arguments: Any) -> Any:
        """A function of the user's at the start, if there is one."""
        if not self._defines(name):
            return None
        try:
            return self._run(name, self._context({}), *arguments)
        except (Exception, SystemExit) as error:  # whatever the user's function raises
            reason = user_code.why(error, self._program)
            raise UserError(f"{self._program.name}'s {name} failed: {reason}") from error

    def _chosen(self) -> Callable[[UserRequest, Any], Any]:
        """What predicts: predict_fn, else a torch module itself, else the model's own method."""
        if self._defines("predict_fn", "transform_fn"):
            return lambda request, data: self._call("predict_fn", request, data, self._model)
        if "torch" in sys.modules and isinstance(self._model, sys.modules["torch"].nn.Module):
            defaults = self._defaults("predict_fn")
            predict: Any = partial(defaults.predict, defaults.ready(self._model))
        elif not callable(predict := getattr(self._model, "predict", None)):
            missing = "its model_fn gives a model without a method predict(data), which is no torch module either"
            raise self._lacks("predict_fn", missing)
        return lambda request, data: self._guarded("the model", request, lambda: predict(data))

    def _defaults(self, name: str) -> "TorchDefaults":
        """PyTorch's, in place of a function that is left out."""
        if not self._torch:
            try:
                from kennel_serve.worker.torch_defaults import TorchDefaults
            except ModuleNotFoundError as error:
                raise self._lacks(name, "this image has no torch to do it as AWS's PyTorch image would") from error
            self._torch = TorchDefaults(self._gpu)
        return self._torch

    def _lacks(self, name: str, reason: str) -> UserError:
        define = f"define {name}({', '.join(user_code.PARAMETERS[name])})"
        return UserError(f"{self._program.name} defines no {name}, and {reason}: {define}")

    def _defines(self, *names: str) -> bool:
        return any(name in self._functions for name in names)

    def _call(self, name: str, request: UserRequest, *arguments: Any) -> Any:
        """A function of the user's on a request; the Accept header follows where it takes one."""
        if "accept" in user_code.PARAMETERS[name]:
            arguments = (*arguments, request.accept)
        what = f"{self._program.name}'s {name}"
        return self._guarded(what, request, lambda: self._run(name, request.context, *arguments))

    def _guarded(self, what: str, request: UserRequest, act: Callable[[], Any]) -> Any:
        """What a user's code gives; its failure is one sentence for the client."""
        try:
            return act()
        except BaseInferenceToolkitError:
            raise
        except (Exception, SystemExit) as error:
            raise RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, self._failed(what, request, error)) from error

    def _failed(self, what: str, request: UserRequest, error: BaseException) -> str:
        """The sentence for a client; the traceback goes to the log, but for the sample photo, whose reader is us."""
        if request.may_fail:
            return f"{what} failed: {user_code.cause(error, self._program)}"
        _log.error("%s failed", what, exc_info=error)
        return f"{what} failed: {_LOG_SAYS_WHY}"

    def _run(self, name: str, context: Any, *arguments: Any) -> Any:
        function = self._functions[name]
        result = function.call(*arguments, context) if function.takes_context else function.call(*arguments)
        return self._runner.run(_awaited(result)) if inspect.isawaitable(result) else result

    def _context(self, headers: Mapping[str, Any]) -> Any:
        return user_request.context(headers, self._serving.folder, self._gpu)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


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
