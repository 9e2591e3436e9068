"""Jobs of several processes over gloo: two hosts are two `train` executables of this machine, under two names for it.

One job of two hosts takes as long as its imports, some ten seconds: each test asks of it whatever it can.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import psutil
import pytest

from kennel import artifact, metrics

pytestmark = pytest.mark.slow
HOSTS = ("127.0.0.1", "localhost")
PATIENCE = 180  # seconds after which a job hangs
SHARDED = {"train": {"TrainingInputMode": "File", "S3DistributionType": "ShardedByS3Key"}}
LONG = {"strategy": "finetune", "epochs": "10000", "batch_size": "16"}


class Pair:
    """The same job on two hosts; `hosts[0]` has rank 0."""

    def __init__(self, job, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.hosts = [job, type(job)(folder)]
        shutil.copytree(job.base, folder)
        for name, host in zip(HOSTS, self.hosts, strict=True):
            host.environ = {"MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
            group = {"instance_group_name": "all", "instance_type": "ml.c5.xlarge", "hosts": HOSTS}
            row = {"current_host": name, "hosts": HOSTS, "network_interface_name": "lo", "instance_groups": [group]}
            (host.base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(row))

    def configure(self, **hyperparameters):
        for host in self.hosts:
            path = host.base / "input" / "config" / "hyperparameters.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | hyperparameters))

    @contextlib.contextmanager
    def running(self):
        """Both `train`s; nothing of them is left afterwards."""
        started = [host.start() for host in self.hosts]
        try:
            yield started
        finally:
            for process in started:
                kill_all(process)
                process.stdout.close()
                process.wait()

    def end(self, started):
        """[(exit code, log)] of each host."""
        last = time.monotonic() + PATIENCE
        logs = [process.communicate(timeout=last - time.monotonic())[0] for process in started]
        return [(process.returncode, log) for process, log in zip(started, logs, strict=True)]

    def run(self):
        with self.running() as started:
            return self.end(started)

    @property
    def failures(self):
        return [host.failure for host in self.hosts]


def kill_all(process):
    """SIGKILL for everything that a host runs, as when its container dies."""
    with contextlib.suppress(psutil.Error):
        whole = psutil.Process(process.pid)
        for member in [whole, *whole.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                member.kill()


def ranks(process):
    return psutil.Process(process.pid).children()


def until(process, words):
    """The lines of a log up to one that holds the words."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def digests(*logs):
    return re.findall(r"weights of process (\d) of (\d): (\w+)", "".join(logs))


def record(content):
    """One of RecordIO's, as Pipe mode streams it."""
    return struct.pack("<II", 0xCED7230A, len(content)) + content + b"\0" * (-len(content) % 4)


@pytest.fixture
def pair(job, tmp_path):
    """Made at the first call, of the job as it is by then."""
    return lambda: Pair(job, tmp_path / "other")


def test_instance_groups_of_several_types_are_refused(job):
    job.photos("train")
    job.configure()
    groups = [{"instance_type": kind, "hosts": []} for kind in ("ml.g5.xlarge", "ml.c5.xlarge", "ml.c5.xlarge")]
    row = {"current_host": "algo-1", "hosts": ["algo-1"], "instance_groups": groups}
    (job.base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(row))
    assert job.fail().startswith("the instance groups of this job have different types (ml.c5.xlarge, ml.g5.xlarge)")


def test_two_hosts_train_one_model_also_when_both_are_killed_and_started_again(job, pair, tmp_path):
    job.photos("train", {"red": 14, "green": 13})
    job.photos("test", {"red": 1, "green": 2})
    job.configure(strategy="probe-then-finetune", epochs="3", probe_epochs="2", batch_size="3", ema_decay="0.5")
    two = pair()
    killed = Pair(type(job)(shutil.copytree(job.base, tmp_path / "killed")), tmp_path / "killed-other")
    (code, log), (other_code, other_log) = two.run()
    assert (code, other_code) == (0, 0), log + other_log
    zero, one = sorted(digests(log, other_log))
    assert (zero[:2], one[:2]) == (("0", "2"), ("1", "2"))
    assert zero[2] == one[2]
    assert len(re.findall(metrics.VALIDATION_ACCURACY.regex, log)) == 6  # each epoch's, then the model's
    assert not re.findall(metrics.VALIDATION_ACCURACY.regex, other_log)
    manifest = artifact.read_manifest(job.base / "model")
    assert manifest.data["photos"] == {"train": 21, "validation": 6, "test": 3}
    assert manifest.metrics["test:accuracy"] == 1.0
    for written in ("model/*", "checkpoints/checkpoint-*", "output/data/*"):
        assert list(job.base.glob(written))
        assert not list(two.hosts[1].base.glob(written))

    with killed.running() as started:
        until(started[0], "epoch=3 ")
    (code, log), (other_code, other_log) = killed.run()
    assert (code, other_code) == (0, 0), log + other_log
    assert "resumed from a checkpoint" in log
    again = artifact.read_manifest(killed.hosts[0].base / "model")
    assert again.files["model.safetensors"] == manifest.files["model.safetensors"]


@pytest.mark.parametrize(("strategy", "epochs"), [("probe", "30"), ("finetune", "3")])
def test_two_hosts_search_as_one(job, pair, strategy, epochs):
    """One trial diverges, which both hosts notice; one record, one model."""
    job.photos("train", {"red": 14, "green": 13})
    job.configure(
        strategy=strategy,
        epochs=epochs,
        batch_size="4",
        trials="3",
        search="grid",
        search_space="learning_rate=0.0001,0.05,10",
        weight_decay="0.9",
    )
    two = pair()
    (code, log), (other_code, other_log) = two.run()
    assert (code, other_code) == (0, 0), log + other_log
    zero, one = sorted(digests(log, other_log))
    assert zero[2] == one[2]
    found = json.loads((job.base / "output" / "data" / "trials.json").read_text())
    states = {row["hyperparameters"]["learning_rate"]: row["state"] for row in found["trials"]}
    assert states[10] == "failed"
    assert found["trials"][found["best"]]["hyperparameters"]["learning_rate"] != 10
    assert artifact.read_manifest(job.base / "model").hyperparameters["learning_rate"] != 10
    assert not list(two.hosts[1].base.glob("output/data/*"))
    assert not list(two.hosts[1].base.glob("checkpoints/*.journal"))
    assert not re.search("^trial=", other_log, re.MULTILINE)


def test_hosts_may_each_have_a_part_of_the_photos_only(job, pair):
    """The head is solved over both, and learns from both hosts' validation photos in the end."""
    job.photos("train", {"red": 10, "green": 10, "blue": 10})
    job.configure(strategy="probe", epochs=None, batch_size=None)
    (job.base / "input" / "config" / "inputdataconfig.json").write_text(json.dumps(SHARDED))
    two = pair()
    first, second = (host.data / "train" for host in two.hosts)
    shutil.rmtree(first / "blue")
    shutil.rmtree(second / "red")
    for at in range(10):
        ((first if at % 2 else second) / "green" / f"{at}.jpg").unlink()
    (code, log), (other_code, other_log) = two.run()
    assert (code, other_code) == (0, 0), log + other_log
    manifest = artifact.read_manifest(job.base / "model")
    assert manifest.class_names == ("blue", "green", "red")
    assert manifest.data["photos"] == {"train": 24, "validation": 6}
    assert manifest.data["head"] == "train and validation"
    assert manifest.hyperparameters["l2"] > 0
    assert len({digest for *_, digest in digests(log, other_log)}) == 1


def test_a_host_that_got_validation_photos_only_of_a_sharded_channel_does_not_train_on_them(job, pair):
    job.photos("train/train", {"red": 10, "green": 10})
    job.photos("train/val", {"red": 3, "green": 3})
    job.configure(strategy="probe-then-finetune", epochs="1", probe_epochs="1", batch_size="4")
    (job.base / "input" / "config" / "inputdataconfig.json").write_text(json.dumps(SHARDED))
    two = pair()
    first, second = (host.data / "train" for host in two.hosts)
    shutil.rmtree(first / "val")
    shutil.rmtree(second / "train")
    (code, log), (other_code, other_log) = two.run()
    assert (code, other_code) == (0, 0), log + other_log
    assert artifact.read_manifest(job.base / "model").data["photos"] == {"train": 20, "validation": 6}
    assert len({digest for *_, digest in digests(log, other_log)}) == 1


def test_statistics_that_are_kept_stay_the_same_to_the_last_bit_whatever_the_number_of_ranks(tmp_path):
    """Seven ranks by fork, each with the same layer kept and another one that learns."""
    code = f"""
import os, torch
import torch.distributed as dist
from torch import nn
from kennel_train.distributed import all_reduce
from kennel_train.distributed.cluster import Cluster

world = 7
rank = next((at for at in range(1, world) if os.fork() == 0), 0)
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://{tmp_path}/meeting", rank=rank, world_size=world)
torch.manual_seed(0)
kept, learning = nn.BatchNorm1d(500), nn.BatchNorm1d(500)
for layer in (kept, learning):
    layer.running_mean.uniform_(-3, 3)
    layer.running_var.uniform_(0.1, 9)
learning.running_mean.fill_(rank)
learning.num_batches_tracked.fill_(rank + 5)
module = nn.Sequential(kept, learning).train()
kept.eval()
before = {{name: buffer.clone() for name, buffer in kept.named_buffers()}}
for _ in range(5):
    all_reduce.share(module, torch.zeros(2), Cluster(rank, world, rank, world), False)
assert all(torch.equal(buffer, before[name]) for name, buffer in kept.named_buffers())
torch.testing.assert_close(learning.running_mean, torch.full((500,), 3.0))
assert learning.num_batches_tracked == 5, "rank 0's"
dist.destroy_process_group()
if rank:
    os._exit(0)
assert [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(1, world)] == [0] * (world - 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_several_processes_of_one_host_read_its_pipe_once(job):
    job.photos("train")
    job.configure(epochs="1")
    photos = {path.relative_to(job.data / "train"): path.read_bytes() for path in job.data.rglob("*.jpg")}
    shutil.rmtree(job.data / "train")
    config = {"train": {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO"}}
    (job.base / "input" / "config" / "inputdataconfig.json").write_text(json.dumps(config))
    os.mkfifo(job.data / "train_0")
    stream = b"".join(record(content) + record(path.parts[0].encode()) for path, content in photos.items())
    threading.Thread(target=(job.data / "train_0").write_bytes, args=(stream,), daemon=True).start()
    job.environ = {"KENNEL_PROCESSES_PER_HOST": "2"}
    code, log = job.run()
    assert code == 0, log
    assert len({digest for *_, digest in digests(log)}) == 1
    assert sorted(rank for rank, *_ in digests(log)) == ["0", "1"]
    assert artifact.read_manifest(job.base / "model").data["photos"] == {"train": 16, "validation": 4}


def test_sigterm_to_one_host_stops_both_with_a_model_and_a_start_goes_on(job, pair):
    job.photos("train", {"red": 12, "green": 12})
    job.configure(**LONG)
    two = pair()
    with two.running() as started:
        until(started[0], "epoch=2 ")
        started[1].send_signal(signal.SIGTERM)
        for code, log in two.end(started):
            assert code == 0, log
    shutil.rmtree(job.base / "model")
    with two.running() as started:
        assert "resumed from a checkpoint" in until(started[0], "epoch=")
        for process in started:
            process.send_signal(signal.SIGTERM)
        for code, log in two.end(started):
            assert code == 0, log
    assert artifact.read_manifest(job.base / "model").class_names == ("green", "red")
    assert list((job.base / "checkpoints").glob("checkpoint-*.pt"))


def test_a_rank_that_is_killed_fails_the_job_on_every_host_with_its_reason(job, pair):
    job.photos("train")
    job.configure(**LONG)
    two = pair()
    with two.running() as started:
        until(started[0], "epoch=1 ")
        (rank,) = ranks(started[1])
        rank.kill()
        ended = two.end(started)
    assert [code for code, _ in ended] == [1, 1], ended
    said = "process 1 was killed by SIGKILL, most likely out of memory: lower batch_size, or take an instance with more"
    assert two.hosts[1].failure.startswith(said)
    assert two.hosts[0].failure.startswith(f"host {HOSTS[1]} failed: {said}")
    assert not list(job.base.glob("model/*"))


@pytest.mark.parametrize("at", [0, 1])
def test_a_host_that_dies_fails_the_job_of_the_other(job, pair, at):
    job.photos("train")
    job.configure(**LONG)
    two = pair()
    with two.running() as started:
        until(started[0], "epoch=1 ")
        kill_all(started[at])
        ended = two.end(started)
    assert ended[1 - at][0] == 1, ended
    assert "frame #" not in ended[1 - at][1], "a sentence, not a C++ stack"
    assert two.hosts[1 - at].failure.startswith(f"host {HOSTS[at]} was lost (")


def test_a_photo_of_one_host_that_is_corrupt_fails_both(job, pair):
    job.photos("train")
    job.configure(on_bad_image="fail")
    two = pair()
    for path in two.hosts[1].data.rglob("*.jpg"):
        path.write_bytes(b"junk")
    ended = two.run()
    assert [code for code, _ in ended] == [1, 1], ended
    assert "frame #" not in ended[0][1] + ended[1][1], "a sentence, not a C++ stack"
    said = two.failures[1]
    assert re.match(r"\S+jpg: not a readable photo .*on_bad_image=fail", said)
    assert two.failures[0] == f"host {HOSTS[1]} failed: {said}"


def test_an_error_of_ours_brings_its_traceback_to_every_host(job, pair):
    """A hook is the one code of a user's that rank 0 alone runs."""
    job.photos("train")
    job.configure(**LONG, sagemaker_program="hook.py")
    (job.base / "code").mkdir()
    (job.base / "code" / "hook.py").write_text("def on_epoch_end(epoch, metrics):\n    metrics['absent']\n")
    two = pair()
    ended = two.run()
    assert [code for code, _ in ended] == [1, 1], ended
    cause, _, trace = two.failures[0].partition("\n")
    assert "absent" in cause
    assert trace.strip().startswith("Traceback")
    assert two.failures[1].startswith(f"host {HOSTS[0]} failed: {cause}")
    assert "Traceback" in two.failures[1]
    assert trace.strip().splitlines()[-1] in ended[0][1]


def test_a_rank_may_be_slower_than_a_steps_patience_where_one_writes_alone(tmp_path):
    code = """
import time
from datetime import timedelta
from kennel_train.distributed.cluster import Cluster

cluster = Cluster.join(timedelta(seconds=1))
time.sleep(3 * cluster.is_rank_zero)
assert cluster.gather(cluster.rank) == [0, 1]
time.sleep(3 * cluster.is_rank_zero)
cluster.leave()
"""
    (tmp_path / "ranks.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, tmp_path / "ranks.py"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
