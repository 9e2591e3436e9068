"""SageMaker's other ways to run an endpoint: batch transform, asynchronous, serverless, inference pipelines."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from kennel import cgroup
from kennel_serve import settings
from kennel_serve.front import execution_parameters

MB = 1 << 20
GB = 1 << 30
# Every mount but TMPDIR becomes read-only, for `serve` alone.
READ_ONLY = """
mount --bind "$TMPDIR" "$TMPDIR" || exit 98
awk '$3 !~ /^(proc|sysfs|cgroup2?|devpts|mqueue)$/ {print $2}' /proc/self/mounts | while read -r place; do
  [ "$place" = "$TMPDIR" ] || mount -o remount,bind,ro "$place"
done 2>/dev/null
for place in / "$HOME" /tmp "$SAGEMAKER_BASE_DIR"; do touch "$place/.probe" 2>/dev/null && exit 99; done
exec "$@"
"""


@pytest.mark.parametrize(
    ("workers", "largest", "concurrent", "megabytes"),
    [
        (1, 25, 1, 25),
        (4, 25, 4, 25),
        (8, 25, 8, 12),
        (64, 25, 16, 6),  # never less than SageMaker's own 6 MB
        (2, 1024, 2, 50),
        (1, 1024, 1, 100),
        (2, 2, 2, 2),
    ],
)
def test_what_a_batch_transform_is_told(workers, largest, concurrent, megabytes):
    row = execution_parameters.parameters(workers, largest * MB)
    assert row == {
        "MaxConcurrentTransforms": concurrent,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": megabytes,
    }
    assert concurrent * megabytes <= 100  # or SageMaker refuses the job


@pytest.mark.parametrize(
    ("megabytes", "memory", "cpus", "expected"),
    [
        (None, 16 * GB, 4, 25),
        ("0", 16 * GB, 4, 204),  # any size: one for each CPU
        ("0", 64 * GB, 1, 1024),
        ("0", GB, 4, 25),
        ("100", 16 * GB, 4, 100),
        ("1024", 4 * GB, 4, 204),  # as large as memory can hold one
        ("2", GB, 4, 2),
    ],
)
def test_the_largest_body(monkeypatch, megabytes, memory, cpus, expected):
    for name in settings._BOUNDS:
        monkeypatch.delenv(name, raising=False)
    if megabytes:
        monkeypatch.setenv("SAGEMAKER_MAX_PAYLOAD_IN_MB", megabytes)
    chosen = settings.read(memory, cpus)
    assert chosen.max_bytes == expected * MB
    assert chosen.response_seconds == (600 if expected > 25 else 30)
    limits = settings.limits(chosen, cpus, 0, memory)
    assert limits.heap_bytes >= min(4 * chosen.max_bytes, memory // 4)
    workers = settings.share(chosen, limits, "int8", 25 * MB, memory).workers
    assert workers == 1 or workers * (6 * (expected - 25) + 275) * MB + limits.heap_bytes < memory


def test_a_batch_transform_in_a_pipeline(base, running, photo):
    """Bodies of any size in chunks; of all ports only the one that was given."""
    given = {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0",
        "SAGEMAKER_BATCH_STRATEGY": "SingleRecord",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
        "SAGEMAKER_SAFE_PORT_RANGE": "21000-22000",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        "KENNEL_ON_ERROR": "line",
    }
    with running(base, **given) as server:
        server.wait_ready()
        status, body, _ = server.request("GET", "/execution-parameters")
        row = json.loads(body)
        assert (status, row["MaxConcurrentTransforms"], row["BatchStrategy"]) == (200, 2, "SINGLE_RECORD")
        assert 25 <= row["MaxPayloadInMB"] <= 50
        large = photo("blue", "BMP", (2800, 2900))  # 24 MB
        parts = (large[at : at + MB] for at in range(0, len(large), MB))
        status, body, _ = server.request("POST", "/invocations", parts, {"Content-Type": "image/bmp"})
        assert (status, json.loads(body)["predictions"][0]["label"]) == (200, "blue")
        lines = f'{{"image": "{base64.b64encode(photo("red")).decode()}"}}\n{{"image": "eA=="}}\n'.encode()
        status, body, _ = server.request("POST", "/invocations", lines, {"Content-Type": "application/jsonlines"})
        good, bad = map(json.loads, body.splitlines())
        assert (status, good["predictions"][0]["label"]) == (200, "red")
        assert bad["error"].startswith("line 2: not a readable photo")
        listening = {
            row.laddr.port
            for process in server.family()
            for row in process.net_connections("inet")
            if row.status == psutil.CONN_LISTEN
        }
        assert listening == {server.port}


def test_an_asynchronous_request_of_150_mb(base, running, photo):
    """As one picture, and as JSON; all processes together stay below what the limit is computed from."""
    limit = 160 * MB
    if cgroup.memory_bytes() < 20 * limit or cgroup.free_memory_bytes() < 20 * limit:
        pytest.skip("too little memory free for bodies of 150 MB")
    bmp = photo("green", "BMP", (7000, 7400))
    photos = [base64.b64encode(photo(color, "BMP", (1000, 750))).decode() for color in ("red", "blue")] * 25
    with running(base, SAGEMAKER_MAX_PAYLOAD_IN_MB="160") as server:
        server.wait_ready()
        before = sum(_peak(process) for process in server.family())
        status, answer = server.invoke(bmp, "image/bmp")
        assert (status, answer["predictions"][0]["label"]) == (200, "green")
        status, answer = server.invoke(json.dumps({"instances": photos}).encode(), "application/json")
        assert (status, [rows[0]["label"] for rows in answer["predictions"]]) == (200, ["red", "blue"] * 25)
        assert sum(_peak(process) for process in server.family()) - before < 20 * len(bmp)
        assert server.ping() == 200


def _peak(process: psutil.Process) -> int:
    """Bytes that it once held."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return 1024 * int(rows["VmHWM"].split()[0])


def test_a_file_system_that_is_read_only_but_for_tmpdir(base, running, photo):
    """As serverless endpoints have it."""
    unshare = ("unshare", "--mount")
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may make no mount namespace")
    before = (*unshare, "sh", "-c", READ_ONLY, "sh")
    with running(base, before=before, PYTHONDONTWRITEBYTECODE="1", HOME=str(base)) as server:
        server.wait_ready()
        assert server.invoke(photo("blue"))[1]["predictions"][0]["label"] == "blue"
        assert server.log.startswith("model ")
