"""The sampler on this very process and real children of it; only the GPUs' driver is a stand-in, there being none."""

import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import ClassVar

import psutil
import pytest

from kennel_train.measure import gpus, machine_sampler
from kennel_train.measure.machine_sampler import Sampler

WORK = "import time; end = time.time() + 60\nwhile time.time() < end: pass"


class NVMLError(Exception):
    pass


@dataclass
class Memory:
    used: int
    total: int


@dataclass
class Rates:
    gpu: int
    memory: int = 0


@dataclass
class Driver:
    """Stands for the module pynvml: a host with three GPUs, of which number n is (10 n)% busy and n quarters full."""

    NVMLError: ClassVar = NVMLError
    here: bool = True
    count: int = 3
    answers: int = 10**9  # so many times, then never again
    calls: list[str] = field(default_factory=list)

    def nvmlInit(self):  # noqa: N802 # NVML's own names
        if not self.here:
            raise NVMLError("NVML Shared Library Not Found")

    def nvmlShutdown(self):  # noqa: N802
        self.calls.append("shutdown")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, at):  # noqa: N802
        return at

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return f"GPU-{'abc'[handle]}1-2-3"

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        self.answers -= 1
        if self.answers < 0:
            raise NVMLError("GPU is lost")
        return Rates(10 * handle)

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return Memory(handle, 4)


def sampled(rows, interval=0.02, **settings):
    """A machine with at least so many rows."""
    enough = threading.Event()
    sampler = Sampler(settings.pop("phase", lambda: "decode"), interval, **settings)
    inner = sampler.on_sample

    def on_sample():
        if inner:
            inner()
        if len(sampler.machine.at) >= rows:
            enough.set()

    sampler.on_sample = on_sample
    sampler.start()
    try:
        assert enough.wait(60)
    finally:
        sampler.close()
    assert not running()
    return sampler.machine


def running():
    """The sampling threads of this process."""
    return [thread for thread in threading.enumerate() if thread.name == "utilisation"]


def check_rows(machine):
    """Of equal length, in order, and what they may be."""
    lengths = {len(column) for _, column in machine.columns()} | {len(c) for c in machine.gpu + machine.gpu_memory}
    assert lengths == {len(machine.at)}
    assert machine.at == sorted(set(machine.at))
    assert all(0 <= value <= 100 for value in machine.cpu)
    assert all(value > 0 for value in machine.memory)
    assert all(value >= 0 for name in ("read", "written", "received", "sent") for value in getattr(machine, name))


def test_rows_of_this_process():
    names = iter(["decode", "decode", "probe"])
    machine = sampled(4, phase=lambda: next(names, "finetune"))
    check_rows(machine)
    assert machine.phase[:4] == ["decode", "decode", "probe", "finetune"]
    assert machine.during("decode").at == machine.at[:2]
    age = time.time() - psutil.Process().create_time()
    assert 0 < machine.at[0] < machine.at[-1] <= age + 1  # the kernel counts a process's age in hundredths
    assert machine.interval == 0.02


def test_a_childs_work_counts_and_the_machine_is_all_of_the_cores():
    quiet = machine_sampler.totals(psutil.Process())
    with subprocess.Popen([sys.executable, "-c", WORK]) as child:
        try:
            machine = sampled(3, 0.3)
            child_seconds = sum(psutil.Process(child.pid).cpu_times()[:2])
        finally:
            child.kill()
    after = machine_sampler.totals(psutil.Process())
    check_rows(machine)
    assert max(machine.cpu) > 2
    # Dead and waited for, it is still in the total, which so never falls.
    assert after.cpu - quiet.cpu >= 0.9 * child_seconds > 0


def test_a_childs_memory_counts():
    alone = machine_sampler.totals(psutil.Process()).resident
    hold = "import sys; held = bytearray(b'1') * 300_000_000; print(len(held), flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as child:
        assert child.stdout.readline() == b"300000000\n"
        both = machine_sampler.totals(psutil.Process()).resident
        child.stdin.close()
    assert both - alone > 250_000_000


def test_what_is_written_to_the_disk_counts(tmp_path):
    counters = getattr(psutil.Process(), "io_counters", None)
    if not counters:
        pytest.skip("the kernel does not count a process's bytes")
    before = machine_sampler.totals(psutil.Process())
    started = counters().write_bytes
    (tmp_path / "file").write_bytes(bytes(20_000_000))
    counted = counters().write_bytes - started
    after = machine_sampler.totals(psutil.Process())
    assert after.written - before.written >= counted


def test_children_that_die_in_between_leave_the_rows_whole():
    started = []

    def churn():
        started.append(subprocess.Popen([sys.executable, "-c", ""]))

    machine = sampled(12, 0.01, on_sample=churn)
    for child in started:
        child.wait()
    check_rows(machine)
    assert len(started) >= 12


def test_a_root_that_is_gone_gives_no_rows_and_no_error():
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
        asked = threading.Semaphore(0)
        sampler = Sampler(lambda: "x", 0.01, root=child.pid, on_sample=asked.release)
        child.stdin.close()
        child.wait()
        sampler.start()
        assert all(asked.acquire(timeout=60) for _ in range(3))
        sampler.close()
    assert sampler.machine.at == []


def test_a_long_job_is_thinned_and_then_sampled_half_as_often():
    kept = []
    sampler = Sampler(lambda: "x", 0.005, limit=9, on_sample=lambda: kept.append(sampler.machine), nvml=Driver())
    sampler.start()
    while len(kept) < 14 and running():
        time.sleep(0.01)
    sampler.close()
    for each in kept:
        check_rows(each)
    assert [len(each.at) for each in kept[:14]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 5, 6, 7, 8, 9]
    assert kept[9].at[:4] == kept[8].at[:8:2]
    assert kept[9].gpu[1] == [10.0] * 5
    assert (kept[8].interval, kept[9].interval) == (0.005, 0.01)


def test_what_was_handed_out_does_not_change():
    seen = []
    sampler = Sampler(lambda: "x", 0.01, on_sample=lambda: seen.append(sampler.machine))
    sampler.start()
    while len(seen) < 3 and running():
        time.sleep(0.01)
    sampler.close()
    assert [len(each.at) for each in seen[:3]] == [1, 2, 3]


def test_a_listener_that_raises_is_left_out_and_the_sampling_goes_on(caplog):
    def broken():
        raise ValueError("no such rule")

    sampler = Sampler(lambda: "x", 0.01, on_sample=broken)
    sampler.start()
    while len(sampler.machine.at) < 3 and running():
        time.sleep(0.01)
    sampler.close()
    assert caplog.text.count("no such rule") == 1


def test_it_may_be_closed_twice_or_unstarted_or_from_its_own_thread(caplog):
    Sampler(lambda: "x").close()
    sampler = Sampler(lambda: "x", 0.01)
    sampler.on_sample = sampler.close
    sampler.start()
    for thread in running():
        thread.join(60)
    assert not running()
    sampler.close()
    assert len(sampler.machine.at) == 1
    assert not caplog.text


def test_a_thread_that_hangs_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(machine_sampler, "_PATIENCE", 0.05)
    hanging, release = threading.Event(), threading.Event()

    def hang():
        hanging.set()
        release.wait(10)

    sampler = Sampler(lambda: "x", 0.01, on_sample=hang)
    sampler.start()
    assert hanging.wait(60)
    sampler.close()
    (thread,) = running()
    release.set()
    thread.join(60)
    assert not running()


@pytest.mark.parametrize(
    ("visible", "busy"),
    [
        (None, [0, 10, 20]),
        ("2,0", [20, 0]),
        ("1", [10]),
        ("", []),
        ("-1", []),
        ("1,-1,2", [10]),
        ("1,7,2", [10]),
        ("GPU-c1-2-3, 0", [20, 0]),
        ("GPU-b", [10]),
        ("GPU-", []),
        ("MIG-b", []),
    ],
)
def test_gpus_are_those_that_cuda_sees(visible, busy):
    driver = Driver()
    assert gpus.used(driver, gpus.handles(driver, visible)) == [(percent, percent * 2.5) for percent in busy]


@pytest.mark.parametrize("visible", ["", " ", "G"])
def test_a_lone_gpu_is_hidden_too(visible):
    assert gpus.handles(Driver(count=1), visible) == []


def test_each_gpu_has_its_columns():
    driver = Driver()
    machine = sampled(3, nvml=driver, visible="1,2")
    check_rows(machine)
    assert [set(column) for column in machine.gpu] == [{10.0}, {20.0}]
    assert [set(column) for column in machine.gpu_memory] == [{25.0}, {50.0}]
    assert [set(column) for column in machine.during("decode").gpu] == [{10.0}, {20.0}]
    assert driver.calls == ["shutdown"]


@pytest.mark.parametrize("driver", [Driver(here=False), Driver(answers=0), Driver(answers=5), None])
def test_a_driver_that_is_not_there_or_fails_leaves_no_gpu_columns(driver):
    """None is the real module, on a host without a GPU."""
    machine = sampled(4, nvml=driver, visible="" if driver is None else None)
    check_rows(machine)
    assert machine.gpu == machine.gpu_memory == []
