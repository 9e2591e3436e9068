"""`train` and `serve` on this machine, as SageMaker starts them: the image's by `docker run`, or this environment's."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kennel.errors import UserError
from kennel.layout import Layout
from kennel_launch import settings
from kennel_launch.machine import opt_ml, processes
from kennel_launch.machine.processes import Command

TRAINING_GRACE = 120.0  # seconds from SIGTERM to SIGKILL that SageMaker gives a training job
NOT_STARTED = 125  # docker run's own exit code, where there is no container


@dataclass(frozen=True)
class LocalTraining:
    """One training job on this machine."""

    channels: Mapping[str, Path]
    hyperparameters: Mapping[str, str]
    image: str = ""  # without one the job is this environment's
    gpus: str = ""  # docker's --gpus
    hosts: int = 1  # containers, each of them a host
    name: str = "kennel-local"
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """Of the hosts of one job; one host needs none."""
        return f"kennel-train-{os.getpid()}" if self.hosts > 1 else ""


def prepared(base: Path, training: LocalTraining, *, keep_checkpoints: bool = False) -> list[tuple[Layout, Command]]:
    """For each host a scratch /opt/ml, the first one's `base` itself, and the command that trains on it.

    Raises:
        UserError: as opt_ml.lay_out.
    """
    if not training.image:
        layout = opt_ml.lay_out(
            base, training.channels, training.hyperparameters, ["localhost"], keep_checkpoints=keep_checkpoints
        )
        opt_ml.link_channels(layout, training.channels)
        return [(layout, train_here(layout, training.name, training.environment))]
    hosts = [f"algo-{number}" for number in range(1, training.hosts + 1)]  # as SageMaker calls them
    made = []
    for at, host in enumerate(hosts):
        layout = opt_ml.lay_out(
            base / "hosts" / host if at else base,
            training.channels,
            training.hyperparameters,
            [host, *(other for other in hosts if other != host)],
            keep_checkpoints=keep_checkpoints,
        )
        made.append((layout, train_in_image(training, layout, host)))
    return made


def train_here(layout: Layout, name: str, environment: Mapping[str, str]) -> Command:
    """sagemaker-training's `train`, the executable that runs in the image too."""
    env = settings.child(
        SAGEMAKER_BASE_DIR=str(layout.base.resolve()),
        SAGEMAKER_TRAINING_MODULE="kennel_train.job:main",
        USE_SMDEBUG="0",  # its import alone takes two seconds
        TRAINING_JOB_NAME=name,
    )
    return Command([str(executable("train"))], {**env, **environment}, grace=TRAINING_GRACE)


def serve_here(layout: Layout, port: int, environment: Mapping[str, str] | None = None) -> Command:
    env = settings.child(SAGEMAKER_BASE_DIR=str(layout.base.resolve()), SAGEMAKER_BIND_TO_PORT=str(port))
    return Command([str(executable("serve"))], {**env, **(environment or {})})


def train_in_image(training: LocalTraining, layout: Layout, host: str) -> Command:
    """`docker run IMAGE train` with the scratch /opt/ml and each channel's folder, read-only, mounted."""
    mounts = ["-v", f"{layout.base.resolve()}:/opt/ml"]
    for channel, folder in training.channels.items():
        mounts += ["-v", f"{folder.resolve()}:/opt/ml/input/data/{channel}:ro"]
    network = ["--network", training.network, "--network-alias", host] if training.network else []
    # Docker's own 64 MB of shared memory is less than SageMaker's hosts give, and too little for loader processes.
    options = ["--hostname", host, "--shm-size", "1g", *network, *_gpus(training.gpus), *mounts]
    environment = {"TRAINING_JOB_NAME": training.name, **training.environment}
    return _docker(
        f"kennel-train-{os.getpid()}-{host}", options, environment, [training.image, "train"], TRAINING_GRACE
    )


def serve_in_image(
    image: str, model: Path, port: int, gpus: str = "", environment: Mapping[str, str] | None = None
) -> Command:
    """`docker run IMAGE serve` with the model folder read-only, published on loopback only."""
    options = ["-p", f"127.0.0.1:{port}:8080", "-v", f"{model.resolve()}:/opt/ml/model:ro", *_gpus(gpus)]
    return _docker(f"kennel-serve-{os.getpid()}", options, environment or {}, [image, "serve"], processes.GRACE)


def check_here(name: str, gpus: str = "") -> None:
    """That this environment's `train` or `serve` is there.

    Args:
        gpus: docker's --gpus, which has no meaning here.

    Raises:
        UserError: it is not, or it can't be used as asked.
    """
    if gpus:
        raise UserError(
            "--gpus is docker's, a job without it takes the GPUs that are there: add --image, or leave it out"
        )
    if not executable(name).is_file():
        raise UserError(
            f"no `{name}` lies beside {sys.executable}, so this is not the image's environment: "
            "name an image with --image, or run make train or make tune-local, which make that environment"
        )


def executable(name: str) -> Path:
    """Where one of this environment's executables lies, whether it is there or not."""
    return Path(sys.executable).parent / name


def failure(layouts: list[Layout], code: int, log: Path | None = None) -> str:
    """Why a training job failed: the first line of the first failure file, which holds the cause, or the log's end."""
    where = f"; see {log}" if log else ""
    for layout in layouts:
        reason = layout.failure.read_text(errors="replace").strip() if layout.failure.is_file() else ""
        if reason:
            return f"training failed: {reason.splitlines()[0]}{where}"
    ended = f" ({' / '.join(processes.last_lines(log, 2))})" if log else ""
    if code == NOT_STARTED:
        return f"docker could not start the container{ended or ', and says why above'}{where}"
    return f"training ended with exit code {code} and left no failure file{ended}{where}"


def _gpus(gpus: str) -> list[str]:
    return ["--gpus", gpus] if gpus else []


def _docker(name: str, options: list[str], environment: Mapping[str, str], command: list[str], grace: float) -> Command:
    """The values of the environment are handed on by the client's own, where no list of processes shows them."""
    passed = [word for key in environment for word in ("-e", key)]
    argv = [settings.docker(), "run", "--rm", "--name", name, *options, *passed, *command]
    return Command(argv, {**settings.child(), **environment}, name, grace)
