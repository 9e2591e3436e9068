"""The log of a container whose reader has stopped reading: nothing waits for it, and what is lost is counted."""

import fcntl
import os
import signal
import subprocess
import sys
from subprocess import PIPE

import pytest

# Writes a line after each photo that is longer than any pipe, as a library that warns does.
PROGRAM = """
import sys

def model_fn(folder):
    return None

def transform_fn(model, body, kind, accept):
    sys.stderr.write("warning " * 20_000 + "\\n")
    sys.stdout.write("note " * 20_000 + "\\n")
    return "well", "text/plain"
"""
WRITER = """
import sys
from kennel_serve import log

with log.unblocked():
    for number in range({lines}):
        print(f"line {{number:060}}")
    sys.stdout.flush()
    sys.stderr.write("the end\\n")
    sys.stdin.read()
print("after it")
"""


@pytest.fixture
def unread(tmp_path):
    """A pipe by its name, open for reading, of one page."""
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    yield path
    os.close(reader)


def test_a_log_that_is_not_read_stops_nothing(tmp_path, running, unread):
    base = tmp_path / "base"
    (base / "model" / "code").mkdir(parents=True)
    (base / "model" / "code" / "inference.py").write_text(PROGRAM)
    with running(base, ("sh", "-c", f'exec "$@" >{unread} 2>&1', "sh")) as server:
        server.before, server.first = [], 0
        while server.ping() != 200:
            assert server.process.poll() is None
        assert {server.request("GET", "/nothing")[0] for _ in range(450)} == {404}
        for _ in range(3):
            status, answer, _ = server.request("POST", "/invocations", b"x")
            assert (status, answer) == (200, b"well")
        assert server.ping() == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert server.left_behind() == []


def test_what_is_dropped_is_counted():
    program = [sys.executable, "-c", WRITER.format(lines=150_000)]
    with subprocess.Popen(program, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stderr.readline() == "the end\n"  # all is written, and nothing was read
        process.stdin.close()
        *kept, said, last = process.stdout.readlines()
    assert kept == [f"line {number:060}\n" for number in range(len(kept))]
    assert said == f"{150_000 - len(kept)} lines of the log were dropped: its reader did not keep up\n"
    assert last == "after it\n"


@pytest.mark.parametrize("same", [True, False])
def test_a_reader_that_reads_gets_every_line_in_order(same):
    program = [sys.executable, "-c", WRITER.format(lines=2_000)]
    other = subprocess.STDOUT if same else PIPE
    done = subprocess.run(program, input="", stdout=PIPE, stderr=other, text=True, check=True)
    lines = [f"line {number:060}" for number in range(2_000)]
    assert done.stdout.splitlines() == [*lines, *(["the end"] if same else []), "after it"]
    assert done.stderr == (None if same else "the end\n")
