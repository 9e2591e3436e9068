"""Traces of a real training loop by torch's own profiler, read back as a browser would."""

import gzip
import itertools
import json
import resource
import signal

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kennel.errors import UserError
from kennel_train.debug.trace import Trace, steps

PARTS = ["data wait", "forward", "backward", "optimizer"]


def train(watch, count, first=0, evaluate_before=()):
    """Steps of a small network, passed to `watch` as the loop does."""
    module = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for step in range(first, first + count):
        if step in evaluate_before:
            with watch.evaluating():
                torch.fft.fft(torch.ones(8))
        watch.begin(step)
        optimizer.zero_grad()
        inputs = torch.randn(8, 32)
        watch.lap("data wait")
        loss = module(inputs).square().mean()
        watch.lap("forward")
        loss.backward()
        watch.lap("backward")
        optimizer.step()
        watch.lap("optimizer")
        watch.end(torch.tensor([loss.item(), 8.0]))


def events(path):
    with gzip.open(path, "rt") as file:
        return json.load(file)["traceEvents"]


def ranges(path):
    """(name, start, end) of the loop's parts, in order of time."""
    found = [e for e in events(path) if e.get("cat") == "kennel"]
    return [(e["name"], e["ts"], e["ts"] + e["dur"]) for e in found]


def ops(path, name):
    return [e for e in events(path) if e.get("cat") == "cpu_op" and e["name"] == name]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def said():
    return []


def test_the_chosen_steps_are_recorded_with_their_parts(tmp_path, said):
    folder = tmp_path / "profiler"
    trace = Trace(2, 3, folder, said.append)
    train(trace, 6)
    trace.close()
    path = folder / "trace-step-2-3.json.gz"
    assert trace.written == [path]
    assert files(folder) == [path.name]
    assert said == [f"trace of steps 2 to 3: {path} (open it with Perfetto or chrome://tracing)"]
    assert [name for name, _, _ in ranges(path)] == ["step 2", *PARTS, "step 3", *PARTS]
    (linear, *_) = ops(path, "aten::linear")
    assert linear["args"]["Input Dims"][:2] == [[8, 32], [16, 32]]
    assert len(ops(path, "aten::linear")) == 4  # two layers, two steps


def test_ops_lie_within_their_parts(tmp_path, said):
    trace = Trace(1, 1, tmp_path, said.append)
    train(trace, 3)
    path = tmp_path / "trace-step-1-1.json.gz"
    parts = {name: (start, end) for name, start, end in ranges(path)}
    begun, ended = parts.pop("step 1")
    assert all(begun <= start <= end <= ended for start, end in parts.values())
    assert all(parts[a][1] == parts[b][0] for a, b in itertools.pairwise(PARTS))
    slack = 1000  # µs: the profiler's clock is a processor's counter, brought to the system's time
    for name, part in {"aten::randn": "data wait", "aten::linear": "forward"}.items():
        for op in ops(path, name):
            start, end = parts[part]
            assert start - slack <= op["ts"] <= op["ts"] + op["dur"] <= end + slack
    backward = [e for e in events(path) if "AddmmBackward0" in e["name"] and e["name"].startswith("autograd::engine")]
    start, end = parts["backward"]
    assert backward
    assert all(start - slack <= op["ts"] <= op["ts"] + op["dur"] <= end + slack for op in backward)


def test_the_row_of_parts_is_no_threads_and_has_a_name(tmp_path, said):
    trace = Trace(0, 0, tmp_path, said.append)
    train(trace, 1)
    found = events(tmp_path / "trace-step-0-0.json.gz")
    (name,) = [e for e in found if e["name"] == "thread_name" and e["args"]["name"] == "training steps"]
    ours = {(e["pid"], e["tid"]) for e in found if e.get("cat") == "kennel"}
    assert ours == {(name["pid"], name["tid"])}
    assert (name["pid"], name["tid"]) not in {(e["pid"], e["tid"]) for e in found if e.get("cat") == "cpu_op"}


def test_a_stage_that_ends_early_keeps_what_there_is(tmp_path, said):
    trace = Trace(2, 9, tmp_path, said.append)
    train(trace, 4)
    assert not trace.written
    trace.close()
    assert files(tmp_path) == ["trace-step-2-3.json.gz"]
    trace.close()
    assert len(said) == 1


def test_a_job_taken_up_again_in_the_middle_records_the_rest(tmp_path, said):
    trace = Trace(2, 5, tmp_path, said.append)
    train(trace, 4, first=4)
    assert files(tmp_path) == ["trace-step-4-5.json.gz"]


def test_a_job_that_begins_behind_or_ends_before_records_nothing(tmp_path, said):
    for first, count in ((6, 3), (0, 2)):
        trace = Trace(2, 5, tmp_path, said.append)
        train(trace, count, first=first)
        trace.close()
    assert files(tmp_path) == []
    assert said == []


def test_an_evaluation_is_left_out_and_parts_the_files(tmp_path, said):
    trace = Trace(1, 4, tmp_path, said.append)
    train(trace, 6, evaluate_before=(0, 3, 5))
    assert files(tmp_path) == ["trace-step-1-2.json.gz", "trace-step-3-4.json.gz"]
    for path in trace.written:
        assert not ops(path, "aten::fft_fft")
        assert ops(path, "aten::linear")


def test_another_profiler_is_left_in_peace(tmp_path, said):
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as other:
        trace = Trace(0, 1, tmp_path, said.append)
        train(trace, 4)
        trace.close()
    assert len([event for event in other.events() if event.name == "aten::linear"]) == 8
    assert files(tmp_path) == []
    assert said == ["warning: the trace of steps 0 to 1 is left out: another profiler is running"]


def test_a_profiler_that_takes_ours_away_costs_the_trace_and_not_the_job(tmp_path, said):
    trace = Trace(0, 1, tmp_path, said.append)
    train(trace, 1)
    other = profile(activities=[ProfilerActivity.CPU], acc_events=True)
    other.start()
    other.stop()
    train(trace, 3, first=1)
    trace.close()
    assert files(tmp_path) == []
    assert len(said) == 1
    assert said[0].startswith("warning: the trace of steps 0 to 1 is left out: ")


def test_a_full_disk_costs_the_trace_and_not_the_job(tmp_path, said):
    """A limit on the size of files is the disk that is full here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    trace = Trace(0, 2, tmp_path, said.append)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        train(trace, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert files(tmp_path) == []
    why = "the profiler could not write its file: is the disk full?"
    assert said == [f"warning: the trace of steps 0 to 2 is left out: {why}"]


def test_a_file_that_cannot_have_its_name_leaves_nothing_behind(tmp_path, said):
    (tmp_path / "trace-step-0-1.json.gz").mkdir()
    trace = Trace(0, 1, tmp_path, said.append)
    train(trace, 2)
    assert files(tmp_path) == ["trace-step-0-1.json.gz"]
    assert not trace.written
    assert said[0].startswith("warning: the trace of steps 0 to 1 is left out: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("  ", None), ("20", (20, 20)), ("20-24", (20, 24)), (" 0 - 99 ", (0, 99)), ("7-7", (7, 7))],
)
def test_steps_are_read(text, expected):
    assert steps(text) == expected


@pytest.mark.parametrize("text", ["24-20", "0-100", "-5", "5-", "a", "1,2", "1-2-3", "1.5", "²", "9" * 40])
def test_other_steps_are_refused(text):
    with pytest.raises(
        UserError, match=r"profile_steps=.*: give a step such as 20, or up to 100 of them such as 20-24"
    ):
        steps(text)
