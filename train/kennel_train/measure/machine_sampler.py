"""What the container does while a job runs: one row a second, taken by a thread. What a row means: the rules' matter.

CPU, memory and disk are those of the job's processes, not of the host, which psutil's own totals are inside a
container too. The network's is the container's. A GPU's is all of it, used by any process.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from kennel import cgroup
from kennel_train.measure import gpus
from kennel_train.measure.history import Machine

log = logging.getLogger("kennel")
LIMIT = 8192  # rows: over two hours at one a second; then every second one goes, and half as many are taken
_PATIENCE = 5.0  # seconds to wait for the thread at the end: a driver that lost its GPU may never answer
_MB = 1e6


@dataclass(frozen=True)
class Totals:
    """What was used up to a moment."""

    at: float  # seconds, monotonic clock
    cpu: float  # seconds of CPU
    resident: int  # bytes in memory now; pages that processes share are counted in each
    read: int  # bytes, from a disk: what came out of the page cache is not in it
    written: int
    received: int
    sent: int


class Sampler:
    """Appends a row to a `Machine` at every interval, from `start` to `close`."""

    def __init__(
        self,
        phase: Callable[[], str],
        interval: float = 1.0,
        *,
        on_sample: Callable[[], None] | None = None,
        root: int | None = None,
        visible: str | None = None,
        nvml: Any = None,
        limit: int = LIMIT,
    ) -> None:
        """Nothing runs before `start`.

        Args:
            phase: names what the job is at; called in the thread.
            interval: seconds.
            on_sample: called in the thread after each row; once it has raised, it is not called again.
            root: the process whose tree is the job, this one if None; where GPUs have a process each, their parent.
            visible: CUDA_VISIBLE_DEVICES, or None for all GPUs.
            nvml: what to ask about GPUs; the module pynvml if None.
        """
        self.on_sample = on_sample
        self._phase, self._visible, self._nvml, self._limit = phase, visible, nvml, limit
        self._root = psutil.Process(root)
        self._offset = time.time() - self._root.create_time() - time.monotonic()
        self._machine, self._lock = Machine(interval=interval), threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="utilisation", daemon=True)

    @property
    def machine(self) -> Machine:
        """All rows so far, as a copy that stays as it is."""
        with self._lock:
            made = Machine(interval=self._machine.interval)
            for name, column in self._machine.columns():
                setattr(made, name, column[:])
            made.gpu = [column[:] for column in self._machine.gpu]
            made.gpu_memory = [column[:] for column in self._machine.gpu_memory]
            return made

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread; one that hangs in the driver is left to itself. May be called again, or without a start."""
        self._ended.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        if self._nvml is None:
            import pynvml  # here: only a job that samples pays for it

            self._nvml = pynvml
        self._gpus = gpus.handles(self._nvml, self._visible)
        self._cpus = cgroup.cpus()
        before = totals(self._root)
        while not self._ended.wait(self._machine.interval):
            now = totals(self._root)
            if now and before:
                self._append(before, now)
            before = now or before
            self._notify()
        if self._gpus:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def _notify(self) -> None:
        try:
            if self.on_sample:
                self.on_sample()
        except Exception as error:  # noqa: BLE001 # a callback must not end the sampling
            log.warning("warning: what watches the machine failed and is left out from now on: %r", error)
            self.on_sample = None

    def _append(self, before: Totals, now: Totals) -> None:
        seconds = max(now.at - before.at, 1e-9)

        def rate(name: str) -> float:
            # A process that ended without being waited for takes its part out of the total.
            used: float = getattr(now, name) - getattr(before, name)
            return max(0.0, used) / seconds

        row = {name: rate(name) / _MB for name in ("read", "written", "received", "sent")}
        row |= {"at": now.at + self._offset, "memory": now.resident / _MB}
        row["cpu"] = min(100.0, 100 * rate("cpu") / self._cpus)
        busy = gpus.used(self._nvml, self._gpus)
        phase, machine = self._phase(), self._machine
        with self._lock:
            for name, column in machine.columns():
                column.append(phase if name == "phase" else row[name])
            if len(busy) < len(self._gpus):  # the driver fails: half a column would be taken for the whole job's
                self._gpus, machine.gpu, machine.gpu_memory = [], [], []
            machine.gpu = machine.gpu or [[] for _ in busy]
            machine.gpu_memory = machine.gpu_memory or [[] for _ in busy]
            for at, (percent, memory) in enumerate(busy[: len(self._gpus)]):
                machine.gpu[at].append(percent)
                machine.gpu_memory[at].append(memory)
            if len(machine.at) > self._limit:
                for column in [*(c for _, c in machine.columns()), *machine.gpu, *machine.gpu_memory]:
                    del column[1::2]
                machine.interval *= 2


def totals(root: psutil.Process) -> Totals | None:
    """What a process and all below it have used so far, those that ended and were waited for included.

    None where even the process itself cannot be read.
    """
    cpu, resident, read, written = 0.0, 0, 0, 0
    received, sent = _network()
    try:
        tree = [root, *root.children(recursive=True)]
    except (psutil.Error, OSError):
        return None
    for process in tree:
        try:
            with process.oneshot():
                times = process.cpu_times()
                size, disk = process.memory_info().rss, _disk(process)
        except (psutil.Error, OSError):  # it has ended meanwhile
            if process is root:
                return None
            continue
        cpu += times.user + times.system + times.children_user + times.children_system
        resident, read, written = resident + size, read + disk[0], written + disk[1]
    return Totals(time.monotonic(), cpu, resident, read, written, received, sent)


def _disk(process: psutil.Process) -> tuple[int, int]:
    """(bytes read, bytes written); zeros where the kernel does not say, or not to us."""
    try:
        counters = process.io_counters()
    except (psutil.Error, OSError, RuntimeError, ValueError):
        return 0, 0
    return counters.read_bytes, counters.write_bytes


def _network() -> tuple[int, int]:
    """(bytes received, bytes sent), but those that never left the container; zeros where the kernel does not say."""
    try:
        counters = psutil.net_io_counters(pernic=True, nowrap=False) or {}
    except OSError:
        return 0, 0
    outer = [counter for name, counter in counters.items() if name != "lo"]
    return sum(counter.bytes_recv for counter in outer), sum(counter.bytes_sent for counter in outer)
