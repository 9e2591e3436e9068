"""Which device the job runs on, and the one log line that says so."""

from dataclasses import dataclass
from pathlib import Path

import torch

from kennel import cgroup
from kennel.errors import UserError

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Device:
    """A torch device with the precision it should train in; `description` is the job's first log line."""

    torch: torch.device
    bf16: bool
    threads: int  # that this process may keep busy
    description: str


def choose(
    compat: str, local: int = 0, processes: int = 1, visible: str | None = None, devices: Path = Path("/dev")
) -> Device:
    """This process's GPU when there is one, else its share of the threads that the cgroup allows.

    Args:
        compat: the entry point's CUDA compatibility choice in words; empty outside the image.
        local: number of this process on its host, of so many `processes`.
        visible: CUDA_VISIBLE_DEVICES, where it is set; empty, it asks for the CPU.
        devices: where the driver's device files are.

    Raises:
        UserError: a GPU is there but CUDA cannot start on its driver; training on the CPU instead would cost hours.
    """
    words = f"torch {torch.__version__}; CUDA compatibility: {compat or 'not decided (run outside the image)'}"
    threads = max(1, cgroup.cpus() // processes)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(local)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        gpu = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, driver {_driver()}"
        torch.backends.cudnn.benchmark = True  # crops have one size: the fastest kernels are found once
        return Device(
            torch.device("cuda", local), bf16, threads, f"device: {gpu}, {'bf16' if bf16 else 'fp32'}, {words}"
        )
    if visible != "" and any(devices.glob("nvidia[0-9]*")):  # of several, docker's --gpus device=1 gives one
        raise UserError(
            f"the host has an NVIDIA GPU (driver {_driver()}) but CUDA {torch.version.cuda} cannot start on it "
            f"({words}): take an instance type with a newer driver"
        )
    torch.set_num_threads(threads)
    return Device(torch.device("cpu"), False, threads, f"device: CPU, {threads} threads, no NVIDIA GPU, {words}")


def _driver() -> str:
    """The kernel driver's version, such as 550.54.15."""
    try:
        words = _DRIVER.read_text().split("\n", 1)[0].split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")
