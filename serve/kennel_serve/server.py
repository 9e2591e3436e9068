"""The `serve` executable: checks the model, starts the model server, predicts once, then opens the door and watches.

The only serving module that reads the environment. One sentence and exit code 1 where the endpoint cannot serve.
"""

import asyncio
import io
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from aiohttp import web
from PIL import Image

from kennel import cgroup
from kennel.artifact import read_manifest
from kennel.errors import UserError
from kennel.layout import ONNX
from kennel_serve import settings
from kennel_serve.front import Front
from kennel_serve.handler import Endpoint, Serving
from kennel_serve.model_server import ModelServer
from kennel_serve.settings import Settings

DRAIN_SECONDS = 25  # SageMaker kills 30 s after SIGTERM
LOST_SECONDS = 20  # without a worker for so long, a fresh container is better

_log = logging.getLogger(__name__)


def main() -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO, force=True)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # it logs a traceback for a client's broken HTTP
    try:
        return asyncio.run(_serve(settings.read(os.environ)))
    except UserError as error:
        sys.stderr.write(f"serve: {error}\n")
    except OSError as error:
        sys.stderr.write(f"serve: {error.strerror or error} ({error.filename or 'no file'}): see to the machine\n")
    return 1


async def _serve(chosen: Settings) -> int:
    """Live until a signal (0) or until the endpoint cannot go on (UserError); nothing stays behind."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    model = chosen.layout.model / ONNX
    size = model.stat().st_size if model.is_file() else 0
    limits = settings.limits(chosen, size, cgroup.cpus(), cgroup.memory_bytes())
    with _bind(chosen.port) as listener:
        model_server = ModelServer(limits)
        try:
            life = asyncio.create_task(_live(chosen, limits.workers, model_server, listener))
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


async def _live(chosen: Settings, workers: int, model_server: ModelServer, listener: socket.socket) -> None:
    """Start, predict once, open the door, watch. Cancelled, it lets the requests in flight finish."""
    began = time.monotonic()
    serving = await _prepare(chosen, model_server)
    _log.info(
        "model %s: %d classes, %d worker(s), port %d",
        chosen.layout.model,
        len(serving.class_names),
        workers,
        chosen.port,
    )
    await model_server.load(serving)
    # The model server gives up on a worker first, so that its reason is the one that counts.
    front = Front(model_server.url, chosen.max_bytes, chosen.response_seconds + 5)
    runner = web.AppRunner(front.app(), access_log=None, shutdown_timeout=1)
    try:
        status, answer = await front.predict(_sample(), {"Content-Type": "image/png"})
        if status != 200:
            raise UserError(f"the first prediction failed ({status} {answer.decode()}): the lines above say why")
        front.healthy = await model_server.alive()
        await runner.setup()
        await _listen(runner, listener)
        _log.info("ready after %.1f s", time.monotonic() - began)
        await _watch(model_server, front)
    finally:
        await _close(runner, front)


async def _close(runner: web.AppRunner, front: Front) -> None:
    """Accept nothing more, let the requests in flight finish, hang up."""
    for site in runner.sites:
        await site.stop()
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await front.drain()
    await runner.cleanup()
    await front.close()


async def _prepare(chosen: Settings, model_server: ModelServer) -> Serving:
    """Start the model server, and check the model while Java starts."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(model_server.start(os.environ))
            checked = group.create_task(asyncio.to_thread(check, chosen.layout.model, chosen.default_accept))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return checked.result()


def check(folder: Path, default_accept: str) -> Serving:
    """What the workers must know of a model folder, after its files were checked and it predicted once.

    Raises:
        UserError: it is no model, a file is not the one that its manifest names, or it cannot predict.
    """
    manifest = read_manifest(folder)
    model, names = str(folder / ONNX), manifest.class_names
    serving = Serving(model, names, manifest.preprocessing, default_accept, manifest.temperature)
    Endpoint(serving).answer(_sample(), {"content-type": "image/png"})
    return serving


async def _watch(model_server: ModelServer, front: Front) -> None:
    """Keep /ping honest; returns never, raises UserError when the model server cannot be relied on any more."""
    ended = asyncio.create_task(model_server.ended())
    last_alive = time.monotonic()
    try:
        while not ended.done():
            alive = await model_server.alive()
            if alive != front.healthy:
                _log.warning("a worker is alive again" if alive else "no worker is alive")
            front.healthy = alive
            now = time.monotonic()
            last_alive = now if alive else last_alive
            if now - last_alive > LOST_SECONDS:
                raise UserError(f"no worker has been alive for {LOST_SECONDS} s: restart the container")
            await asyncio.wait({ended}, timeout=1)
        raise UserError("the model server ended by itself, killed or out of memory: restart the container")
    finally:
        ended.cancel()


def _bind(port: int) -> socket.socket:
    """The public port, taken but not yet listening: a client is refused until the endpoint can answer."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))  # noqa: S104 # the contract: the platform reaches it from outside
    except OSError as error:
        listener.close()
        raise _taken(port, error) from error
    return listener


async def _listen(runner: web.AppRunner, listener: socket.socket) -> None:
    try:
        await web.SockSite(runner, listener).start()
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
