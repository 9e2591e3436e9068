"""One request on its way through a user's inference.py, and its answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import mms
from mms.context import Context, RequestProcessor
from multidict import CIMultiDict
from sagemaker_inference.utils import retrieve_content_type_header

from kennel_serve.formats import request_body
from kennel_serve.worker import user_formats
from kennel_serve.worker.endpoint import SAGEMAKER, SAMPLE, PredictionResponse

_PASSED_ON = re.compile(rf"{SAGEMAKER}[a-z0-9-]+")


@dataclass
class UserRequest:
    """One on its way.

    Args:
        headers: by names in lower case.
        context: what the user's functions may take.
        photos: that we have read.
        is_list: whether they came as a list; None: only the user knows.
        errors: what is wrong with each of them, or "", where on_error=line asked for that.
    """

    body: bytes
    headers: Mapping[str, Any]
    accept: str
    context: Any
    photos: int = 0
    is_list: bool | None = None
    errors: tuple[str, ...] = ()
    decode_ms: float = 0.0
    inference_ms: float = 0.0

    def answer(self, status: int, body: bytes, kind: str = request_body.JSON) -> PredictionResponse:
        """What its client gets, with the response headers that SageMaker would pass on."""
        own = self.context.get_response_headers(0).items()
        said = {str(name).lower(): user_formats.header(value) for name, value in own}
        headers = {name: value for name, value in said.items() if _PASSED_ON.fullmatch(name)}
        return PredictionResponse(_status(status), body, kind, self.photos, self.decode_ms, self.inference_ms, headers)

    @property
    def content_type(self) -> str:
        return str(retrieve_content_type_header(self.headers) or request_body.PHOTO_TYPES[0])

    @property
    def given(self) -> str | bytes:
        """The body as the user's code takes it."""
        return user_formats.text(self.body, self.content_type)

    @property
    def may_fail(self) -> bool:
        """Our sample photo at the start, which a user's code need not take."""
        return SAMPLE in self.headers and self.photos == 0


def context(headers: Mapping[str, Any], folder: str, gpu: int | None) -> Any:
    """The model server's own class, as users know it, of one request.

    Args:
        folder: the user's model folder.
    """
    made = Context("model", folder, None, 1, gpu, mms.__version__)
    made.request_ids = {0: ""}
    made.request_processor = [RequestProcessor(CIMultiDict(headers))]
    return made


def _status(code: Any) -> HTTPStatus:
    try:
        status = HTTPStatus(code)
    except ValueError:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
    return status if status >= HTTPStatus.OK else HTTPStatus.INTERNAL_SERVER_ERROR
