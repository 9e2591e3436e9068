"""The HTTP client, the table and result.json, against a real HTTP server that answers as an endpoint can."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from rich.console import Console

from kennel.errors import UserError
from kennel_launch.machine import http_probe
from kennel_launch.machine.opt_ml import Photo
from kennel_launch.make import results

from ..conftest import serving

ANSWER = {"predictions": [{"label": "ants", "probability": 0.9}, {"label": "bees", "probability": 0.1}]}


class Handler(BaseHTTPRequestHandler):
    """Answers what the photo's bytes ask for: `400`, `500`, `html`; ants, otherwise."""

    pings = 0
    types: list[str] = []  # noqa: RUF012 # one server at a time

    def do_GET(self) -> None:
        Handler.pings += 1
        self.answer(200 if Handler.pings > 2 else 503, b"")

    def do_POST(self) -> None:
        Handler.types.append(self.headers["Content-Type"])
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        body = b"<html>" if asked == "html" else json.dumps(ANSWER).encode()
        self.answer(int(asked) if asked.isdigit() else 200, body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Handler.pings, Handler.types = 0, []
    with serving(Handler) as port:
        yield port


def test_waits_while_the_server_is_not_healthy(port: int, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        http_probe.wait_until_healthy(port, process, lambda: None, tmp_path / "log")
    assert Handler.pings == 3


def test_a_server_that_ends_is_not_waited_for(dead_port: int, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    with process, pytest.raises(UserError, match="exit code 7"):
        http_probe.wait_until_healthy(dead_port, process, lambda: None, tmp_path / "log")


@pytest.mark.parametrize(
    ("name", "kind"), [("a.JPG", "image/jpeg"), ("a.png", "image/png"), ("a.bmp", "application/x-image")]
)
def test_a_photo_is_sent_with_its_type(port: int, tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_text("bytes")
    guesses = http_probe.classify(port, tmp_path / name, tmp_path / "log")
    assert guesses == [http_probe.Guess("ants", 0.9), http_probe.Guess("bees", 0.1)]
    assert Handler.types == [kind]


@pytest.mark.parametrize(
    ("asked", "error"), [("400", http_probe.RefusedPhotoError), ("500", UserError), ("html", UserError)]
)
def test_bad_answers(port: int, tmp_path: Path, asked: str, error: type[Exception]) -> None:
    (tmp_path / "a.jpg").write_text(asked)
    with pytest.raises(error):
        http_probe.classify(port, tmp_path / "a.jpg", tmp_path / "log")


def test_no_answer_at_all(dead_port: int, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("x")
    with pytest.raises(UserError, match="did not answer"):
        http_probe.classify(dead_port, tmp_path / "a.jpg", tmp_path / "log")


def found(right: int, wrong: int) -> results.Results:
    guesses = [http_probe.Guess("ants", 0.75), http_probe.Guess("bees", 0.25)]
    truths = ["ants"] * right + ["bees"] * wrong
    photos = [Photo(Path(f"photos/{truth}/{i}.jpg"), truth) for i, truth in enumerate(truths)]
    return results.Results([results.DemoPrediction(photo, guesses) for photo in photos], [(photos[0], "400: torn")])


def test_the_table_shows_the_wrong_ones_and_ends_with_the_accuracy(tmp_path: Path) -> None:
    console = Console(width=100, record=True, quiet=False)
    results.show(found(right=30, wrong=2), console, tmp_path / "result.json")
    lines = console.export_text().splitlines()
    assert lines[-1] == "test accuracy: 0.938"
    assert sum(line.startswith("test accuracy:") for line in lines) == 1
    assert "✗" in lines[3]
    assert "✗" in lines[4]
    assert sum("ants 0.75" in line for line in lines) == 20
    assert any(line.startswith("12 more photos are in") for line in lines)
    assert any("torn" in line for line in lines)


def test_result_json(tmp_path: Path) -> None:
    results.write(found(right=3, wrong=1), {"train": 1.5}, tmp_path / "result.json")
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["test_accuracy"] == 0.75
    assert written["seconds"] == {"train": 1.5}
    assert written["predictions"][3] == {
        "photo": "photos/bees/3.jpg",
        "truth": "bees",
        "top": [{"label": "ants", "probability": 0.75}, {"label": "bees", "probability": 0.25}],
    }
