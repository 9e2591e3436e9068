"""The history of a training as TensorBoard's files. It measures nothing; `measure.history` says what the numbers are.

tensorboardX only frames the records. Its own writer is left alone: its thread dies of a full disk, and the training
then waits for it for ever.
"""

import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from numbers import Real
from pathlib import Path
from typing import Any

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from kennel_train.measure.history import Machine, StageHistory

log = logging.getLogger("kennel")
POINTS = 200  # new ones of a curve that one call writes: TensorBoard itself shows a thousand in all
_number = count()
_MACHINE = {
    "cpu": "cpu_percent",
    "memory": "memory_mb",
    "read": "disk_read_mb_per_s",
    "written": "disk_written_mb_per_s",
    "received": "network_received_mb_per_s",
    "sent": "network_sent_mb_per_s",
}


class Board:
    """One file of scalars in a folder, to which every call adds what is new."""

    def __init__(self, folder: Path) -> None:
        # As TensorBoard's own writer names its files: no two are the same, and they sort by time.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_number)}"
        self._path, self._closed = folder / name, False
        self._record: Any = None  # opened by what comes first
        self._last: dict[tuple[str, str], int] = {}  # by stage and tag, the last step that was written

    def add(self, series: StageHistory) -> None:
        """A stage so far: by step `step/…`, `step_seconds/…`, `gradient_norm_<stage>/…`; by second `machine/…`."""
        now = time.time()
        curves = list(_curves(series))
        self._write(event for tag, points in curves for event in self._events(series.stage, tag, points, now))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One of the loop's rows: every number in it, by the epoch's, as `epoch/…`."""
        now, epoch = time.time(), int(row["epoch"])
        numbers = {name: value for name, value in row.items() if isinstance(value, Real) and "epoch" not in name}
        self._write(_event(f"epoch/{name.replace(':', '_')}", epoch, float(v), now) for name, v in numbers.items())

    def close(self) -> None:
        """Close the file; nothing is added afterwards."""
        self._closed = True
        if self._record:
            with suppress(OSError):
                self._record.close()

    def _events(self, stage: str, tag: str, points: Iterable[tuple[int, float]], now: float) -> Iterator[Event]:
        last = self._last.get((stage, tag), -1)
        new = [(step, value) for step, value in points if step > last]
        if new:
            self._last[stage, tag] = new[-1][0]
        every = -(-len(new) // POINTS)
        return (_event(tag, step, value, now) for step, value in new[:: every or 1])

    def _write(self, events: Iterable[Event]) -> None:
        """Append, and see that it is on the disk; one that is full costs the rest of the file, not the job."""
        if self._closed:
            return
        try:
            if not self._record:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._record = RecordWriter(str(self._path))
                self._record.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            for event in events:
                self._record.write(event.SerializeToString())
            self._record.flush()
        except OSError as error:
            log.warning("warning: TensorBoard's file is written no further: %s", error)
            self.close()


def _event(tag: str, step: int, value: float, now: float) -> Event:
    return Event(wall_time=now, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def _curves(series: StageHistory) -> Iterator[tuple[str, Iterable[tuple[int, float]]]]:
    """(tag, (step, value) in order) of all that a stage has."""
    evaluated = list(series.evaluated)
    yield "step/train_loss", zip(series.loss.steps, series.loss.values, strict=True)
    yield "step/validation_loss", [(row.step, row.validation_loss) for row in evaluated]
    for part, curve in series.times.items():
        yield f"step_seconds/{part.replace(' ', '_')}", zip(curve.steps, curve.values, strict=True)
    for name, tensors in series.gradients.items():
        group = f"gradient_norm_{series.stage}".rstrip("_")
        yield f"{group}/{name}", zip(tensors.norm.steps, tensors.norm.values, strict=True)
    yield from _machine(series.machine)


def _machine(machine: Machine) -> Iterator[tuple[str, Iterable[tuple[int, float]]]]:
    """By the second of the job, at most one of each."""
    firsts = [at for at, second in enumerate(machine.at) if not at or int(second) > int(machine.at[at - 1])]
    columns = [(_MACHINE[name], column) for name, column in machine.columns() if name in _MACHINE]
    columns += [(f"gpu{at}_percent", column) for at, column in enumerate(machine.gpu)]
    columns += [(f"gpu{at}_memory_percent", column) for at, column in enumerate(machine.gpu_memory)]
    for name, column in columns:
        yield f"machine/{name}", [(int(machine.at[at]), column[at]) for at in firsts]
