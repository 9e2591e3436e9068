"""The multi-model-server (MMS) as a child: its private folder, its start, the models in it, its health and its end.

Everything that had to be learned about MMS is here and in handler.py; it is reached by Unix sockets in that folder,
which cost half of what loopback does for a photo, and take no port.
"""

import asyncio
import itertools
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from kennel.errors import UserError
from kennel_serve.http.client import Backend
from kennel_serve.inference.model_spec import ModelSpec
from kennel_serve.model_server import configuration, java
from kennel_serve.model_server.configuration import Limits, Share
from kennel_serve.worker import handler, heartbeat
from kennel_serve.worker.heartbeat import Worker

MODEL = "model"
_LISTEN_SECONDS = 0.5
_ANSWER_SECONDS = 2
_SAID = "java.txt"
_GUARD = 'read -r _; kill -9 "-$1"; sleep 0.2; rm -rf -- "$2"'
_log = logging.getLogger(__name__)


class ModelServer:
    """One running MMS; every method but `stop` may raise UserError with the reason it failed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._guardian: asyncio.subprocess.Process | None = None
        self._folder = configuration.private_folder()
        self.socket = str(self._folder / configuration.INFERENCE)  # where /predictions/<model> is answered
        self._management = Backend(str(self._folder / configuration.MANAGEMENT))
        self._answered = 0.0

    async def start(self, environ: Mapping[str, str]) -> None:
        """Start MMS and wait until its management API answers."""
        folder, java_home = self._folder, java.home(environ)
        configuration.write(folder, self._limits)
        said = (folder / _SAID).open("wb")
        self._process = await asyncio.create_subprocess_exec(
            *java.command(folder, self._limits, java_home),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,  # why it cannot start; its log is on stderr
            env=configuration.child_environment(environ, folder, Path(sys.executable).parent),
            cwd=folder,
            start_new_session=True,  # a group of its own: a worker that outlives Java still belongs to it
        )
        said.close()
        await self._guard(self._process.pid)
        try:
            async with asyncio.timeout(self._limits.startup_seconds):
                while not await self._answers("/models"):
                    if self._process.returncode is not None:
                        said_last = " ".join((folder / _SAID).read_text(errors="replace").split())[-500:]
                        reason = said_last or "the lines above say why"
                        raise UserError(f"the model server ended before it answered: {reason}")
                    await asyncio.sleep(0.01)
            self._answered = time.monotonic()
        except TimeoutError as error:
            seconds = self._limits.startup_seconds
            raise UserError(
                f"the model server did not start in {seconds} s: raise SAGEMAKER_STARTUP_TIMEOUT"
            ) from error

    async def _guard(self, group: int) -> None:
        """Have the group and the folder removed where we are killed: the shell's input ends with our process."""
        self._guardian = await asyncio.create_subprocess_exec(
            *["/bin/sh", "-c", _GUARD, "kennel-guard", str(group), str(self._folder)],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    def heard(self) -> None:
        """It has just answered somebody else."""
        self._answered = time.monotonic()

    async def load(self, serving: ModelSpec, share: Share, name: str = MODEL) -> None:
        """Register a model and wait for its workers.

        The model server gets a private folder, not the model's: it puts that folder on the workers' PYTHONPATH,
        runs them in it, and takes a manifest.json there for a manifest of its own.
        """
        folder = self._folder / name
        (folder / handler.PULSES).mkdir(parents=True)
        serving.save(folder)
        request = {
            "url": name,
            "model_name": name,
            "handler": handler.NAME,
            "batch_size": share.batch_size,
            "max_batch_delay": share.batch_delay_ms,
            "initial_workers": share.workers,
            "synchronous": True,
            # Seconds in JSON, minutes in a query string. It holds for loading too; for requests `end_hanging` does.
            "response_timeout": self._limits.startup_seconds,
        }
        as_json, seconds = {"Content-Type": "application/json"}, self._limits.startup_seconds
        try:
            answer = await self._management.ask("POST", "/models", seconds, as_json, json.dumps(request).encode())
            if answer.status == 200:
                return
            cause = f"status {answer.status}"
        except OSError as error:
            cause = type(error).__name__
        reason = folder / handler.REASON
        if reason.exists():
            raise UserError(reason.read_text())
        raise UserError(f"no worker could load the model ({cause}): the lines above say why")

    async def unload(self, name: str) -> None:
        """Take a model away: its workers, which MMS leaves running, their parent, their files.

        MMS never answers the requests in its queue: who waits for them must give them up.
        """
        assert self._process
        with suppress(OSError):
            await self._management.ask("DELETE", f"/models/{name}", self._limits.startup_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while left := [process for process in _group(self._process.pid) if _serves(process, name)]:
                    for process in left:
                        with suppress(psutil.Error):
                            process.kill()
                    await asyncio.sleep(0.02)
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def workers(self, name: str = MODEL) -> list[Worker]:
        """The living workers of a model."""
        return heartbeat.workers(self._folder / name / handler.PULSES)

    def end_hanging(self, workers: list[Worker]) -> list[Worker]:
        """Kill the workers that have hung for longer than a request may take; those that are left.

        MMS then tells their clients and starts others; its own timeout would leave them running.
        """
        left = []
        for worker in workers:
            if worker.hangs(self._limits.response_seconds):
                _log.warning("worker %d hangs and is killed", worker.pid)
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
            else:
                left.append(worker)
        return left

    async def listen(self) -> None:
        """Keep `silent` true; ends never."""
        while True:
            if await self._answers("/models"):
                self._answered = time.monotonic()
            await asyncio.sleep(_LISTEN_SECONDS)

    @property
    def silent(self) -> float:
        """Seconds since Java last answered."""
        return time.monotonic() - self._answered

    async def ended(self) -> None:
        """Wait for the model server to end by itself."""
        assert self._process
        await self._process.wait()

    async def end(self) -> None:
        """Ask Java to end in order, and wait for it."""
        assert self._process
        self._process.terminate()
        await self._process.wait()

    async def stop(self) -> None:
        """Kill the whole group, workers that lost their parent included, and remove the private folder."""
        self._management.close()
        if self._process:
            members = _group(self._process.pid)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            await asyncio.to_thread(psutil.wait_procs, members, timeout=5)
        if self._guardian:
            with suppress(ProcessLookupError):
                self._guardian.kill()
            await self._guardian.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _answers(self, path: str) -> bool:
        try:
            return (await self._management.ask("GET", path, _ANSWER_SECONDS)).status == 200
        except OSError:
            return False


def _serves(process: psutil.Process, name: str) -> bool:
    """Whether it is one of a model's workers, or their parent, and lives: the dead have no words."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return ("--model-name", name) in itertools.pairwise(words)


def _group(group: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getpgid(process.pid) == group:
                members.append(process)
    return members
