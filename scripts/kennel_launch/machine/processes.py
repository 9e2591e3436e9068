"""How a training job or an endpoint is started as SageMaker would: by this environment's executables or by docker.

Whatever was started is stopped, whole process groups and containers included.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kennel.errors import UserError
from kennel.layout import Layout
from kennel_launch import settings
from kennel_launch.machine import opt_ml, signals

HOST = "algo-1"  # what SageMaker calls the first host; a container resolves it as its own name
GRACE = 30.0  # seconds from SIGTERM to SIGKILL, as on an endpoint
TRAINING_GRACE = 120.0  # and as for a training job


@dataclass(frozen=True)
class Command:
    """A command and what must be removed after it."""

    argv: list[str]
    env: dict[str, str]
    container: str = ""
    grace: float = GRACE


def train_here(layout: Layout) -> Command:
    """sagemaker-training's `train`, the executable that runs in the image too."""
    env = settings.child(
        SAGEMAKER_BASE_DIR=str(layout.base.resolve()),
        SAGEMAKER_TRAINING_MODULE="kennel_train.job:main",
        USE_SMDEBUG="0",  # its import alone takes two seconds
        TRAINING_JOB_NAME="kennel-local",
    )
    return Command([str(executable("train"))], env, grace=TRAINING_GRACE)


def prepared(
    base: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str],
    image: str,
    gpus: str,
    *,
    keep_checkpoints: bool = False,
) -> tuple[Layout, Command]:
    """A scratch /opt/ml under `base`, and the job that runs on it: by `docker run` of the image, or here without one.

    Raises:
        UserError: as scratch.lay_out.
    """
    host = HOST if image else "localhost"
    layout = opt_ml.lay_out(base, channels, hyperparameters, host, keep_checkpoints=keep_checkpoints)
    if image:
        return layout, train_in_image(image, layout, channels, gpus)
    opt_ml.link_channels(layout, channels)
    return layout, train_here(layout)


def serve_here(layout: Layout, port: int) -> Command:
    env = settings.child(SAGEMAKER_BASE_DIR=str(layout.base.resolve()), SAGEMAKER_BIND_TO_PORT=str(port))
    return Command([str(executable("serve"))], env)


def train_in_image(image: str, layout: Layout, channels: Mapping[str, Path], gpus: str = "") -> Command:
    """`docker run IMAGE train` with the scratch /opt/ml and each channel's folder, read-only, mounted."""
    name = f"kennel-train-{os.getpid()}"
    mounts = ["-v", f"{layout.base.resolve()}:/opt/ml"]
    for channel, folder in channels.items():
        mounts += ["-v", f"{folder.resolve()}:/opt/ml/input/data/{channel}:ro"]
    # Docker's own 64 MB of shared memory is less than SageMaker's hosts give, and too little for loader processes.
    options = ["--hostname", HOST, "--shm-size", "1g", "-e", "TRAINING_JOB_NAME=kennel-local", *_gpus(gpus)]
    return _docker(name, [*options, *mounts, image, "train"], TRAINING_GRACE)


def serve_in_image(image: str, model: Path, port: int, gpus: str = "") -> Command:
    """`docker run IMAGE serve` with the model folder read-only, published on loopback only."""
    name = f"kennel-serve-{os.getpid()}"
    options = ["-p", f"127.0.0.1:{port}:8080", "-v", f"{model.resolve()}:/opt/ml/model:ro", *_gpus(gpus)]
    return _docker(name, [*options, image, "serve"], GRACE)


def check_here(target: str, gpus: str = "") -> None:
    """That a job can run without Docker.

    Args:
        target: of the Makefile, which makes the environment that is needed.
        gpus: docker's --gpus, which has no meaning here.

    Raises:
        UserError: it can't, or not as asked.
    """
    if gpus:
        raise UserError(
            "--gpus is docker's, a job without it takes the GPUs that are there: add --image, or leave it out"
        )
    if not executable("train").is_file():
        raise UserError(
            f"no `train` lies beside {sys.executable}, so this is not the image's environment: "
            f"name an image with --image, or run make {target}, which makes that environment"
        )


@contextmanager
def started(run: Command, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """The running process, its output in `log` or on this terminal; stopped at the end, however that comes.

    Raises:
        UserError: there is no such command.
    """
    with (log or Path(os.devnull)).open("wb") as file:
        try:
            with signals.held() as came:
                process = subprocess.Popen(
                    run.argv,
                    env=run.env,
                    stdin=subprocess.DEVNULL,
                    stdout=file if log else None,
                    stderr=subprocess.STDOUT if log else None,
                    start_new_session=True,  # Ctrl-C comes to us alone, and we pass it on once
                )
        except OSError as error:
            raise UserError(f"{run.argv[0]} cannot be started ({error.strerror})") from error
        try:
            for number in came:
                signal.raise_signal(number)
            yield process
        finally:
            with signals.deaf():
                _stop(process, run)


def executable(name: str) -> Path:
    """Where one of this environment's executables lies, whether it is there or not."""
    return Path(sys.executable).parent / name


def last_lines(log: Path, count: int) -> list[str]:
    """The end of a log, without empty lines."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 200 * max(count, 20)))
        lines = file.read().decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()][-count:]


def failure(layout: Layout, code: int, log: Path | None = None) -> str:
    """Why a training job failed: the first line of its failure file, which holds the cause, or the end of the log."""
    where = f"; see {log}" if log else ""
    reason = layout.failure.read_text(errors="replace").strip() if layout.failure.is_file() else ""
    if reason:
        return f"training failed: {reason.splitlines()[0]}{where}"
    ended = f" ({' / '.join(last_lines(log, 2))})" if log else ""
    return f"training ended with exit code {code} and left no failure file{ended}{where}"


def _gpus(gpus: str) -> list[str]:
    return ["--gpus", gpus] if gpus else []


def _docker(name: str, rest: list[str], grace: float) -> Command:
    return Command([settings.docker(), "run", "--rm", "--name", name, *rest], settings.child(), name, grace)


def _stop(process: subprocess.Popen[bytes], run: Command) -> None:
    docker = settings.docker()
    if run.container and process.poll() is None:
        subprocess.run([docker, "stop", "-t", str(int(run.grace)), run.container], capture_output=True, check=False)
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(run.grace)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever it left behind
    process.wait()
    if run.container:
        subprocess.run([docker, "rm", "-f", run.container], capture_output=True, check=False)
