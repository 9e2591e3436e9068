"""The multi-model-server (MMS) as a child: its private folder, its start, the model in it, its health and its end.

Everything that had to be learned about MMS is here and in handler.py; it is reached on loopback ports only.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp
import psutil

from kennel.errors import UserError
from kennel_serve import configuration, handler
from kennel_serve.configuration import Limits

MODEL = "model"
_WORKER_SCRIPT = "model_service_worker.py"


class ModelServer:
    """One running MMS with one model; every method but `stop` may raise UserError with the reason it failed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._folder = configuration.private_folder()
        self._inference, self._management = (f"http://127.0.0.1:{port}" for port in configuration.free_ports(2))
        self.url = f"{self._inference}/predictions/{MODEL}"  # where requests go
        self._session: aiohttp.ClientSession | None = None

    async def start(self, environ: Mapping[str, str]) -> None:
        """Start MMS and wait until its management API answers."""
        folder, command = self._folder, Path(sys.executable).parent / "multi-model-server"
        environment = configuration.child_environment(environ, folder, command.parent)
        (folder / MODEL).mkdir()
        configuration.write(folder, self._limits, self._inference, self._management, environment["JAVA_HOME"])
        files = ["--mms-config", configuration.CONFIGURATION, "--log-config", configuration.LOGGING]
        self._process = await asyncio.create_subprocess_exec(
            *[str(command), "--start", "--foreground", "--model-store", str(folder), *files],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,  # what the starter says; Java's log is on stderr
            env=environment,
            cwd=folder,
            start_new_session=True,  # a group of its own: a worker that outlives Java still belongs to it
        )
        self._session = aiohttp.ClientSession(self._management)
        try:
            async with asyncio.timeout(self._limits.startup_seconds):
                while not await self._answers("/models"):
                    if self._process.returncode is not None:
                        raise UserError("the model server ended before it answered: the lines above say why")
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            seconds = self._limits.startup_seconds
            raise UserError(
                f"the model server did not start in {seconds} s: raise SAGEMAKER_STARTUP_TIMEOUT"
            ) from error

    async def load(self, serving: handler.Serving) -> None:
        """Register the model and wait for its workers.

        The model server gets the private folder, not the model's: it puts that folder on the workers' PYTHONPATH,
        runs them in it, and takes a manifest.json there for a manifest of its own.
        """
        serving.save(self._folder / MODEL)
        request = {
            "url": MODEL,
            "model_name": MODEL,
            "handler": handler.NAME,
            "batch_size": 1,
            "initial_workers": self._limits.workers,
            "synchronous": True,
            "response_timeout": self._limits.response_seconds,  # seconds in JSON, minutes in a query string
        }
        assert self._session
        timeout = aiohttp.ClientTimeout(total=self._limits.startup_seconds)
        try:
            async with self._session.post("/models", json=request, timeout=timeout) as answer:
                if answer.status == 200:
                    return
                cause = f"status {answer.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            cause = type(error).__name__
        raise UserError(f"no worker could load the model ({cause}): the lines above say why")

    async def alive(self) -> bool:
        """Whether Java answers and at least one worker process exists.

        MMS itself calls a worker READY for as long as the thread that watches it runs.
        """
        if self._process is None or self._process.returncode is not None:
            return False
        return bool(self._workers()) and await self._answers(f"/models/{MODEL}")

    async def ended(self) -> None:
        """Wait for the model server to end by itself."""
        assert self._process
        await self._process.wait()

    async def stop(self) -> None:
        """Kill the whole group, workers that lost their parent included, and remove the private folder."""
        if self._session:
            await self._session.close()
        if self._process:
            members = _group(self._process.pid)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            await asyncio.to_thread(psutil.wait_procs, members, timeout=5)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _answers(self, path: str) -> bool:
        assert self._session
        try:
            async with self._session.get(path, timeout=aiohttp.ClientTimeout(total=2)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _workers(self) -> list[psutil.Process]:
        """Workers: forks of the script that Java started, so their parent runs the same script."""
        assert self._process
        try:
            family = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.Error:
            return []
        scripts = {process.pid for process in family if _is_script(process)}
        return [process for process in family if process.pid in scripts and process.ppid() in scripts]


def _group(group: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getpgid(process.pid) == group:
                members.append(process)
    return members


def _is_script(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        arguments = process.cmdline()  # empty for a zombie
        return len(arguments) > 1 and arguments[1].endswith(_WORKER_SCRIPT)
    return False
