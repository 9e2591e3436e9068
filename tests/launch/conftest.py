"""Folders of small files that stand for photos (nothing here decodes one), and commands run as a user runs them."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HYMENOPTERA = REPOSITORY.parent / "shared" / "data" / "hymenoptera"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[[dict[str, int]], Path]:
    """Writes `{"train/ants": 5}` as five files of different bytes, and returns the folder above them all."""

    def write(folders: dict[str, int]) -> Path:
        root = tmp_path / "photos"
        for name, count in folders.items():
            (root / name).mkdir(parents=True)
            for i in range(count):
                (root / name / f"{i}.jpg").write_text(f"{name} {i}")
        return root

    return write


@pytest.fixture
def hymenoptera() -> Path:
    if not HYMENOPTERA.is_dir():
        pytest.skip("shared/data/hymenoptera is not beside this checkout")
    return HYMENOPTERA


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `python -m kennel_launch.<name>` in an empty folder, as the Makefile does."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()

    def run(name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        sources = os.pathsep.join(str(REPOSITORY / folder) for folder in ("scripts", "container"))
        return subprocess.run(
            [sys.executable, "-m", f"kennel_launch.{name}", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": sources, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """The loopback port of a real HTTP server that answers by `handler`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def dead_port() -> int:
    """A loopback port that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
