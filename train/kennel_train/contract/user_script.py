"""A user's own training script (script mode), run by SageMaker's toolkit as in AWS's PyTorch image.

The toolkit installs requirements.txt, sets the SM_* variables, waits for the other hosts and writes the command, with
torchrun where asked for. Only the process is ours: the toolkit's runner drops a traceback's frames, cuts lines where
its buffer ends, and keeps SIGTERM to itself.
"""

import errno
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from sagemaker_training import entry_point, environment, errors, process, runner

from kennel import config, process_tree
from kennel.errors import UserError
from kennel.layout import Layout
from kennel_train.contract import failure
from kennel_train.contract.failure import ScriptError

log = logging.getLogger("kennel")

KEPT = 64 * 1024  # bytes of stderr for the failure file: the tracebacks of eight ranks
POLL = 0.1  # seconds between looks at the script and at the stop: SIGTERM leaves 120
DRAIN = 2.0  # seconds for what is left in stderr's pipe: a process that the script left behind may hold it open
_PORT = "7777"  # of rank 0's host: what AWS's image uses
_ABSENT = {
    "sagemaker_mpi_enabled": "mpi",
    "sagemaker_distributed_dataparallel_enabled": "smdistributed",
    "sagemaker_pytorch_ddp_enabled": "pytorchddp",
}
_RANK = re.compile(r"failed \(exitcode: (-?\d+)\)")  # what torchrun logs of a rank


def run(program: str, layout: Layout, stop: Callable[[], bool]) -> None:
    """Run the entry point in `layout.code` to its end; its hyperparameters are its own and are not checked.

    Raises:
        UserError: the entry point or its requirements cannot be used.
        ScriptError: it ended with another exit code than 0.
    """
    env = environment.Environment()
    own = _rendezvous(env) | _smdebug(layout) | {"PYTHONUNBUFFERED": "1"}
    args, variables = env.to_cmd_args(), env.to_env_vars() | own
    kind = _kind(env.additional_framework_parameters)
    for folder in (env.model_dir, env.output_data_dir):  # SageMaker makes them, docker run with mounts does not
        Path(folder).mkdir(parents=True, exist_ok=True)
    log.info("entry point %s is a script: it trains by itself and saves its model in %s", program, layout.model)
    try:
        watched = _Watched(program, runner.get(kind, program, args, variables), layout.code, stop)
        entry_point.run(str(layout.code), program, args, variables, capture_error=True, runner_type=watched)
    except (errors.InstallRequirementsError, errors.InstallModuleError) as error:
        what = "requirements.txt" if (layout.code / "requirements.txt").exists() else "setup.py"
        raise ScriptError(f"pip could not install {what} of source_dir: the log says why", str(error)) from None
    except errors.ClientError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        size = max(len(value.encode()) for value in [*variables.values(), *args])
        raise UserError(
            f"the hyperparameters are too long for {program}: Linux gives a process at most 131,071 bytes in one "
            f"variable or argument, and SM_TRAINING_ENV or one of them has {size:,}: put long values into a file in "
            "source_dir or in a channel"
        ) from None
    if not any(layout.model.iterdir()):
        log.warning("warning: %s saved nothing in %s: there is no model to deploy", program, layout.model)


def _rendezvous(env: Any) -> dict[str, str]:
    """What AWS's image adds for torch.distributed; a single host waits for none."""
    found = {"MASTER_ADDR": env.master_hostname, "MASTER_PORT": _PORT}
    if len(env.hosts) == 1:
        found["SM_STUDIO_LOCAL_MODE"] = "true"  # else a name that no DNS knows is waited for 15 minutes, in silence
    else:
        found["NCCL_SOCKET_IFNAME"] = env.network_interface_name
    return found


def _smdebug(layout: Layout) -> dict[str, str]:
    """What `import smdebug` in a script needs, and more where the job configures SageMaker Debugger's hook.

    The protobuf of today refuses smdebug's messages in its C implementation (`debug.smdebug.protobuf`).
    """
    found = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"} if _imports_smdebug(layout.code) else {}
    hook, profiler = (layout.config / f"{name}.json" for name in ("debughookconfig", "profilerconfig"))
    if config.read(hook) is None:
        return found
    found |= {"SMDEBUG_CONFIG_FILE_PATH": str(hook), "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    found["USE_SMDEBUG"] = "1"  # the image says 0, for jobs without one
    return found | ({"SMPROFILER_CONFIG_PATH": str(profiler)} if config.read(profiler) is not None else {})


def _imports_smdebug(code: Path) -> bool:
    """Whether any of a script's files names smdebug: others need not pay for a slower protobuf."""
    return any(b"smdebug" in path.read_bytes() for path in sorted(code.rglob("*.py")) if path.is_file())


def _kind(asked: Mapping[str, Any]) -> runner.RunnerType:
    for key, name in _ABSENT.items():
        if asked.get(key):
            raise UserError(
                f"distribution {name!r} needs MPI, which this image lacks: "
                'use distribution={"torch_distributed": {"enabled": True}}'
            )
    torchrun = asked.get("sagemaker_torch_distributed_enabled")
    return runner.TorchDistributedRunnerType if torchrun else runner.ProcessRunnerType


class _Watched(process.ProcessRunner):  # type: ignore[misc]
    """The command of one of the toolkit's runners in a process that can be watched and stopped."""

    def __init__(self, program: str, made: process.ProcessRunner, code: Path, stop: Callable[[], bool]) -> None:
        self._program, self._made, self._code, self._stop = program, made, code, stop

    def run(self, wait: bool = True, capture_error: bool = True) -> None:
        command = self._made._create_command()
        if command[0] == "torchrun":  # on PATH there may be none, or another Python's
            command[:1] = [sys.executable, "-m", "torch.distributed.run"]
        if self._stop():
            raise UserError(f"the job was stopped before {self._program} was started: start it again")
        log.info("script: %s", shlex.join(command))
        exit_code, stderr, stopped = _watch(command, self._code, self._stop)
        if exit_code:
            raise _error(self._program, exit_code, stderr, self._code, stopped)


def _watch(command: list[str], code: Path, stop: Callable[[], bool]) -> tuple[int, str, bool]:
    """(exit code, the last of stderr, whether SIGTERM was sent to it); its stdout is ours, as it comes."""
    script = subprocess.Popen(command, cwd=code, stderr=subprocess.PIPE, bufsize=0)
    assert script.stderr is not None
    kept = bytearray()
    reader = threading.Thread(target=_copy, args=(script.stderr, kept), daemon=True)
    reader.start()
    signalled = False
    try:
        while script.poll() is None:
            if stop() and not signalled:
                signalled = True
                _terminate(script.pid)
            time.sleep(POLL)
    finally:
        if script.returncode is None:  # we are interrupted: leave no process behind
            script.kill()
    reader.join(DRAIN)
    return script.returncode, bytes(kept).decode(errors="replace"), signalled


def _copy(source: IO[bytes], kept: bytearray) -> None:
    """Pass stderr on at once and keep the last of it."""
    while chunk := source.read(KEPT):
        kept += chunk
        del kept[:-KEPT]
        while chunk:
            chunk = chunk[os.write(2, chunk) :]  # no buffered writer: its lock may outlive us at exit


def _terminate(pid: int) -> None:
    for receiver in process_tree.send(pid, signal.SIGTERM):
        log.info("SIGTERM goes on to process %d", receiver)


def _error(program: str, exit_code: int, stderr: str, code: Path, stopped: bool) -> ScriptError:
    """Why a script failed, from its exit code and from what it printed last."""
    if rank := _RANK.search(stderr):  # torchrun itself ends with 1 whatever became of its first rank to fail
        exit_code = int(rank[1])
    if stopped and exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM):
        fix = "catch the signal, save the model to SM_MODEL_DIR and end with exit code 0"
        return ScriptError(f"{program} was stopped by SIGTERM, which it did not handle: {fix}", stderr)
    after = " after SIGTERM" if stopped else ""
    # An uncaught exception ends Python with 1, or another thread aborts first when a rank's peers are gone.
    found = failure.printed(stderr, code) if exit_code in (1, -signal.SIGABRT) else []
    if found:
        # Of several ranks the first to fail makes the others fail; of one process the last was not caught.
        first = found[0] if rank else found[-1]
        return ScriptError(f"{program} failed{after}: {first.raised} ({first.where})", first.text)
    killer = -exit_code if exit_code < 0 else exit_code - 128  # as Python says it, as a shell does
    if killer in set(signal.Signals):
        hint = ", most likely out of memory: lower its batch size or take a larger instance" if killer == 9 else ""
        return ScriptError(f"{program} was killed by {signal.Signals(killer).name}{after}{hint}", stderr)
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    said = f"its last line on stderr: {last}" if last else "it wrote nothing on stderr, its log says where it was"
    return ScriptError(f"{program} failed{after}: it ended with exit code {exit_code}; {said}", stderr)
