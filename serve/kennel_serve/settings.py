"""What an endpoint may be told by environment variables, read by sagemaker-inference and checked here; and what
follows from the container's CPUs and memory where it is told nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sagemaker_inference.environment import Environment

from kennel.errors import UserError
from kennel.layout import Layout
from kennel_serve import codec, engines
from kennel_serve.configuration import Limits, Share

_MB = 1024 * 1024
_MAX_MB = 25  # SageMaker's own limit for real-time endpoints
_RESPONSE_SECONDS = 30  # after so long a worker hangs; SageMaker waits for 60
_GPU_BATCH, _GPU_DELAY_MS = 32, 2
_GPU_WORKERS = 2  # for each GPU: one decodes while the other predicts
_WORKER_BYTES = 200 * _MB  # a worker before its model; a loaded model takes about three times its file
_SERVER_BYTES = 300 * _MB  # the front door and its own check of the model, and Java besides its heap

# Variable -> what its whole number may be.
_BOUNDS = {
    "SAGEMAKER_BIND_TO_PORT": (1, 65535),
    "SAGEMAKER_MODEL_SERVER_WORKERS": (1, 256),
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": (1, 1440),  # minutes, as MMS reads it
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": (1, 86400),
    "SAGEMAKER_STARTUP_TIMEOUT": (1, 86400),
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": (0, 1024),
    "KENNEL_BATCH_SIZE": (1, 256),
    "KENNEL_BATCH_DELAY_MS": (0, 10_000),
    "KENNEL_METRICS_PORT": (0, 65535),
}
_ENGINES = (engines.AUTO, *engines.FILES)


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
    engine: str  # "auto" or one of engines.FILES
    batch_size: int | None  # None: by the engine
    batch_delay_ms: int | None
    metrics_port: int  # on loopback; 0: none
    request_log: bool


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
    engine = environ.get("KENNEL_ENGINE", engines.AUTO).strip().lower()
    if engine not in _ENGINES:
        raise UserError(f"KENNEL_ENGINE={engine[:40]!r}: choose one of {', '.join(_ENGINES)}, or leave it out")
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
        engine=engine,
        batch_size=_whole(environ, "KENNEL_BATCH_SIZE"),
        batch_delay_ms=_whole(environ, "KENNEL_BATCH_DELAY_MS"),
        metrics_port=_whole(environ, "KENNEL_METRICS_PORT") or 0,
        request_log=environ.get("KENNEL_REQUEST_LOG", "true").strip().lower() != "false",
    )


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    return int(environ[name]) if name in environ else None


def gpus(devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs the container sees, without a library that would have to be loaded for it."""
    return sum(path.name[6:].isdigit() for path in devices.glob("nvidia*"))


def limits(settings: Settings, cpus: int, gpu_count: int, memory: int) -> Limits:
    """The model server's share: Java's heap for requests in flight."""
    return Limits(
        heap_bytes=min(128 * _MB + 8 * settings.max_bytes, max(96 * _MB, memory // 4)),
        cpus=cpus,
        gpus=gpu_count,
        request_bytes=settings.max_bytes,
        response_seconds=settings.response_seconds,
        startup_seconds=settings.startup_seconds,
        vmargs=settings.vmargs,
    )


def share(settings: Settings, limits: Limits, engine: str, model_bytes: int, memory: int) -> Share:
    """A model's: workers by memory, at most one per CPU; on a GPU two for each, whose memory is the GPU's."""
    on_gpu = engine == "torch" and limits.gpus > 0
    room = int(0.9 * memory) - limits.heap_bytes - _SERVER_BYTES
    fitting = max(1, min(limits.cpus, room // (_WORKER_BYTES + 3 * model_bytes)))
    delay = settings.batch_delay_ms
    return Share(
        workers=settings.workers or (_GPU_WORKERS * limits.gpus if on_gpu else fitting),
        batch_size=settings.batch_size or (_GPU_BATCH if on_gpu else 1),
        batch_delay_ms=delay if delay is not None else _GPU_DELAY_MS if on_gpu else 0,
    )
