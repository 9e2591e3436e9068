"""One process per GPU on every host, started and watched by torchrun's own elastic launcher.

The platform says who the hosts are in resourceconfig.json. What a process does is `kennel_train.job`'s.
"""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from kennel.errors import UserError
from kennel.layout import Layout
from kennel_train.failure import ScriptError

_PORT = "29500"  # torchrun's own default
_REASON = "kennel/reason"  # where a rank that fails leaves its reason for the others
_LOST = (dist.DistError, ConnectionError)


@dataclass(frozen=True)
class Machines:
    """The hosts of a job, this one among them, and how many processes each runs."""

    hosts: tuple[str, ...]
    here: str
    each: int

    @property
    def processes(self) -> int:
        return len(self.hosts) * self.each


def machines(layout: Layout) -> Machines:
    """The hosts by resourceconfig.json, one alone where it is silent; a process per GPU, or one.

    Raises:
        UserError: the file names no such host as this.
    """
    path = layout.config / "resourceconfig.json"
    row = json.loads(path.read_text() or "{}") if path.exists() else {}
    hosts = tuple(row.get("hosts") or [row.get("current_host", "localhost")])
    here = row.get("current_host", hosts[0])
    if here not in hosts:
        raise UserError(f"{path}: current_host {here!r} is not among hosts ({', '.join(hosts)}): name it there")
    return Machines(hosts, here, max(1, torch.cuda.device_count()))


def launch(machines: Machines, module: str) -> None:
    """Run `python -m module` as every process of this host, to the end of them all.

    Raises:
        ScriptError: a process of any host failed; the text is its own reason.
    """
    alone = len(machines.hosts) == 1
    port = os.environ.get("MASTER_PORT", _PORT)
    config = LaunchConfig(
        min_nodes=len(machines.hosts),
        max_nodes=len(machines.hosts),
        nproc_per_node=machines.each,
        run_id="kennel",
        rdzv_backend="static",
        rdzv_endpoint=f"{'127.0.0.1' if alone else machines.hosts[0]}:{port}",
        rdzv_configs={"rank": machines.hosts.index(machines.here)},
        max_restarts=0,
        signals_to_handle="SIGINT",  # SIGTERM is ours: the processes end by themselves, with a model
    )
    try:
        elastic_launch(config, sys.executable)("-m", module)
    except ChildFailedError as error:
        cause, _, traceback = _cause(error.failures).partition("\n")
        raise ScriptError(cause, traceback.strip()) from None


def terminate() -> None:
    """Pass SIGTERM on to the processes of this host."""
    for child in psutil.Process().children():
        child.terminate()


def leave_reason(text: str, error: BaseException) -> str:
    """Tell the launcher and the other ranks why this one fails; the reason to give, which may be another rank's."""
    secondary = isinstance(error, _LOST) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())
    if dist.is_initialized():
        store = dist.distributed_c10d._get_default_store()
        try:
            if secondary:
                text = store.get(_REASON).decode()
            else:
                store.set(_REASON, f"process {dist.get_rank()}: {text}"[:8000])
        except (dist.DistError, RuntimeError):
            pass  # the store's host is gone: what we have is all there is
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        Path(path).write_text(json.dumps({"message": text, "timestamp": "0", "secondary": secondary}))
    return text


def _cause(failures: dict[int, ProcessFailure]) -> str:
    """The reason of the process that failed first, not of one that lost its neighbour by it."""
    rank, first = min(failures.items(), key=lambda item: bool(item[1].error_file_data.get("secondary")))
    if first.exitcode == -signal.SIGKILL:
        return (
            f"process {rank} was killed by SIGKILL, most likely out of memory: lower batch_size, or take an instance "
            f"with more memory"
        )
    if first.exitcode < 0:
        return f"process {rank} was killed by {first.signal_name()}: its last log lines say where"
    return first.message
