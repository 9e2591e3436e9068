"""A trace of some steps by torch's own profiler, as a file for Perfetto or chrome://tracing. It judges nothing."""

import gzip
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler as autograd_profiler
from torch.profiler import ProfilerActivity, profile

from kennel.errors import UserError
from kennel_train.debug.hook_config import TRACED
from kennel_train.measure.callbacks import Callback

_STEPS = re.compile(r"([0-9]{1,12})(?:\s*-\s*([0-9]{1,12}))?")
_TRACK = 2**22 + 1  # a thread's number that Linux never gives (PID_MAX_LIMIT): the row of the loop's parts
_EVENTS = '"traceEvents": ['  # the line in the profiler's file after which the events stand
_BASE = re.compile(r'"baseTimeNanoseconds": (\d+)')  # of its clock, since 1970


def steps(text: str) -> tuple[int, int] | None:
    """The first and last step of "20-24" or "20"; None of nothing.

    Raises:
        UserError: it is neither, or too many steps.
    """
    if not text.strip():
        return None
    found = _STEPS.fullmatch(text.strip())
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
    if not first <= last < first + TRACED:
        raise UserError(f"profile_steps={text!r}: give a step such as 20, or up to {TRACED} of them such as 20-24")
    return first, last


class Trace(Callback):
    """Records the steps from `first` to `last` into `<folder>/trace-step-<first>-<last>.json.gz`.

    Evaluations are no steps and can be long: what lies before and after one comes into a file of its own. A file is
    named by the steps that are in it. Whatever goes wrong is said, and the job goes on.
    """

    def __init__(self, first: int, last: int, folder: Path, say: Callable[[str], None]) -> None:
        self.written: list[Path] = []
        self._first, self._last, self._folder, self._say = first, last, folder, say
        self._profile: profile | None = None
        self._step, self._begun, self._at = 0, 0, 0  # the running step, its and its last part's beginning
        self._from = 0  # the first step in this file
        self._spans: list[tuple[str, int, int]] = []  # (what, beginning, end), ns since 1970

    def begin(self, step: int) -> None:
        if not self._profile and self._first <= step <= self._last:
            self._start(step)
        self._step = step
        self._begun = self._at = time.time_ns()

    def lap(self, part: str) -> None:
        if self._profile:
            now = time.time_ns()
            self._spans.append((part, self._at, now))
            self._at = now

    def end(self, sums: Tensor) -> None:
        if self._profile:
            self._spans.append((f"step {self._step}", self._begun, time.time_ns()))
            if self._step >= self._last:
                self._finish()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        self._finish()
        yield

    def close(self) -> None:
        self._finish()

    def _start(self, step: int) -> None:
        # Torch would not refuse: the one that stops first takes everything, and the other fails.
        if autograd_profiler._is_profiler_enabled:
            self._give_up("another profiler is running")
            return
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        try:
            # acc_events: without it torch warns that a second start would forget the first one's events.
            started = profile(activities=kinds, record_shapes=True, acc_events=True)
            started.start()
        except RuntimeError as error:
            self._give_up(str(error))
            return
        self._profile, self._from, self._spans = started, step, []

    def _finish(self) -> None:
        if not self._profile:
            return
        stopped, self._profile = self._profile, None
        path = self._folder / f"trace-step-{self._from}-{self._step}.json.gz"
        try:
            stopped.stop()
            _write(stopped, self._spans, path)
        except (RuntimeError, OSError) as error:
            self._give_up(str(error))
            return
        self.written.append(path)
        self._say(f"trace of steps {self._from} to {self._step}: {path} (open it with Perfetto or chrome://tracing)")

    def _give_up(self, why: str) -> None:
        self._say(f"warning: the trace of steps {self._first} to {self._last} is left out: {why}")
        self._last = -1


def _write(stopped: profile, spans: list[tuple[str, int, int]], path: Path) -> None:
    """Put the profiler's file and the parts of the steps together, in one step.

    Copied, not parsed: a hundred steps are millions of events. `.tmp`: what SageMaker does not copy to S3 meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    try:
        with tempfile.TemporaryDirectory(prefix="kennel-") as scratch:
            raw = Path(scratch) / "trace.json"
            stopped.export_chrome_trace(str(raw))
            if not raw.exists():  # torch only prints why
                raise OSError("the profiler could not write its file: is the disk full?")
            with raw.open(encoding="utf-8") as source, gzip.open(partial, "wt", 5, encoding="utf-8") as target:
                base = 0
                for line in source:
                    target.write(line)
                    found = _BASE.search(line)
                    base = int(found[1]) if found else base
                    if _EVENTS in line:
                        target.writelines(json.dumps(event) + ",\n" for event in _events(spans, base))
                        break
                shutil.copyfileobj(source, target)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _events(spans: list[tuple[str, int, int]], base: int) -> Iterator[dict[str, Any]]:
    """In the trace's own terms: times in µs since `base` (ns since 1970), on a row above all threads.

    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Trace Event Format)
    """
    row = {"pid": os.getpid(), "tid": _TRACK}
    yield {"ph": "M", "name": "thread_name", "args": {"name": "training steps"}, **row}
    yield {"ph": "M", "name": "thread_sort_index", "args": {"sort_index": -1}, **row}
    # The outer ones first, where two begin at once: a step and its first part.
    for name, begun, ended in sorted(spans, key=lambda span: (span[1], -span[2])):
        # Whole µs: neighbours that overlap by the rounding of a fraction would be drawn inside one another.
        at = (begun - base) // 1000
        yield {"ph": "X", "cat": "kennel", "name": name, "ts": at, "dur": (ended - base) // 1000 - at, **row}
