"""How many CPUs and how much memory this container may use: the cgroup's word, not the host's.

psutil and os.cpu_count() report the host; the two files that say otherwise are read here.
"""

import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def cpus(root: Path = ROOT) -> int:
    """CPUs this process may keep busy, at least 1: its affinity, capped by the cgroup's quota (v2, then v1)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _quota(root)
    if quota > 0 and period > 0:
        available = min(available, max(1, quota // period))
    return max(1, available)


def memory_bytes(root: Path = ROOT) -> int:
    """Bytes this process may use: the machine's memory, capped by the cgroup's limit (v2, then v1)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        text = _read(path)
        if text.isdigit():
            total = min(total, int(text))
    return total


def free_memory_bytes(root: Path = ROOT) -> int:
    """Bytes that could still be taken: what the machine has free and the cgroup's limit leaves (v2, then v1).

    Cached files are not counted as taken, but those of a RAM disk are: they cannot be evicted.
    """
    text = _read(root / "memory.stat") or _read(root / "memory" / "memory.stat")
    used = {name: int(value) for name, value in (line.split() for line in text.splitlines())}
    names = ("anon", "shmem") if "anon" in used else ("total_rss", "total_shmem")
    left = memory_bytes(root) - sum(used.get(name, 0) for name in names)
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            left = min(left, 1024 * int(line.split()[1]))
    return max(0, left)


def _quota(root: Path) -> tuple[int, int]:
    """Microseconds of CPU per period; (0, 0) where there is no limit."""
    v2 = _read(root / "cpu.max").split()
    if len(v2) == 2 and v2[0].isdigit():
        return int(v2[0]), int(v2[1])
    quota, period = _read(root / "cpu" / "cpu.cfs_quota_us"), _read(root / "cpu" / "cpu.cfs_period_us")
    return (int(quota), int(period)) if quota.isdigit() and period.isdigit() else (0, 0)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
