"""Endpoints of the image: the model that training left, mounted read-only, answers; SIGTERM ends it in order."""

from collections.abc import Callable
from pathlib import Path

import pytest

CLASSES = ("blue", "green", "red")


@pytest.mark.parametrize(
    "options",
    [[], ["--user", "1000:1000"], ["--read-only", "--tmpfs", "/tmp"]],
    ids=["root", "unprivileged", "read-only"],
)
def test_a_trained_model_knows_its_photos(model: Path, serve: Callable, photos: Path, options: list[str]) -> None:
    with serve(model, *options) as endpoint:
        for label in CLASSES:
            status, answer = endpoint.invoke((photos / label / "0.jpg").read_bytes())
            assert status == 200
            assert answer["predictions"][0]["label"] == label
            assert {row["label"] for row in answer["predictions"]} == set(CLASSES)


def test_a_bad_photo_is_the_clients_mistake(model: Path, serve: Callable) -> None:
    with serve(model) as endpoint:
        status, answer = endpoint.invoke(b"no photo")
        assert status == 400
        assert "not a readable photo" in answer["error"]


def test_a_stopped_endpoint_ends_in_order(model: Path, serve: Callable, docker: Callable) -> None:
    with serve(model) as endpoint:
        docker("stop", "--time", "30", endpoint.container)
        assert docker("wait", endpoint.container).stdout.strip() == "0"


def test_an_endpoint_without_a_model_says_so(docker: Callable, image: str, tmp_path: Path) -> None:
    ended = docker("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/opt/ml/model:ro", image, "serve")
    assert ended.returncode == 1
    assert "manifest.json is missing" in ended.stderr
