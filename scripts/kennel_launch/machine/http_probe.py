"""A running endpoint from outside, over HTTP only: wait until it is healthy, ask it for a photo's class."""

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.errors import UserError

START_LIMIT = 480.0  # seconds: SageMaker gives an endpoint eight minutes
ANSWER_LIMIT = 60.0
_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
_ANY_PHOTO = "application/x-image"


@dataclass(frozen=True)
class Guess:
    label: str
    probability: float


def guesses(answer: Any) -> list[Guess]:
    """Those of one photo's answer, `{"predictions": [{"label": ..., "probability": ...}]}`.

    Raises:
        ValueError, KeyError, TypeError: it has another form.
    """
    return [Guess(str(row["label"]), float(row["probability"])) for row in answer["predictions"]]


class RefusedPhotoError(Exception):
    """The endpoint answered 4xx: it works, this photo does not."""


class EndedError(UserError):
    """The server ended before it was healthy, or is not healthy in time."""


def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until_healthy(port: int, process: subprocess.Popen[bytes], tick: Callable[[], None], log: Path) -> None:
    """Until /ping answers 200.

    Raises:
        EndedError: the server ended, or is not healthy in time.
    """
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EndedError(f"the server ended with exit code {process.returncode} before it was healthy: see {log}")
        try:
            if request(port, "GET", "/ping", limit=2.0)[0] == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        tick()
        time.sleep(0.2)
    raise EndedError(f"the server is not healthy after {START_LIMIT:.0f} s: see {log}")


def classify(port: int, photo: Path, log: Path) -> list[Guess]:
    """The endpoint's classes for one photo, most probable first.

    Raises:
        RefusedPhotoError: the photo is not readable, too large, or of an unknown format.
        UserError: the endpoint failed.
    """
    kind = _TYPES.get(photo.suffix.lower(), _ANY_PHOTO)
    try:
        status, body = request(port, "POST", "/invocations", photo.read_bytes(), {"Content-Type": kind})
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"the endpoint did not answer for {photo} ({error or type(error).__name__}): see {log}"
        ) from error
    text = body.decode(errors="replace")
    if 400 <= status < 500:
        raise RefusedPhotoError(f"{status}: {text[:300]}")
    try:
        if status != http.HTTPStatus.OK:
            raise ValueError(text)
        return guesses(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"the endpoint answered {status} for {photo} ({text[:200]}): see {log}") from error


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    limit: float = 0.0,
) -> tuple[int, bytes]:
    """(status, body) of one request on loopback; the limit in seconds.

    Raises:
        OSError, http.client.HTTPException: no answer, or none in time.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit or ANSWER_LIMIT)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
