"""What an endpoint may be told by environment variables, read by sagemaker-inference and checked here; and what
follows from the container's CPUs and memory where it is told nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sagemaker_inference.environment import Environment

from kennel.errors import UserError
from kennel.layout import Layout
from kennel_serve import codec
from kennel_serve.configuration import Limits

_MB = 1024 * 1024
_MAX_MB = 25  # SageMaker's own limit for real-time endpoints
_RESPONSE_SECONDS = 60  # and its time for an answer
_WORKER_BYTES = 200 * _MB  # a worker before its model; a loaded model takes about three times its file
_SERVER_BYTES = 300 * _MB  # the front door and its own check of the model, and Java besides its heap

# Variable -> what its whole number may be.
_BOUNDS = {
    "SAGEMAKER_BIND_TO_PORT": (1, 65535),
    "SAGEMAKER_MODEL_SERVER_WORKERS": (1, 256),
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": (1, 1440),  # minutes, as MMS reads it
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": (1, 86400),
    "SAGEMAKER_STARTUP_TIMEOUT": (1, 86400),
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": (1, 1024),
}


@dataclass(frozen=True)
class Settings:
    """One endpoint's settings, checked."""

    layout: Layout
    port: int
    workers: int | None  # None: as many as CPUs and memory allow
    response_seconds: int
    startup_seconds: int
    max_bytes: int
    default_accept: str
    vmargs: str


def read(environ: Mapping[str, str]) -> Settings:
    """The settings of this process's environment, which `environ` is.

    Raises:
        UserError: a value that cannot be used, by its name.
    """
    for name, (low, high) in _BOUNDS.items():
        text = environ.get(name, str(low)).strip()
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise UserError(f"{name}={text[:40]!r}: write a whole number from {low} to {high}, or leave it out")
    if environ.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true":
        raise UserError("SAGEMAKER_MULTI_MODEL=true is not supported: serve one model per endpoint")
    found = Environment()
    try:
        codec.check_accept(found.default_accept)
    except codec.RequestError as error:
        raise UserError(f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: {error}") from error
    seconds = found.model_server_timeout_seconds or _RESPONSE_SECONDS
    if "SAGEMAKER_MODEL_SERVER_TIMEOUT" in environ and not found.model_server_timeout_seconds:
        seconds = 60 * found.model_server_timeout
    return Settings(
        layout=Layout(Path(environ.get("SAGEMAKER_BASE_DIR") or Layout().base)),
        port=int(found.inference_http_port),
        workers=int(found.model_server_workers) if found.model_server_workers else None,
        response_seconds=seconds,
        startup_seconds=found.startup_timeout,
        max_bytes=found.max_request_size or _MAX_MB * _MB,
        default_accept=found.default_accept,
        vmargs=environ.get("SAGEMAKER_MODEL_SERVER_VMARGS", ""),
    )


def limits(settings: Settings, model_bytes: int, cpus: int, memory: int) -> Limits:
    """The model server's share: Java's heap for requests in flight, then workers by memory, at most one per CPU."""
    heap = min(128 * _MB + 8 * settings.max_bytes, max(96 * _MB, memory // 4))
    room = int(0.9 * memory) - heap - _SERVER_BYTES
    fitting = max(1, min(cpus, room // (_WORKER_BYTES + 3 * model_bytes)))
    return Limits(
        workers=settings.workers or fitting,
        heap_bytes=heap,
        cpus=cpus,
        request_bytes=settings.max_bytes,
        response_seconds=settings.response_seconds,
        startup_seconds=settings.startup_seconds,
        vmargs=settings.vmargs,
    )
