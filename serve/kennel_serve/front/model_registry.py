"""The models of a multi-model endpoint: loaded, asked, unloaded while we serve, and loaded anew when workers stay dead.

A name of SageMaker's may hold anything, so the model server knows each load by a name of ours. A model is proven as
a single one is, by a prediction, before it is announced. Knows no HTTP but the statuses of refusals.
"""

import asyncio
import ctypes
import gc
import itertools
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kennel import cgroup
from kennel.errors import UserError
from kennel_serve import settings
from kennel_serve.front.gateway import Front
from kennel_serve.front.telemetry import RequestLog
from kennel_serve.http.messages import HttpResponse, RefusedError
from kennel_serve.inference import engines
from kennel_serve.inference.model_spec import ModelSpec
from kennel_serve.model_server.configuration import Limits, Share
from kennel_serve.model_server.process import ModelServer
from kennel_serve.settings import Settings
from kennel_serve.worker import user_code
from kennel_serve.worker.endpoint import SAMPLE

_LATE_SECONDS = 5  # a dead worker is back after one; a model without any for so long refuses at once
LOST_SECONDS = 20  # ... and for so long is loaded anew

_Check = Callable[[Path, Callable[[ModelSpec], None]], ModelSpec]
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Model:
    """A loaded one."""

    url: str
    id: str  # the model server's name for it
    alive: float = field(default_factory=time.monotonic)  # when a worker was last
    asked: set[asyncio.Task[HttpResponse]] = field(default_factory=set)
    renewing: bool = False
    gone: str = ""  # why it answers no more


class Models:
    """All of one endpoint."""

    def __init__(
        self, chosen: Settings, limits: Limits, model_server: ModelServer, front: Front, check: _Check, sample: bytes
    ) -> None:
        """
        Args:
            check: how a folder is to be served; it calls back before it takes the memory to try.
            sample: a photo, PNG.
        """
        self._settings, self._limits = chosen, limits
        self._model_server, self._front = model_server, front
        self._check, self._sample = check, sample
        self._loaded: dict[str, _Model] = {}
        self._loading: set[str] = set()
        self._ids = (f"model-{number}" for number in itertools.count(1))
        self._promised: dict[str, int] = {}  # id -> bytes that a load under way will take
        self._lock = threading.Lock()  # of the promises: models are checked in threads
        self._renewals: set[asyncio.Task[None]] = set()

    def urls(self) -> dict[str, str]:
        """Name -> url of each that is loaded."""
        return {name: model.url for name, model in self._loaded.items()}

    def url(self, name: str) -> str:
        """
        Raises:
            RefusedError: 404.
        """
        return self._find(name).url

    async def load(self, name: str, url: str) -> None:
        """
        Raises:
            RefusedError: 409 where it is loaded; 404 or 400 for a folder that is no model; 507 without memory for it.
        """
        if name in self._loaded or name in self._loading:
            raise RefusedError(HTTPStatus.CONFLICT, f"model {short(name)} is loaded already: unload it first")
        self._loading.add(name)
        try:
            self._loaded[name] = await self._load(name, url)
        finally:
            self._loading.discard(name)

    async def unload(self, name: str) -> None:
        """Let its requests in flight finish for as long as one may take, then take the model away.

        Raises:
            RefusedError: 404.
        """
        model = self._find(name)
        del self._loaded[name]
        if model.asked:
            await asyncio.wait(model.asked, timeout=self._settings.response_seconds)
        await self._end(model, f"model {short(name)} was unloaded: load it again")
        _log.info("model %s unloaded", short(name))

    async def ask(self, name: str, ask: Callable[[str], Coroutine[Any, Any, HttpResponse]]) -> HttpResponse:
        """What `ask` gives for the model server's name of the model.

        Raises:
            RefusedError: 404, or 503 where it lost its workers or is unloaded before it could answer.
        """
        model = self._find(name)
        if time.monotonic() - model.alive > _LATE_SECONDS:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, _lost(name))
        task = asyncio.create_task(ask(model.id))
        model.asked.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if model.gone:
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, model.gone) from None
            raise
        finally:
            task.cancel()
            model.asked.discard(task)

    def tend(self) -> int:
        """Kill hanging workers, load models anew that have long lost theirs; how many workers live."""
        now, living = time.monotonic(), 0
        for name, model in self._loaded.items():
            able = self._model_server.end_hanging(self._model_server.workers(model.id))
            living += len(able)
            if able:
                model.alive = now
            elif now - model.alive > LOST_SECONDS and not model.renewing:
                model.renewing = True
                task = asyncio.create_task(self._renew(name, model))
                self._renewals.add(task)
                task.add_done_callback(self._renewals.discard)
        return living

    def _find(self, name: str) -> _Model:
        if name not in self._loaded:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"model {short(name)} is not loaded: POST it to /models first")
        return self._loaded[name]

    async def _load(self, name: str, url: str) -> _Model:
        """Check a folder, give it workers, ask them once."""
        began, model = time.monotonic(), _Model(url, next(self._ids))
        try:
            folder = _folder(url)
            program = user_code.find(folder, self._settings.program, self._settings.submit_directory)
            await user_code.install(program, self._settings.install_requirements)
            serving = await asyncio.to_thread(self._checked, folder, model.id)
            share = self._share(serving)
            await self._start(model, serving, share)
        except RefusedError:
            raise
        except (UserError, OSError) as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        finally:
            with self._lock:
                self._promised.pop(model.id, None)
        took = time.monotonic() - began
        what = f"{len(serving.class_names)} classes, engine {serving.engine}, {share.workers} worker(s)"
        _log.info("model %s from %s: %s, loaded in %.1f s", short(name), url, what, took)
        return model

    def _checked(self, folder: Path, id: str) -> ModelSpec:
        try:
            return self._check(folder, lambda serving: self._promise(id, serving))
        finally:  # what it took, or each check would leave 20 MB and more, up to some hundreds
            gc.collect()
            with suppress(AttributeError):
                ctypes.CDLL(None).malloc_trim(0)

    async def _start(self, model: _Model, serving: ModelSpec, share: Share) -> None:
        """A worker that cannot what the check could lacks memory, processes or disk; a user's code was not checked."""
        try:
            await self._model_server.load(serving, share, model.id)
            self._front.admit(model.id, share)
            headers = {"Content-Type": "image/png", SAMPLE: "true"}
            record = RequestLog("first", "/models")
            first = await self._front.predict(model.id, self._sample, headers, record)
            if not serving.proven_by(first.status, record.photos):
                raise UserError(f"the first prediction failed ({first.status} {first.body.decode()})")
        except BaseException as error:
            await self._model_server.unload(model.id)
            if isinstance(error, UserError) and not serving.program:
                raise RefusedError(HTTPStatus.INSUFFICIENT_STORAGE, str(error)) from error
            raise
        model.alive = time.monotonic()

    def _share(self, serving: ModelSpec) -> Share:
        own_code = bool(serving.program)
        return settings.share(self._settings, self._limits, serving.engine, _size(serving), 0, own_code=own_code)

    def _promise(self, id: str, serving: ModelSpec) -> None:
        """Keep memory for a load under way; 507 where there is not enough."""
        needed = settings.worker_bytes(_size(serving)) * self._share(serving).workers
        with self._lock:
            free = max(0, cgroup.free_memory_bytes() - sum(self._promised.values()))
            if needed > free:
                sentence = f"the model needs about {needed >> 20} MB, and {free >> 20} MB are free: unload another"
                raise RefusedError(HTTPStatus.INSUFFICIENT_STORAGE, sentence)
            self._promised[id] = needed

    async def _renew(self, name: str, old: _Model) -> None:
        """A new load in place of one that lost its workers; where that fails, it is unloaded."""
        _log.warning("model %s has had no worker for %d s and is loaded anew", short(name), LOST_SECONDS)
        try:
            await self._end(old, _lost(name))
            new = await self._load(name, old.url)
        except Exception as error:  # noqa: BLE001 # a model that stays in the list unrenewed would answer 503 for ever
            if not isinstance(error, RefusedError):
                _log.exception("model %s could not be loaded anew", short(name))
            if self._loaded.get(name) is old:
                del self._loaded[name]
            _log.warning("model %s is unloaded: %s", short(name), error)
            return
        if self._loaded.get(name) is old:
            self._loaded[name] = new
        else:  # unloaded meanwhile, or loaded once more
            await self._model_server.unload(new.id)

    async def _end(self, model: _Model, why: str) -> None:
        model.gone = why
        self._front.dismiss(model.id)
        for task in model.asked:
            task.cancel()
        await self._model_server.unload(model.id)


def short(name: str) -> str:
    """A name as a sentence can hold it."""
    return ascii(name[:80])


def _lost(name: str) -> str:
    return f"model {short(name)} has lost its workers and is loaded anew: try again"


def _folder(url: str) -> Path:
    try:
        if Path(url).is_dir():
            return Path(url)
    except (OSError, ValueError):  # no path at all
        pass
    raise RefusedError(HTTPStatus.NOT_FOUND, f"{url[:200]!r} is no folder: give the one that holds the unpacked model")


def _size(serving: ModelSpec) -> int:
    return engines.size(serving.engine, Path(serving.folder))
