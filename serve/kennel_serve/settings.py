"""Settings of an endpoint by environment variables, read by sagemaker-inference and checked here; and what
follows from the container's CPUs and memory where they are not set.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sagemaker_inference.environment import Environment

from kennel.errors import UserError, did_you_mean
from kennel.layout import Layout
from kennel_serve.formats import request_body, response_body
from kennel_serve.inference import engines
from kennel_serve.model_server.configuration import Limits, Share
from kennel_serve.worker import user_code

_MB = 1024 * 1024
_MAX_MB = 25  # SageMaker's own limit for real-time endpoints
_LARGEST_MB = 1024  # ... and for asynchronous ones
_RESPONSE_SECONDS = 30  # after so long a worker hangs; SageMaker waits for 60
_PATIENT_SECONDS = 600  # ... in batch transform and for larger bodies, which waits for as long as it is configured to
_DAY_SECONDS = 86400
_GPU_BATCH, _GPU_DELAY_MS = 32, 2
_GPU_WORKERS = 2  # for each GPU: one decodes while the other predicts
_WORKER_BYTES = 200 * _MB  # a worker before its model; a loaded model takes about three times its file
_SERVER_BYTES = 300 * _MB  # the front door and its own check of the model, and Java besides its heap
_BODY_COPIES = 20  # of a request's body exist at once: 2 in the front door, 6 in Java, 6 in the worker, and some room
_WORKER_COPIES = 6

# Variable -> what its whole number may be.
_BOUNDS = {
    "SAGEMAKER_BIND_TO_PORT": (1, 65535),
    "SAGEMAKER_MODEL_SERVER_WORKERS": (1, 256),
    # Minutes, as MMS reads it. AWS's JumpStart models and samples set 3600 and mean seconds: a day is the most.
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": (1, 86400),
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": (1, 86400),
    "SAGEMAKER_STARTUP_TIMEOUT": (1, 86400),
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": (0, _LARGEST_MB),
    "KENNEL_BATCH_SIZE": (1, 256),
    "KENNEL_BATCH_DELAY_MS": (0, 10_000),
    "KENNEL_METRICS_PORT": (0, 65535),
}
_OURS = "KENNEL_"
_SWITCHES = ("KENNEL_ENGINE", "KENNEL_ON_ERROR", "KENNEL_REQUEST_LOG", user_code.INSTALL)
_OF_THE_IMAGE = ("KENNEL_CUDA_COMPAT", "KENNEL_CUDA_COMPAT_CHOICE", "KENNEL_WEIGHTS")  # which serving does not read
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
    on_error: str  # one of answers.ON_ERROR, for requests that do not say it
    vmargs: str
    engine: str  # "auto" or one of engines.FILES
    batch_size: int | None  # None: by the engine
    batch_delay_ms: int | None
    metrics_port: int  # on loopback; 0: none
    request_log: bool
    multi_model: bool
    program: str  # SAGEMAKER_PROGRAM; "": inference.py, where there is one
    submit_directory: str
    install_requirements: bool


def read(memory: int = 1 << 40, cpus: int = 1) -> Settings:
    """The settings of this process's environment.

    Args:
        memory: the container's, and its CPUs: what limits bodies where they could be larger.

    Raises:
        UserError: a value that cannot be used, by its name.
    """
    environ = os.environ
    for name, (low, high) in _BOUNDS.items():
        text = environ.get(name, str(low)).strip()
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise UserError(f"{name}={text[:40]!r}: write a whole number from {low} to {high}, or leave it out")
    engine = environ.get("KENNEL_ENGINE", engines.AUTO).strip().lower()
    if engine not in _ENGINES:
        raise UserError(f"KENNEL_ENGINE={engine[:40]!r}: choose one of {', '.join(_ENGINES)}, or leave it out")
    on_error = environ.get("KENNEL_ON_ERROR", response_body.REQUEST).strip().lower()
    if on_error not in response_body.ON_ERROR:
        raise UserError(
            f"KENNEL_ON_ERROR={on_error[:40]!r}: write {' or '.join(response_body.ON_ERROR)}, or leave it out"
        )
    found = Environment()
    try:
        request_body.check_accept(found.default_accept)
    except request_body.RequestError as error:
        raise UserError(f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: {error}") from error
    max_bytes = _max_bytes(found.max_request_size, memory, cpus)
    patient = max_bytes > _MAX_MB * _MB or _is_true(environ, "SAGEMAKER_BATCH")
    seconds = found.model_server_timeout_seconds or (_PATIENT_SECONDS if patient else _RESPONSE_SECONDS)
    if "SAGEMAKER_MODEL_SERVER_TIMEOUT" in environ and not found.model_server_timeout_seconds:
        seconds = min(60 * int(environ["SAGEMAKER_MODEL_SERVER_TIMEOUT"]), _DAY_SECONDS)
    return Settings(
        layout=Layout(Path(environ.get("SAGEMAKER_BASE_DIR") or Layout().base).absolute()),
        port=int(found.inference_http_port),
        workers=int(found.model_server_workers) if found.model_server_workers else None,
        response_seconds=seconds,
        startup_seconds=found.startup_timeout,
        max_bytes=max_bytes,
        default_accept=found.default_accept,
        on_error=on_error,
        vmargs=environ.get("SAGEMAKER_MODEL_SERVER_VMARGS", ""),
        engine=engine,
        batch_size=_whole(environ, "KENNEL_BATCH_SIZE"),
        batch_delay_ms=_whole(environ, "KENNEL_BATCH_DELAY_MS"),
        metrics_port=_whole(environ, "KENNEL_METRICS_PORT") or 0,
        request_log=_is_true(environ, "KENNEL_REQUEST_LOG", "true"),
        multi_model=_is_true(environ, "SAGEMAKER_MULTI_MODEL"),
        program=environ.get("SAGEMAKER_PROGRAM", "").strip(),
        submit_directory=environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "").strip(),
        install_requirements=_is_true(environ, user_code.INSTALL),
    )


def _max_bytes(given: int | None, memory: int, cpus: int) -> int:
    """As large as is asked for, if memory can hold one.

    0 is what batch transform says for bodies of any size, sent in chunks: then as large as every CPU can have one.
    """
    if given is None:
        return _MAX_MB * _MB
    bodies = 1 if given else cpus
    largest = max(_MAX_MB, min(_LARGEST_MB, memory // _MB // _BODY_COPIES // bodies)) * _MB
    return min(given or largest, largest)


def _is_true(environ: Mapping[str, str], name: str, default: str = "false") -> bool:
    """
    Raises:
        UserError: neither true nor false.
    """
    word = environ.get(name, "").strip().lower() or default
    if word not in ("true", "false"):
        raise UserError(f"{name}={word[:40]!r}: write true or false, or leave it out")
    return word == "true"


def unknown(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that is called as ours are and is none: most are misspelt."""
    known = {name for name in (*_BOUNDS, *_SWITCHES, *_OF_THE_IMAGE) if name.startswith(_OURS)}
    sentences = []
    for name in sorted(name for name in environ if name.startswith(_OURS) and name not in known):
        hint = did_you_mean(name, known, cutoff=0.75)  # all begin alike
        sentences.append(f"warning: the variable {name} is not known and does nothing{f': {hint}' if hint else ''}")
    return sentences


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    return int(environ[name]) if name in environ else None


def gpus(devices: Path = Path("/dev"), visible: str | None = None) -> int:
    """How many NVIDIA GPUs this process may use, without a library that would have to be loaded for it.

    Args:
        visible: CUDA_VISIBLE_DEVICES, or None for all; as CUDA reads it, what follows a -1 is not seen.
    """
    count = sum(path.name[6:].isdigit() for path in devices.glob("nvidia*"))
    if visible is None:
        return count
    named = [name.strip() for name in visible.split(",")]
    return min(count, next((at for at, name in enumerate(named) if name in ("", "-1")), len(named)))


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


def worker_bytes(model_bytes: int) -> int:
    """What a worker takes, its model included."""
    return _WORKER_BYTES + 3 * model_bytes


def share(
    settings: Settings, limits: Limits, engine: str, model_bytes: int, memory: int, own_code: bool = False
) -> Share:
    """A model's: workers by memory, at most one per CPU; on a GPU two for each, whose memory is the GPU's.

    Of many models each has one, for all that they do together. A user's own code may use the GPU or not, and takes
    its requests one by one: it has one worker for each GPU, as in AWS's image.
    """
    on_gpu = engine == "torch" and limits.gpus > 0 and not own_code
    room = int(0.9 * memory) - limits.heap_bytes - _SERVER_BYTES
    body_bytes = _WORKER_COPIES * max(0, limits.request_bytes - _MAX_MB * _MB)
    fitting = max(1, min(limits.cpus, room // (worker_bytes(model_bytes) + body_bytes)))
    if own_code and limits.gpus:
        fitting = limits.gpus
    usual = 1 if settings.multi_model else _GPU_WORKERS * limits.gpus if on_gpu else fitting
    delay = settings.batch_delay_ms
    return Share(
        workers=settings.workers or usual,
        batch_size=settings.batch_size or (_GPU_BATCH if on_gpu else 1),
        batch_delay_ms=delay if delay is not None else _GPU_DELAY_MS if on_gpu else 0,
        own_code=own_code,
    )
