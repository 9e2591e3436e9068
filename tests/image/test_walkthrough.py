"""The notebook in local mode: a search, a training, an endpoint and its answer by the image, without AWS."""

import socket
import subprocess
from pathlib import Path

import pytest

from kennel_launch.machine import http_probe
from kennel_launch.make import samples

from ..walkthrough import executed, on_path, zipped
from .conftest import Docker


def test_the_notebook_names_the_breed_of_a_photo_and_leaves_nothing_running(
    docker: Docker, image: str, tmp_path: Path
) -> None:
    zipped(tmp_path / "dogImages.zip")
    port, path = http_probe.free_port(), on_path(tmp_path)
    environ = {"LOCAL": "1", "BACKBONE": samples.BACKBONE, "PRETRAINED": str(samples.weights()), "PORT": str(port)}
    try:
        shown = executed(tmp_path, environ | {"IMAGE": image, "PATH": path})
    finally:  # where a cell failed before the last one
        command = [tmp_path / "bin" / "kennel", "delete", "--local", "--out", "build/walkthrough/train"]
        left = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert left.returncode == 2, left.stdout
    assert str(tmp_path) not in docker("ps", "-a", "--no-trunc", "--format", "{{.Mounts}}").stdout
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    rate, size = shown["best"].removeprefix("found: learning_rate=").strip().split(" batch_size=")
    assert f" batch_size={size} learning_rate={rate} " in shown["train"]
    assert f"backbone: {samples.BACKBONE} (timm), weights: " in shown["train"]
    assert "Kennel training report" in shown["report"]
    assert shown["ask"].endswith("001.Affenpinscher: 001.Affenpinscher\n")
