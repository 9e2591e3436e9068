"""The image's real executables, `train` and `serve`, where this checkout has them; and how they are run and ended here.

They are the image's in all but the file system: /opt/ml is a scratch folder.
"""

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import psutil

from kennel_launch import settings
from kennel_launch.machine import processes

from ..client import REPOSITORY, executables
from ..http.account import Account

HOST = "localhost"  # which resolves without a container


def executable(name: str) -> Path:
    """Where it lies, whether it is there or not."""
    return executables() / name


def run(account: Account, name: str, base: Path, grace: float, env: dict[str, str]) -> processes.Command:
    """`train` or `serve` on one /opt/ml, from this checkout's sources."""
    short = sha256(base.name.encode()).hexdigest()[:12]  # of sockets Linux takes paths of 107 bytes; names have 63
    temporary = base.with_name(short)
    temporary.mkdir(parents=True, exist_ok=True)
    sources = [str(REPOSITORY / folder) for folder in ("serve", "container", "train", "scripts", "docker")]
    own = {"SAGEMAKER_BASE_DIR": str(base.resolve()), "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sources)}
    return processes.Command([str(executable(name))], settings.child(**account.child_env, **own, **env), grace=grace)


def kill(base: Path) -> None:
    """Ends at once whatever runs on one /opt/ml, in whatever process group: the model server has one of its own."""
    own = str(base.resolve())
    while found := [process for process in psutil.process_iter() if _base(process) == own]:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=5)


def _base(process: psutil.Process) -> str:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return str(process.environ().get("SAGEMAKER_BASE_DIR", ""))
    except psutil.Error:
        return ""
