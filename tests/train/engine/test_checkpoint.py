"""Checkpoints on a real disk: whole or not there, torn ones passed over, another job's refused."""

import errno
import resource
import signal

import pytest
import torch

from kennel.errors import UserError
from kennel_train.engine import checkpoint
from kennel_train.engine.checkpoint import Checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", {"learning_rate": "0.1", "epochs": "3"})


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_is_loaded_and_two_are_kept(checkpoints):
    assert checkpoints.load() is None
    for step in range(4):
        checkpoints.save({"step": step, "weights": torch.full((3,), step)})
    found = checkpoints.load()
    assert found["step"] == 3
    assert found["weights"].tolist() == [3, 3, 3]
    assert [name[:19] for name in names(checkpoints)] == ["checkpoint-00000003", "checkpoint-00000004"]


@pytest.mark.parametrize("tear", ["cut", "flip", "empty"])
def test_a_torn_checkpoint_falls_back_to_the_one_before(checkpoints, tear, caplog):
    for step in (1, 2):
        checkpoints.save({"step": step})
    newest = max(checkpoints.folder.iterdir())
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"cut": data[:200], "flip": data, "empty": b""}[tear])
    again = Checkpoints(checkpoints.folder, checkpoints.identity)
    assert again.load()["step"] == 1
    assert "is torn and is passed over" in caplog.text
    again.save({"step": 3})
    assert again.load()["step"] == 3


def test_the_platforms_marker_files_and_strangers_are_left_alone(checkpoints):
    checkpoints.save({"step": 1})
    own = names(checkpoints)[0]
    for name in (f"{own}.sagemaker-uploading", f"{own}.sagemaker-uploaded", "checkpoint-99999999.pt", "notes.txt"):
        (checkpoints.folder / name).write_bytes(b"not ours")
    (checkpoints.folder / f"checkpoint-ab-cdef.{16 * '0'}.pt").write_bytes(b"a name that is nearly ours")
    (checkpoints.folder / f"checkpoint-99999999.{16 * '0'}.pt").mkdir()
    checkpoints = Checkpoints(checkpoints.folder, checkpoints.identity)
    checkpoints.save({"step": 2})
    checkpoints.save({"step": 3})
    assert checkpoints.load()["step"] == 3
    assert {f"{own}.sagemaker-uploading", "checkpoint-99999999.pt", "notes.txt"} <= set(names(checkpoints))


def test_another_jobs_checkpoints_are_refused(checkpoints):
    checkpoints.save({"step": 1})
    other = Checkpoints(checkpoints.folder, {**checkpoints.identity, "learning_rate": "0.01"})
    with pytest.raises(UserError, match=r"of another job, its learning_rate was 0\.1 and is now 0\.01: give this job"):
        other.load()


def test_the_refusal_keeps_its_advice_within_what_sagemaker_shows(checkpoints):
    checkpoints.save({"step": 1})
    names = " ".join(f"class-{number}" for number in range(1000))
    with pytest.raises(UserError, match="empty checkpoint folder") as caught:
        checkpoint.agree(checkpoints.folder, {"class names": names}, {"class names": names[1:]})
    assert len(str(caught.value)) < 1000


def test_two_jobs_at_once_cannot_have_one_folder(checkpoints):
    with checkpoint.claimed(checkpoints.folder):
        checkpoints.save({"step": 1})
        refused = pytest.raises(UserError, match="is in use by another job that still runs: wait for its end, or")
        with refused, checkpoint.claimed(checkpoints.folder):
            pass
    with checkpoint.claimed(checkpoints.folder):
        assert [name[:10] for name in names(checkpoints)] == ["checkpoint"]


def test_a_full_disk_is_raised_and_the_earlier_checkpoint_stays(checkpoints):
    """A limit on the size of files is the disk that is full here: the write fails half-way, as it does there."""
    checkpoints.save({"step": 1})
    before = names(checkpoints)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            checkpoints.save({"step": 2, "weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert names(checkpoints) == before
    assert checkpoints.load()["step"] == 1


def test_a_name_says_what_the_file_must_hold(tmp_path):
    path = checkpoint.save(tmp_path, "features-ab12-0001", {"x": torch.arange(3)})
    assert checkpoint.load(tmp_path, "features-ab12-0001")["x"].tolist() == [0, 1, 2]
    path.rename(tmp_path / path.name.replace("ab12", "ab13"))
    assert checkpoint.load(tmp_path, "features-ab12-0001") is None
