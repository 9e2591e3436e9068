"""A user's own script in the image as SageMaker runs it: its failure file, its end by `docker stop`, whose files."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE = 120
SAVES = """
import os, pathlib, signal, sys, time
def leave(*_):
    pathlib.Path(os.environ["SM_MODEL_DIR"], "saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("epoch=1 ready")
time.sleep(600)
"""


def send(base: Path, program: str, files: dict[str, str], **hyperparameters: str) -> Path:
    """Put a user's files where the platform unpacks source_dir, as the mounted folder's owner."""
    code = base / "code"
    code.mkdir()
    for name, body in files.items():
        (code / name).write_text(body)
    path = base / "input/config/hyperparameters.json"
    sent = {"sagemaker_program": json.dumps(program), "sagemaker_submit_directory": '"/opt/ml/code"'}
    path.write_text(json.dumps({**sent, **hyperparameters}))
    if os.geteuid() == 0:
        for made in (code, *code.rglob("*"), path):
            os.chown(made, base.stat().st_uid, base.stat().st_gid)
    return base


@pytest.mark.parametrize(
    ("program", "body", "first"),
    [
        (
            "mine.py",
            "import torch\ndef main():\n    torch.zeros(2) + torch.zeros(3)\nmain()\n",
            "mine.py failed: RuntimeError: The size of tensor a (2) must match the size of tensor b (3)",
        ),
        ("mine.sh", "#!/bin/bash\npython nothing.py\n", "mine.sh failed: it ended with exit code 2; its last line on "),
    ],
)
def test_a_failed_script_leaves_its_cause(
    prepare: Callable, train: Callable, strangers: Callable, program: str, body: str, first: str
) -> None:
    base = send(prepare(), program, {program: body}, depth="3")
    ended = train(base, "--rm")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    said = (base / "output/failure").read_text().splitlines()
    assert said[0].startswith(first)
    if program == "mine.py":
        assert said[0].endswith("(mine.py:3, in main)")
        assert said[2] == "Traceback (most recent call last):"
    assert strangers(base) == []


@pytest.mark.parametrize("launcher", ["python", "shell", "torchrun"])
def test_docker_stop_lets_a_script_save(
    docker: Callable, prepare: Callable, train: Callable, strangers: Callable, launcher: str
) -> None:
    distributed = {"sagemaker_torch_distributed_enabled": "true"} if launcher == "torchrun" else {}
    files = {"mine.py": SAVES, "mine.sh": "#!/bin/bash\npython mine.py\n"}
    base = send(prepare(), "mine.sh" if launcher == "shell" else "mine.py", files, **distributed)
    container = train(base, "-d").stdout.strip()
    try:
        deadline = time.monotonic() + PATIENCE
        while "epoch=1 ready" not in (log := docker("logs", container).stdout):
            assert time.monotonic() < deadline, log
            time.sleep(0.2)
        docker("stop", "--time", "60", container, timeout=90)
        assert int(docker("wait", container).stdout) == 0, docker("logs", container).stdout
        assert (base / "model/saved").exists()
        assert not (base / "output/failure").exists()
        assert strangers(base) == []
    finally:
        docker("rm", "-f", container)
