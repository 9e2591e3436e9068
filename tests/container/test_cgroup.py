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


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "1000000", "memory.stat": "anon 200000\nfile 700000\nshmem 100000"},
        {"memory/memory.limit_in_bytes": "1000000", "memory/memory.stat": "cache 9\ntotal_rss 300000\nrss 1"},
        {"memory.max": "300000", "memory.stat": "anon 400000"},
        {"memory.max": "700000"},
    ],
    ids=["v2", "v1", "over", "unknown"],
)
def test_free_memory_is_what_the_limit_leaves(tmp_path, files):
    limit = next(int(text) for name, text in files.items() if not name.endswith("stat"))
    assert cgroup.free_memory_bytes(plant(tmp_path, files)) == (0 if limit == 300000 else 700000)


def test_without_a_limit_free_memory_is_the_machines(tmp_path):
    assert 2**20 < cgroup.free_memory_bytes(plant(tmp_path, {})) <= cgroup.memory_bytes(tmp_path)
