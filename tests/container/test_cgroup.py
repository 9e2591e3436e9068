"""CPUs and memory from planted cgroup files."""

import os

import pytest

from kennel import cgroup

HOST = len(os.sched_getaffinity(0))


def plant(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, HOST),
        ({"cpu.max": "max 100000"}, HOST),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "99900000 100000"}, HOST),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, HOST),
    ],
)
def test_cpus(tmp_path, files, cpus):
    assert cgroup.cpus(plant(tmp_path, files)) == cpus


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_memory(tmp_path, name):
    assert cgroup.memory_bytes(plant(tmp_path, {name: "1073741824"})) == 2**30
    assert cgroup.memory_bytes(plant(tmp_path, {name: "max"})) > 2**30
