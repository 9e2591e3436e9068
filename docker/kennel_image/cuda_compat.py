"""Whether CUDA's forward-compatibility libraries go on the library path: only under a driver older than they are.

Reads two version numbers; sets nothing. On a driver as new as they are, or newer, these libraries break CUDA.
"""

import re
from dataclasses import dataclass
from pathlib import Path

COMPAT = Path("usr/local/cuda/compat")
_DRIVER = Path("proc/driver/nvidia/version")
_NVRM = re.compile(r"^NVRM version:.*Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", re.MULTILINE)
_LIBRARY = re.compile(r"libcuda\.so\.(\d+(?:\.\d+)+)")


@dataclass(frozen=True)
class Choice:
    """`reason` completes "CUDA compatibility: ..." in the log."""

    use: bool
    reason: str


def choose(root: Path) -> Choice:
    """The choice for a file system at `root`; / outside tests."""
    driver, library = _driver_version(root), _library_version(root)
    if driver is None:
        return Choice(False, "off: this host has no NVIDIA driver")
    if library is None:
        return Choice(False, f"off: the image has no compatibility libraries (driver {driver})")
    if _numbers(driver) < _numbers(library):
        return Choice(True, f"on: driver {driver} is older than the image's libraries, {library}")
    return Choice(False, f"off: driver {driver} is no older than the image's libraries, {library}")


def _driver_version(root: Path) -> str | None:
    """The kernel module's version: the container shares the host's kernel, so this is the host's driver."""
    try:
        found = _NVRM.search((root / _DRIVER).read_text())
    except OSError:
        return None
    return found[1] if found else None


def _library_version(root: Path) -> str | None:
    """The version in the name of the file that compat/libcuda.so.1 points at."""
    try:
        found = _LIBRARY.fullmatch((root / COMPAT / "libcuda.so.1").resolve(strict=True).name)
    except OSError:
        return None
    return found[1] if found else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
