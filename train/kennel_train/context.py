"""What the parts of one training job share, made once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kennel.hyperparameters import Hyperparameters
from kennel.layout import Layout
from kennel_train.contract.config import JobConfig
from kennel_train.contract.stop import Never, Stop
from kennel_train.distributed.cluster import Cluster
from kennel_train.distributed.device import Device
from kennel_train.measure.timing import Timing
from kennel_train.tracking.tracker import Destination


@dataclass(frozen=True)
class JobEnvironment:
    """What platform and image say of one job; read by `kennel_train.job` alone."""

    config: JobConfig
    layout: Layout
    root: Path  # of the channels' folders: /opt/ml/input/data, or where a stream was unpacked
    name: str  # for the report
    weights: Path | None  # a folder of pretrained weights that the image carries
    cuda_compat: str  # the entry point's CUDA compatibility choice in words, for the log
    visible: str | None  # CUDA_VISIBLE_DEVICES, or None for all GPUs
    cache: Path | None  # a folder that outlives the job, of a warm pool
    tracked: Destination | None  # in MLflow
    give_up: Callable[[str], None]  # ends this process for a reason: a training that stands still cannot be asked to


@dataclass(frozen=True)
class Context:
    """Settings, device, processes, SIGTERM, clock and folders of one job, or of one trial of its search."""

    hp: Hyperparameters
    device: Device
    cluster: Cluster = field(default_factory=Cluster)
    stop: Stop = field(default_factory=Never)
    timing: Timing = field(default_factory=Timing)
    layout: Layout = field(default_factory=Layout)
    root: Path = Path()  # of the channels' folders: /opt/ml/input/data, or where a stream was unpacked
    cache: Path | None = None  # as in JobEnvironment
