"""Which requests are answered here; all others are moto's."""

from collections.abc import Callable
from typing import Any

from werkzeug import Response

from ..apis import prices, quotas, runtime, sagemaker, scaling
from .account import Account
from .errors import AwsError
from .recognition import Call

Answer = dict[str, Any] | Response
_OURS: dict[str, Callable[[Account, str, dict[str, Any]], Answer | None]] = {
    "sagemaker": sagemaker.answer,
    "sagemaker-runtime": runtime.answer,
    "service-quotas": quotas.answer,
    "pricing": prices.answer,
    scaling.SERVICE: scaling.answer,
}
_SHOWN = 1000  # bytes of a body in the record of requests


def answer(account: Account, call: Call) -> Answer | None:
    """None: ask moto.

    Raises:
        AwsError: refused.
    """
    found = _OURS[call.service](account, call.operation, call.params) if call.service in _OURS else None
    if found is None and call.service in _OURS:
        raise AwsError("NotImplemented", f"the emulated AWS has no {call.service} {call.operation}", 501)
    return found


def request_of(call: Call) -> dict[str, Any]:
    """The parameters as they are recorded: long bodies are cut."""
    return {k: f"{len(v)} bytes" if isinstance(v, bytes) and len(v) > _SHOWN else v for k, v in call.params.items()}
