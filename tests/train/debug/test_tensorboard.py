"""TensorBoard's files, read back record by record: lengths, checksums and events are what its format says."""

import os
import resource
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from kennel_train.debug.tensorboard import POINTS, Board
from kennel_train.measure.history import Evaluated, Machine, StageHistory, Tensors


def masked(data):
    """https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/hash/crc32c.h"""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def events(folder):
    """All events of all files in a folder; the first of each file says the format's version."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at, here = path.read_bytes(), 0, []
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            assert struct.unpack_from("<I", data, at + 8)[0] == masked(data[at : at + 8])
            content = data[at + 12 : at + 12 + length]
            assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked(content)
            here.append(Event.FromString(content))
            at += length + 16
        assert here[0].file_version == "brain.Event:2"
        found += here[1:]
    return found


def scalars(folder):
    """Tag -> [(step, value)], in the order in which they were written."""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def filled(series, first, count):
    for step in range(first, first + count):
        series.loss.add(step, 2.0**-step)
    return series


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "output" / "tensorboard"


def test_everything_that_a_stage_has(folder):
    series = filled(StageHistory("finetune"), 0, 3)
    series.evaluated = [Evaluated(step=2, train_loss=0.5, validation_loss=0.75)]
    for name, value in (("conv.weight", 4.0), ("head.bias", 0.125)):
        tensors = series.gradients.setdefault(name, Tensors())
        tensors.norm.add(1, value)
        tensors.mean_abs.add(1, 99.0)
    for part in ("data wait", "forward"):
        series.times.setdefault(part, type(series.loss)()).add(0, 0.25)
    row = {name: [1.0, 2.0] for name in ("cpu", "memory", "read", "written", "received", "sent")}
    series.machine = Machine(at=[10.2, 11.2], phase=["finetune"] * 2, gpu=[[5.0, 6.0]], gpu_memory=[[7.0, 8.0]], **row)
    board = Board(folder)
    board.add(series)
    board.close()
    machine = ["cpu_percent", "memory_mb", "disk_read_mb_per_s", "disk_written_mb_per_s"]
    machine += ["network_received_mb_per_s", "network_sent_mb_per_s"]
    assert scalars(folder) == {
        "step/train_loss": [(0, 1.0), (1, 0.5), (2, 0.25)],
        "step/validation_loss": [(2, 0.75)],
        "step_seconds/data_wait": [(0, 0.25)],
        "step_seconds/forward": [(0, 0.25)],
        "gradient_norm_finetune/conv.weight": [(1, 4.0)],
        "gradient_norm_finetune/head.bias": [(1, 0.125)],
        **{f"machine/{name}": [(10, 1.0), (11, 2.0)] for name in machine},
        "machine/gpu0_percent": [(10, 5.0), (11, 6.0)],
        "machine/gpu0_memory_percent": [(10, 7.0), (11, 8.0)],
    }


def test_an_epochs_row(folder):
    board = Board(folder)
    row = {"stage": "probe", "epoch": 3, "stage_epoch": 1, "learning_rate": 0.5, "validation:loss": np.float32(0.25)}
    board.epoch(row)
    board.epoch({**row, "epoch": 4, "validation:accuracy": 1})
    board.close()
    assert scalars(folder) == {
        "epoch/learning_rate": [(3, 0.5), (4, 0.5)],
        "epoch/validation_loss": [(3, 0.25), (4, 0.25)],
        "epoch/validation_accuracy": [(4, 1.0)],
    }


def test_only_what_is_new_is_added_and_it_is_on_the_disk_at_once(folder):
    board, series = Board(folder), filled(StageHistory("probe"), 0, 2)
    board.add(series)
    assert scalars(folder)["step/train_loss"] == [(0, 1.0), (1, 0.5)]
    board.add(series)
    board.add(filled(series, 2, 1))
    assert scalars(folder)["step/train_loss"] == [(0, 1.0), (1, 0.5), (2, 0.25)]
    board.add(filled(StageHistory("finetune"), 3, 1))
    board.close()
    assert scalars(folder)["step/train_loss"] == [(0, 1.0), (1, 0.5), (2, 0.25), (3, 0.125)]


def test_a_curve_that_was_thinned_meanwhile_is_not_written_twice(folder):
    board, series = Board(folder), StageHistory("probe")
    series.loss.limit = 8
    for step in range(20):
        series.loss.add(step, float(step))
        board.add(series)
    board.close()
    written = [step for step, _ in scalars(folder)["step/train_loss"]]
    assert written == sorted(set(written))
    assert set(series.loss.steps) <= set(written)


def test_a_long_epoch_is_thinned(folder):
    board, series = Board(folder), StageHistory("probe")
    for step in range(3 * POINTS):
        series.loss.add(step, float(step))
    board.add(series)
    series.loss.add(3 * POINTS, 1.0)
    board.add(series)
    board.close()
    steps = [step for step, _ in scalars(folder)["step/train_loss"]]
    assert steps == [*range(0, 3 * POINTS, 3), 3 * POINTS]


def test_the_machine_has_one_point_a_second(folder):
    board, series = Board(folder), StageHistory("probe")
    row = {name: [1.0, 2.0, 3.0, 4.0] for name in ("cpu", "memory", "read", "written", "received", "sent")}
    series.machine = Machine(at=[0.5, 0.9, 1.2, 3.0], phase=["probe"] * 4, interval=0.5, **row)
    board.add(series)
    board.close()
    assert scalars(folder)["machine/cpu_percent"] == [(0, 1.0), (1, 3.0), (3, 4.0)]


def test_what_is_no_number_stays_so(folder):
    board, series = Board(folder), StageHistory("probe")
    series.loss.add(0, float("nan"))
    series.loss.add(1, float("inf"))
    board.add(series)
    board.close()
    assert str(scalars(folder)["step/train_loss"]) == "[(0, nan), (1, inf)]"


def test_two_boards_never_share_a_file_and_an_unused_one_has_none(folder):
    for step in (0, 1):
        board = Board(folder)
        board.add(filled(StageHistory("probe"), step, 1))
        board.close()
    Board(folder).close()
    assert len(list(folder.iterdir())) == 2
    assert scalars(folder)["step/train_loss"] == [(0, 1.0), (1, 0.5)]


def test_after_the_end_nothing_is_added(folder):
    board = Board(folder)
    board.add(filled(StageHistory("probe"), 0, 1))
    board.close()
    board.close()
    board.add(filled(StageHistory("finetune"), 1, 1))
    assert scalars(folder)["step/train_loss"] == [(0, 1.0)]


def test_a_full_disk_costs_the_file_and_not_the_job(folder, caplog):
    """A limit on the size of files is the disk that is full here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    board, series = Board(folder), filled(StageHistory("probe"), 0, 2)
    board.add(series)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        board.add(filled(series, 2, 100))
        board.epoch({"epoch": 1, "validation:loss": 1.0})
        board.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert caplog.text.count("TensorBoard's file is written no further") == 1


def test_a_folder_that_cannot_be_made_costs_the_file_and_not_the_job(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    board = Board(tmp_path / "file" / "tensorboard")
    board.add(filled(StageHistory("probe"), 0, 1))
    board.close()
    assert "TensorBoard's file is written no further" in caplog.text


def test_it_works_beside_smdebug_and_with_protobuf_in_python(tmp_path):
    """smdebug needs protobuf's Python implementation, and defines TensorBoard's messages a second time."""
    code = (
        "import sys, smdebug.pytorch; from pathlib import Path; from kennel_train.debug.tensorboard import Board\n"
        "from google.protobuf.internal import api_implementation as a; assert a.Type() == 'python'\n"
        "board = Board(Path(sys.argv[1])); board.epoch({'epoch': 1, 'train:loss': 0.5}); board.close()"
    )
    environ = {
        **os.environ,
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environ, check=True, timeout=300)
    assert scalars(tmp_path) == {"epoch/train_loss": [(1, 0.5)]}
