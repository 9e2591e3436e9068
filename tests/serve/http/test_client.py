"""Connections to the model server that are kept: one that is closed just as it is used again costs no request."""

import asyncio
import tempfile
from pathlib import Path

import pytest

from kennel_serve.http.client import Backend

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HUNG_UP = "hung up"


def ask(*script: list[bytes]) -> tuple[list[str], int]:
    """What two requests get from a server whose nth connection answers as the nth list says, then closes; and how many
    requests it saw."""
    connections, seen = iter(script), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        for answer in next(connections):
            await reader.readuntil(b"\r\n\r\n")
            seen += 1
            writer.write(answer)
        writer.close()

    async def run() -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "s")
            server, backend, answers = await asyncio.start_unix_server(serve, path), Backend(path), []
            for _ in range(2):
                try:
                    answers.append((await backend.ask("GET", "/models", 5)).body.decode())
                except ConnectionResetError:
                    answers.append(HUNG_UP)
            backend.close()
            server.close()
            return answers

    return asyncio.run(run()), seen


@pytest.mark.parametrize(
    ("script", "answers", "seen"),
    [
        ([[ANSWER, b""], [ANSWER]], ["ok", "ok"], 3),  # a kept one: asked once more on a new one
        ([[ANSWER, b""], [b""]], ["ok", HUNG_UP], 3),  # and no more than once
        ([[ANSWER, ANSWER[:20]], [ANSWER]], ["ok", HUNG_UP], 2),  # something of the answer was heard
        ([[b""], [ANSWER]], [HUNG_UP, "ok"], 2),  # a new one is not asked again
    ],
)
def test_a_kept_connection_that_is_closed_is_retried_once(script, answers, seen):
    assert ask(*script) == (answers, seen)
