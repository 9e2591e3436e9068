"""The compatibility choice over planted driver and library files."""

from pathlib import Path

import pytest

from kennel_image.cuda_compat import choose

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu May  2 12:34:56 UTC 2024\nGCC version:  gcc 7.3.1\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (root@host)\nGCC version: 12.2.0\n"


def plant(root: Path, driver: str | None, library: str | None) -> Path:
    if driver is not None:
        version = root / "proc/driver/nvidia/version"
        version.parent.mkdir(parents=True)
        version.write_text(driver)
    if library is not None:
        compat = root / "usr/local/cuda/compat"
        compat.mkdir(parents=True)
        (compat / library).touch()
        (compat / "libcuda.so.1").symlink_to(library)
    return root


@pytest.mark.parametrize("form", [CLOSED, OPEN])
@pytest.mark.parametrize(
    ("driver", "library", "use"),
    [
        ("470.256.02", "570.86.10", True),
        ("535.183.01", "570.86.10", True),
        ("570.86.09", "570.86.10", True),
        ("570.86.10", "570.86.10", False),
        ("570.124.06", "570.86.10", False),  # as text it would be the older one
        ("580.65.06", "570.86.10", False),
        ("1000.1", "570.86.10", False),
    ],
)
def test_only_an_older_driver_takes_the_libraries(
    tmp_path: Path, form: str, driver: str, library: str, use: bool
) -> None:
    choice = choose(plant(tmp_path, form.format(driver), f"libcuda.so.{library}"))
    assert choice.use is use
    assert driver in choice.reason
    assert library in choice.reason


@pytest.mark.parametrize(
    ("driver", "library", "said"),
    [
        (None, "libcuda.so.570.86.10", "no NVIDIA driver"),
        ("nothing that we know\n", "libcuda.so.570.86.10", "no NVIDIA driver"),
        (CLOSED.format("470.256.02"), None, "the image has no compatibility libraries"),
        (CLOSED.format("470.256.02"), "libcuda.so.next", "the image has no compatibility libraries"),
        (None, None, "no NVIDIA driver"),
    ],
)
def test_off_where_either_is_absent(tmp_path: Path, driver: str | None, library: str | None, said: str) -> None:
    choice = choose(plant(tmp_path, driver, library))
    assert not choice.use
    assert said in choice.reason


def test_a_dangling_link_is_no_library(tmp_path: Path) -> None:
    root = plant(tmp_path, CLOSED.format("470.256.02"), "libcuda.so.570.86.10")
    (root / "usr/local/cuda/compat/libcuda.so.570.86.10").unlink()
    assert not choose(root).use
