"""One process per GPU on every host, started and watched by torchrun's own elastic launcher.

The platform says who the hosts are in resourceconfig.json. What a process does is `kennel_train.job`'s.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from kennel import config
from kennel.errors import UserError
from kennel.layout import Layout
from kennel_train.contract.failure import ScriptError
from kennel_train.distributed.host_monitor import MEETING, Hosts

_PORT = "29500"  # torchrun's own default
_LOST = (dist.DistError, ConnectionError)


@dataclass(frozen=True)
class Machines:
    """The hosts of a job, this one among them, and how many processes each runs."""

    hosts: tuple[str, ...]
    here: str
    each: int
    interface: str = ""  # the network's, where this machine has one of that name

    @property
    def processes(self) -> int:
        return len(self.hosts) * self.each

    def meet(self) -> Hosts:
        """The hosts as a context in which each knows of the others; MASTER_PORT names the first host's port."""
        alone = len(self.hosts) == 1
        port = 0 if alone else int(os.environ.get("MASTER_PORT", _PORT))
        return Hosts(self.hosts, self.hosts.index(self.here), port, lambda: _send(signal.SIGKILL))


def machines(layout: Layout) -> Machines:
    """The hosts by resourceconfig.json, one alone where it is silent; a process per GPU, or one.

    KENNEL_PROCESSES_PER_HOST, for tests and experiments, sets their number on a host without GPUs.

    Raises:
        UserError: the file names no such host as this, or instance groups of several types.
    """
    path = layout.config / "resourceconfig.json"
    row = config.read(path) or {}
    hosts = tuple(row.get("hosts") or [row.get("current_host", "localhost")])
    here = row.get("current_host", hosts[0])
    if here not in hosts:
        raise UserError(f"{path}: current_host {here!r} is not among hosts ({', '.join(hosts)}): name it there")
    # https://docs.aws.amazon.com/sagemaker/latest/dg/train-heterogeneous-cluster.html
    kinds = sorted({str(group.get("instance_type")) for group in row.get("instance_groups") or ()})
    if len(kinds) > 1:
        raise UserError(
            f"the instance groups of this job have different types ({', '.join(kinds)}), and its processes share each "
            "batch evenly: give all groups one type"
        )
    each = torch.cuda.device_count() or int(os.environ.get("KENNEL_PROCESSES_PER_HOST", "1"))
    interface = row.get("network_interface_name") or ""
    known = {name for _, name in socket.if_nameindex()}
    return Machines(hosts, here, each, interface if interface in known else "")


def launch(
    machines: Machines, hosts: Hosts, module: str, variables: Mapping[str, str], stop: Callable[[], bool]
) -> None:
    """Run `python -m module` as every process of this host, to the end of them all.

    Args:
        variables: of the environment, for the processes.
        stop: whether SIGTERM came; it is passed on to the processes, which end by themselves, with a model.

    Raises:
        UserError, ScriptError: a process of any host failed; the text is its own reason.
    """
    logs = tempfile.TemporaryDirectory(prefix="kennel-ranks-")  # the launcher's own would stay behind
    config = LaunchConfig(
        logs_specs=DefaultLogsSpecs(log_dir=logs.name),
        min_nodes=len(machines.hosts),
        max_nodes=len(machines.hosts),
        nproc_per_node=machines.each,
        run_id="kennel",
        rdzv_backend="static",
        rdzv_endpoint=f"{hosts.address}:{hosts.port}",
        rdzv_configs={"rank": hosts.at, "timeout": int(MEETING.total_seconds())},
        max_restarts=0,
        signals_to_handle="SIGINT",  # SIGTERM is ours
    )
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if machines.interface else ()
    os.environ.update(dict.fromkeys(names, machines.interface) | dict(variables))
    try:
        with logs, _passing_on(stop):
            # -P: a file of the user's in the working folder is never imported here.
            elastic_launch(config, sys.executable)("-P", "-m", module)
    except ChildFailedError as error:
        raise _error(error.failures, hosts) from None
    if hosts.reason:  # our ranks were done, and another host failed in what was left to do
        raise _signalled(hosts.reason)


def leave_reason(text: str, error: BaseException) -> None:
    """Tell the launcher why this process fails, and whether it only lost a connection to another that did."""
    gloo = isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        reply = {"message": text, "timestamp": "0", "secondary": gloo or isinstance(error, _LOST)}
        Path(path).write_text(json.dumps(reply))


@contextlib.contextmanager
def _passing_on(stop: Callable[[], bool]) -> Iterator[None]:
    """Pass SIGTERM on to our processes, to those that are yet to start too."""
    ended = threading.Event()

    def watch() -> None:
        signalled: set[int] = set()
        while not ended.wait(0.1):
            if stop():
                signalled |= _send(signal.SIGTERM, signalled)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    # Processes inherit this thread's mask: one that is not yet ready for the signal finds it waiting, and lives.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ended.set()
        thread.join()


def _send(number: signal.Signals, not_to: set[int] | None = None) -> set[int]:
    """Send a signal to our processes; their ids."""
    receivers = [child for child in psutil.Process().children() if child.pid not in (not_to or ())]
    for receiver in receivers:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            receiver.send_signal(number)
    return {receiver.pid for receiver in receivers}


def _error(failures: dict[int, ProcessFailure], hosts: Hosts) -> Exception:
    """The reason of the process that failed first, on whichever host, not of one that lost its neighbour by it."""
    rank, first = min(failures.items(), key=lambda item: _secondary(item[1]))
    if (hosts.reason or _secondary(first)) and (reason := hosts.cause()):
        return _signalled(reason)
    if first.exitcode == -signal.SIGKILL:
        return UserError(
            f"process {rank} was killed by SIGKILL, most likely out of memory: lower batch_size, or take an instance "
            f"with more memory"
        )
    if first.exitcode < 0:
        return UserError(f"process {rank} was killed by {first.signal_name()}: its last log lines say where")
    return _signalled(first.message)


def _secondary(failed: ProcessFailure) -> bool:
    """Whether it only lost a connection; NCCL's watchdog then aborts its process without a word."""
    return bool(failed.error_file_data.get("secondary")) or failed.exitcode == -signal.SIGABRT


def _signalled(text: str) -> Exception:
    cause, _, traceback = text.partition("\n")
    return ScriptError(cause, traceback.strip()) if traceback.strip() else UserError(cause)
