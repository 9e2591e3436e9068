"""A real MLflow server, once a session; what is asked of it goes by its REST API, as any client's does."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MLFLOW = Path(__file__).resolve().parents[3] / "build" / "venv-sdk-v3" / "bin" / "mlflow"


@dataclass
class Server:
    """One that runs."""

    uri: str

    def ask(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """GET without a body, POST with one."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{call}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self, experiment: str) -> list["Run"]:
        """All of an experiment, the oldest first."""
        (row,) = self.ask(f"experiments/get-by-name?experiment_name={experiment}").values()
        asked = {"experiment_ids": [row["experiment_id"]], "order_by": ["attributes.start_time ASC"]}
        return [Run(self, one) for one in self.ask("runs/search", asked).get("runs", [])]


@dataclass
class Run:
    """One run, as the server tells it."""

    server: Server
    row: dict[str, Any]

    @property
    def id(self) -> str:
        return self.row["info"]["run_id"]

    @property
    def status(self) -> str:
        return self.row["info"]["status"]

    @property
    def params(self) -> dict[str, str]:
        return {one["key"]: one["value"] for one in self.row["data"].get("params", [])}

    @property
    def tags(self) -> dict[str, str]:
        return {one["key"]: one["value"] for one in self.row["data"].get("tags", [])}

    @property
    def metrics(self) -> dict[str, float]:
        """The last values."""
        return {one["key"]: one["value"] for one in self.row["data"].get("metrics", [])}

    def history(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) of all that was sent, by step."""
        asked = f"metrics/get-history?run_id={self.id}&metric_key={metric}&max_results=5000"
        return sorted((int(one["step"]), one["value"]) for one in self.server.ask(asked).get("metrics", []))

    def files(self, folder: str = "") -> set[str]:
        rows = self.server.ask(f"artifacts/list?run_id={self.id}&path={folder}").get("files", [])
        return {one["path"] for one in rows}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not MLFLOW.exists():
        pytest.skip(f"there is no {MLFLOW}: make build/venv-sdk-v3/.ready")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", folder / "files"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    found = Server(f"http://127.0.0.1:{port}")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=os.environ | quiet, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        _until_it_answers(found, process, folder / "log")
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until_it_answers(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{server.uri}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())
