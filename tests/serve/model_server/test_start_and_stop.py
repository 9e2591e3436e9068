"""Starts that must fail, ends that must be clean, and parts that are killed."""

import contextlib
import json
import os
import signal
import socket
import time

import numpy as np
import pytest

from kennel.layout import MANIFEST, ONNX


def refuses(server, *words):
    """The server ends by itself with one sentence, and nothing of it stays."""
    assert server.wait_exit() == 1
    lines = server.log.splitlines()
    assert len(lines) == 1, server.log
    assert lines[0].startswith("serve: ")
    for word in words:
        assert word in lines[0]
    assert server.left_behind() == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SAGEMAKER_BIND_TO_PORT": "http"}, ["SAGEMAKER_BIND_TO_PORT='http'", "65535"]),
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "0"}, ["SAGEMAKER_MODEL_SERVER_WORKERS='0'"]),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "soon"}, ["SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS='soon'"]),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "-1"}, ["SAGEMAKER_MAX_PAYLOAD_IN_MB='-1'"]),
        ({"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "image/png"}, ["SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "json"]),
    ],
)
def test_a_bad_setting(base, running, settings, words):
    with running(base, **settings) as server:
        refuses(server, *words)


def test_a_temporary_folder_too_long_for_sockets(base, running):
    deep = base / ("x" * 90)
    deep.mkdir()
    with running(base, TMPDIR=str(deep)) as server:
        refuses(server, "TMPDIR=", "too long")


def test_a_port_in_use(base, running):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with running(base, SAGEMAKER_BIND_TO_PORT=port) as server:
            refuses(server, port, "SAGEMAKER_BIND_TO_PORT")


def change_bytes(model, sign):
    (model / ONNX).write_bytes((model / ONNX).read_bytes() + b"x")


def sign_garbage(model, sign):
    (model / ONNX).write_bytes(b"garbage")
    sign(model)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda model, sign: (model / MANIFEST).unlink(), ["no Kennel model", MANIFEST]),
        (lambda model, sign: (model / MANIFEST).write_text("{"), [MANIFEST, "damaged"]),
        (lambda model, sign: (model / ONNX).unlink(), [ONNX, "missing"]),
        (change_bytes, [ONNX, "hash"]),
        (sign_garbage, [ONNX, "cannot be loaded"]),
    ],
)
def test_a_damaged_model(base, running, sign, damage, words):
    damage(base / "model", sign)
    with running(base) as server:
        refuses(server, *words)


def test_a_model_that_cannot_predict(tmp_path, running, write_model):
    write_model(tmp_path / "model", np.eye(3, 5, dtype=np.float32))
    with running(tmp_path) as server:
        refuses(server, "(1, 5), not (1, 3)")


def test_a_java_that_cannot_start(base, running):
    with running(base, SAGEMAKER_MODEL_SERVER_VMARGS="-Xmx1m") as server:
        assert server.wait_exit() == 1
        assert "serve: the model server ended before it answered: " in server.log
        assert "Too small maximum heap" in server.log
        assert server.left_behind() == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_while_starting(base, running, until, signum):
    with running(base) as server:
        until(lambda: any(server.tmp.glob("kennel-*/config.properties")), server)
        server.process.send_signal(signum)
        assert server.wait_exit() == 0
        assert server.left_behind() == []


def test_a_kill_leaves_nothing(base, running, until):
    with running(base) as server:
        server.wait_ready()
        server.process.kill()
        until(lambda: not server.left_behind(), server)


@pytest.mark.parametrize("limits", ["ulimit -Sn 300", "ulimit -n 300"])
def test_more_idle_clients_than_descriptors(base, running, photo, limits):
    with running(base, ("sh", "-c", f'{limits}; exec "$@"', "sh")) as server, contextlib.ExitStack() as held:
        server.wait_ready()
        for _ in range(400):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
        time.sleep(1)  # for the watch to look
        assert server.ping() == 200
        assert server.invoke(photo())[0] == 200
        assert server.process.poll() is None


def test_sigterm_lets_a_request_finish(base, running, until, photo):
    body = photo("blue")
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with running(base) as server:
        server.wait_ready()
        with socket.create_connection(("127.0.0.1", server.port), 60) as client:
            client.sendall(head.encode())
            assert client.recv(100).startswith(b"HTTP/1.1 100")  # the server works on it
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.ping() is None, server)
            client.sendall(body)
            answer = b"".join(iter(lambda: client.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"][0]["label"] == "blue"
        assert server.wait_exit() == 0
        assert server.left_behind() == []


def test_a_second_endpoint_on_the_machine(endpoint, base, running, photo):
    """With a process file left in the temporary folder, and without touching the model folder."""
    before = {path.name: path.stat().st_mtime_ns for path in (base / "model").iterdir()}
    with running(base) as server:
        (server.tmp / ".model_server.pid").write_text(str(os.getpid()))
        server.wait_ready()
        assert server.invoke(photo())[0] == endpoint.invoke(photo())[0] == 200
        after = {path.name: path.stat().st_mtime_ns for path in (base / "model").iterdir()}
    assert before == after
    assert endpoint.ping() == 200


def test_java_killed(base, running):
    with running(base) as server:
        server.wait_ready()
        next(p for p in server.family() if p.name() == "java").kill()
        assert server.wait_exit() == 1
        assert "serve: the model server ended by itself" in server.log
        assert server.left_behind() == []


def test_workers_killed_come_back_but_not_without_their_parent(base, running, until, photo):
    with running(base) as server:
        server.wait_ready()
        parent, worker = server.scripts()
        worker.kill()
        until(lambda: {p.pid for p in server.scripts()} not in ({parent.pid}, {parent.pid, worker.pid}), server)
        assert server.invoke(photo())[0] == 200
        until(lambda: server.ping() == 200, server)
        for process in server.scripts():
            process.kill()
        until(lambda: server.ping() == 503, server)
        assert server.wait_exit() == 1
        assert "no worker has been alive" in server.log
        assert server.left_behind() == []
