"""The `serve` executable: checks the model, starts the model server, predicts once, then opens the door and watches.

The only serving module that reads the environment. One sentence and exit code 1 where the endpoint cannot serve.
"""

import asyncio
import errno
import io
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import uvloop
from PIL import Image

from kennel import cgroup
from kennel.artifact import read_manifest
from kennel.errors import UserError
from kennel.layout import MANIFEST
from kennel_serve import log, settings
from kennel_serve.formats import request_body
from kennel_serve.front import execution_parameters, multi_model
from kennel_serve.front.gateway import Front
from kennel_serve.front.model_registry import Models
from kennel_serve.front.telemetry import RequestLog, Telemetry
from kennel_serve.http.routes import Route
from kennel_serve.http.server import HttpServer
from kennel_serve.inference import engines, model_folder
from kennel_serve.inference.model_spec import ModelSpec
from kennel_serve.model_server.configuration import Limits
from kennel_serve.model_server.process import MODEL, ModelServer
from kennel_serve.settings import Settings
from kennel_serve.worker import user_code
from kennel_serve.worker.endpoint import SAMPLE, Endpoint

DRAIN_SECONDS = 25  # SageMaker kills 30 s after SIGTERM
_WATCH_SECONDS = 0.5
_SILENT_SECONDS = 5  # Java hangs; on a busy machine it may miss a second or two
LOST_SECONDS = 20  # without a worker for so long, a fresh container is better ...
_LOADS = 3  # ... but not before one could have been loaded so many times

_log = logging.getLogger(__name__)


def main() -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    with log.unblocked():
        return _main()


def _main() -> int:
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO, force=True)
    try:
        for sentence in settings.unknown(os.environ):
            _log.warning("%s", sentence)
        return uvloop.run(_serve(settings.read(cgroup.memory_bytes(), cgroup.cpus())))
    except UserError as error:
        sys.stderr.write(f"serve: {error}\n")
    except OSError as error:
        sys.stderr.write(f"serve: {error.strerror or error} ({error.filename or 'no file'}): see to the machine\n")
    return 1


async def _serve(chosen: Settings) -> int:
    """Live until a signal (0) or until the endpoint cannot go on (UserError); nothing stays behind."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup has it
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    _raise_descriptors()
    gpus = settings.gpus(visible=os.environ.get("CUDA_VISIBLE_DEVICES"))
    limits = settings.limits(chosen, cgroup.cpus(), gpus, cgroup.memory_bytes())
    live = _live_with_models if chosen.multi_model else _live
    with _bind(chosen.port) as listener:
        model_server = ModelServer(limits)
        try:
            life = asyncio.create_task(live(chosen, limits, model_server, listener))
            asked = asyncio.create_task(stop.wait())
            await asyncio.wait({life, asked}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            life.cancel()  # no effect on one that failed
            with suppress(asyncio.CancelledError):
                await life
        finally:
            await model_server.stop()
    _log.info("stopped")
    return 0


async def _live(chosen: Settings, limits: Limits, model_server: ModelServer, listener: socket.socket) -> None:
    """Start, predict once, open the door, watch. Cancelled, it lets the requests in flight finish."""
    began = time.monotonic()
    program = user_code.find(chosen.layout.model, chosen.program, chosen.submit_directory)
    await user_code.install(program, chosen.install_requirements)
    serving = await _prepare(chosen, limits, model_server)
    size = engines.size(serving.engine, Path(serving.folder))
    share = settings.share(chosen, limits, serving.engine, size, cgroup.memory_bytes(), own_code=bool(program))
    _log.info(
        "model %s: %d classes, engine %s, %d worker(s), port %d",
        serving.folder,
        len(serving.class_names),
        serving.engine,
        share.workers,
        chosen.port,
    )
    loading = time.monotonic()
    await model_server.load(serving, share)
    lost_seconds = max(LOST_SECONDS, _LOADS * (time.monotonic() - loading))
    # The model server gives up on a worker first, so that its reason is the one that counts.
    telemetry = Telemetry(chosen.request_log)
    front = Front(model_server.socket, 2 * chosen.response_seconds + 5, telemetry, _waiting_bytes(chosen))
    front.admit(MODEL, share)
    routes = [
        Route("POST", "/invocations", front.invocations),
        execution_parameters.route(share.workers, chosen.max_bytes),
    ]
    port = HttpServer(front.answers(routes), chosen.max_bytes)
    try:
        record = RequestLog("first", "/invocations")
        first = await front.predict(MODEL, _sample(), {"Content-Type": "image/png", SAMPLE: "true"}, record)
        if not serving.proven_by(first.status, record.photos):
            raise UserError(f"the first prediction failed ({first.status} {first.body.decode()}): see the lines above")
        if first.status != 200:
            said = " ".join(first.body.decode(errors="replace").split())[:400]
            _log.info("%s answers a sample photo (image/png) with %d: %s", serving.program, first.status, said)
        front.healthy = bool(model_server.workers())
        telemetry.count_in_flight(port.in_flight)
        with telemetry.page_on(chosen.metrics_port):
            await _listen(port, listener)
            _log.info("ready after %.1f s", time.monotonic() - began)
            await _watch(model_server, front, telemetry, lost_seconds)
    finally:
        await _close(port, front)


async def _live_with_models(
    chosen: Settings, limits: Limits, model_server: ModelServer, listener: socket.socket
) -> None:
    """The same for a multi-model endpoint, which is ready as soon as models can be loaded."""
    began = time.monotonic()
    await model_server.start(os.environ)
    telemetry = Telemetry(chosen.request_log)
    front = Front(model_server.socket, 2 * chosen.response_seconds + 5, telemetry, _waiting_bytes(chosen))
    models = Models(chosen, limits, model_server, front, partial(check, chosen, limits.gpus), _sample())
    port = HttpServer(front.answers(multi_model.routes(models, front)), chosen.max_bytes)
    try:
        front.healthy = True
        telemetry.count_in_flight(port.in_flight)
        with telemetry.page_on(chosen.metrics_port):
            await _listen(port, listener)
            _log.info("ready for models after %.1f s, port %d", time.monotonic() - began, chosen.port)
            await _watch(model_server, front, telemetry, LOST_SECONDS, models)
    finally:
        await _close(port, front)


async def _close(port: HttpServer, front: Front) -> None:
    front.healthy = False
    await port.close(DRAIN_SECONDS)
    front.close()


async def _prepare(chosen: Settings, limits: Limits, model_server: ModelServer) -> ModelSpec:
    """Start the model server, and check the model while Java starts."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(model_server.start(os.environ))
            checked = group.create_task(asyncio.to_thread(check, chosen, limits.gpus, chosen.layout.model))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return checked.result()


def check(
    chosen: Settings, gpus: int, folder: Path, ready: Callable[[ModelSpec], None] = lambda serving: None
) -> ModelSpec:
    """How a model is to be served, after its files were checked and it predicted once.

    A network on torch is left to the worker: it would be loaded twice for nothing.

    Args:
        ready: called before the model is loaded; what it raises is passed on.

    Raises:
        UserError: it is no model, a file is not the one that its manifest names, or it cannot predict.
    """
    program = user_code.find(folder, chosen.program, chosen.submit_directory)
    model_folder.check(folder, own_code=program is not None)
    if program and not (folder / MANIFEST).is_file():
        serving = ModelSpec.of_program(folder, str(program), chosen.default_accept)
        ready(serving)
        return serving
    manifest = read_manifest(folder)
    engine = engines.choose(manifest, chosen.engine, gpus)
    serving = ModelSpec.of(folder, manifest, engine, chosen.default_accept, str(program or ""), chosen.on_error)
    ready(serving)
    if serving.engine != "torch":
        Endpoint(serving).predict(request_body.read(_sample(), "image/png", serving.preprocessing).photos)
    return serving


async def _watch(
    model_server: ModelServer, front: Front, telemetry: Telemetry, lost_seconds: float, models: Models | None = None
) -> None:
    """Keep /ping honest; returns never, raises UserError when the model server cannot be relied on any more."""
    ended, listening = asyncio.create_task(model_server.ended()), asyncio.create_task(model_server.listen())
    last_alive, able = time.monotonic(), 0
    model_server.heard()  # the first prediction; nothing has asked it while a slow model was loaded
    try:
        while not ended.done():
            with suppress(OSError):  # without a descriptor or memory to look with, what was seen last holds
                able = models.tend() if models else len(model_server.end_hanging(model_server.workers()))
            front.hanging = model_server.silent >= _SILENT_SECONDS
            alive = bool(models or able) and not front.hanging  # an endpoint of many may have none
            if alive != front.healthy:
                _log.warning("a worker is alive again" if alive else front.trouble)
            front.healthy = alive
            telemetry.workers.set(able)
            telemetry.healthy.set(alive)
            now = time.monotonic()
            last_alive = now if alive else last_alive
            if now - last_alive > lost_seconds:
                lost = front.trouble if front.hanging else "no worker has been alive"
                raise UserError(f"{lost} for {lost_seconds:.0f} s: restart the container")
            await asyncio.wait({ended}, timeout=_WATCH_SECONDS)
        raise UserError("the model server ended by itself, killed or out of memory: restart the container")
    finally:
        with suppress(OSError):
            model_server.workers()  # one that died in the last moment is in the log
        ended.cancel()
        listening.cancel()


def _bind(port: int) -> socket.socket:
    """The public port, taken but not yet listening: a client is refused until the endpoint can answer."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):  # noqa: S104 # the contract
        with suppress(OSError):
            listener = socket.socket(family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4's clients too
            try:
                listener.bind((address, port))
                return listener
            except OSError as error:
                listener.close()
                if family == socket.AF_INET or error.errno == errno.EADDRINUSE:
                    raise _taken(port, error) from error
    raise UserError("this machine has no network: give the container one")


def _raise_descriptors() -> None:
    """The soft limit to the hard one: each client takes a descriptor, and the usual limit is 1,024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _waiting_bytes(chosen: Settings) -> int:
    """Of bodies that wait for a worker: an eighth of the memory, and room for some of the largest."""
    return max(4 * chosen.max_bytes, cgroup.memory_bytes() // 8)


async def _listen(port: HttpServer, listener: socket.socket) -> None:
    try:
        await port.listen(listener)
    except OSError as error:  # two that start at once can both bind a port, but not both listen on it
        raise _taken(listener.getsockname()[1], error) from error


def _taken(port: int, error: OSError) -> UserError:
    cause = error.strerror or error
    return UserError(f"port {port} cannot be used ({cause}): stop what uses it, or set SAGEMAKER_BIND_TO_PORT")


def _sample() -> bytes:
    """A photo of every grey, so that a prediction goes through all that a client's would."""
    photo = io.BytesIO()
    Image.linear_gradient("L").save(photo, "PNG")
    return photo.getvalue()
