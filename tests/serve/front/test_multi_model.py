"""Multi-model endpoints by SageMaker's contract: models come and go in one running server."""

import json
import os
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import psutil
import pytest

from kennel.artifact import read_manifest, write_manifest
from kennel.files import file_hash
from kennel.layout import INT8, ONNX

SECONDS = 10  # a request may take; a model waits as long for its last ones


@pytest.fixture(scope="module")
def many(tmp_path_factory, running):
    """A server without a model."""
    base = tmp_path_factory.mktemp("many")
    settings = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": str(SECONDS)}
    with running(base, **settings) as server:
        while server.ping() != 200:
            assert server.process.poll() is None, server.log
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_model):
    """One that holds an unpacked model."""
    return write_model(tmp_path_factory.mktemp("models") / "0123" / "model")


@pytest.fixture
def call(many):
    def call(method, path, row=None, body=b"", **headers):
        data = json.dumps(row).encode() if row is not None else body
        status, answer, got = many.request(method, path, data, headers)
        assert got["Content-Type"] == "application/json"
        return status, json.loads(answer)

    return call


@pytest.fixture
def loaded(call, folder):
    """Load a model; all are unloaded at the end."""

    def load(name, url=folder):
        assert call("POST", "/models", {"model_name": name, "url": str(url)}) == (200, {})
        return "/models/" + quote(name, safe="")

    yield load
    for row in call("GET", "/models")[1]["models"]:
        assert call("DELETE", "/models/" + quote(row["modelName"], safe=""))[0] == 200


@pytest.mark.parametrize(
    "name", ["0a1b2c", "a/b.tar.gz", "../../etc", "..", "100% & ?#%2F", "fünf\nZeilen", "x" * 900, "model", "-rf"]
)
def test_a_models_life_whatever_its_name(many, call, folder, loaded, photo, name):
    path = loaded(name)
    row = {"modelName": name, "modelUrl": str(folder)}
    assert call("GET", "/models") == (200, {"models": [row]})
    assert call("GET", path) == (200, row)
    status, answer = call("POST", f"{path}/invoke", body=photo("blue"))
    assert (status, answer["predictions"][0]["label"]) == (200, "blue")
    assert len(many.scripts()) == 2  # the worker and its parent
    assert call("DELETE", path) == (200, {})
    assert many.scripts() == []
    assert not any(many.tmp.glob("kennel-*/model-*"))
    for method, gone in (("GET", path), ("DELETE", path), ("POST", f"{path}/invoke")):
        status, answer = call(method, gone, body=photo())
        assert (status, "is not loaded" in answer["error"]) == (404, True)
    assert call("GET", "/models") == (200, {"models": []})
    assert many.ping() == 200


def test_each_answers_for_itself(many, call, loaded, write_model, tmp_path, photo):
    """One says blue where the other says red, one has int8; what happens to one is nothing to the others."""
    swapped = write_model(tmp_path / "swapped", np.eye(3, dtype=np.float32)[::-1] * 0.05)
    small = write_model(tmp_path / "small")
    shutil.copy(small / ONNX, small / INT8)
    manifest = read_manifest(small)
    write_manifest(small, replace(manifest, files={**manifest.files, INT8: file_hash(small / INT8)}))
    right, wrong, int8 = loaded("right"), loaded("wrong", swapped), loaded("int8", small)
    labels = []
    for path in (right, wrong, int8):
        status, answer = call("POST", f"{path}/invoke", body=photo("red"), Accept="application/json")
        assert status == 200
        labels.append(answer["predictions"][0]["label"])
    assert labels == ["red", "blue", "red"]
    said = [line for line in many.log.splitlines() if line.startswith("model ")]
    assert ["int8" in line.split("engine ")[1] for line in said[-3:]] == [False, False, True]
    assert call("DELETE", wrong)[0] == 200
    assert call("POST", f"{right}/invoke", body=photo("red"))[0] == 200
    assert call("POST", f"{int8}/invoke", body=b"no photo")[0] == 400


def test_pages(call, loaded):
    for name in ("b", "c&d", "a"):
        loaded(name)
    status, page = call("GET", "/models?limit=2")
    assert (status, [row["modelName"] for row in page["models"]]) == (200, ["a", "b"])
    status, rest = call("GET", f"/models?limit=2&next_page_token={quote(page['nextPageToken'])}")
    assert (status, [row["modelName"] for row in rest["models"]]) == (200, ["c&d"])
    assert "nextPageToken" not in rest


@pytest.mark.parametrize(
    ("row", "status", "word"),
    [
        ({"model_name": "m", "url": "/nowhere"}, 404, "'/nowhere' is no folder"),
        ({"model_name": "m", "url": "\0"}, 404, "is no folder"),
        ({"model_name": "m", "url": "x" * 5000}, 404, "is no folder"),
        ({"model_name": "m", "url": "/etc/ssl"}, 400, "/etc/ssl"),
        ({"model_name": "", "url": "/var"}, 400, "model_name"),
        ({"model_name": 7, "url": "/var"}, 400, "model_name"),
        (["m"], 400, "model_name"),
    ],
)
def test_what_cannot_be_loaded(many, call, row, status, word):
    code, answer = call("POST", "/models", row)
    assert (code, word in answer["error"]) == (status, True)
    assert call("GET", "/models")[1] == {"models": []}
    assert many.scripts() == []


def test_a_model_that_cannot_predict(call, write_model, tmp_path):
    broken = write_model(tmp_path / "model", np.eye(3, 5, dtype=np.float32))
    status, answer = call("POST", "/models", {"model_name": "m", "url": str(broken)})
    assert (status, "(1, 5), not (1, 3)" in answer["error"]) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/invocations", 404),
        ("PUT", "/models", 405),
        ("GET", "/models?limit=no", 400),
        ("GET", "/models/", 404),
    ],
)
def test_other_paths(call, method, path, status):
    code, answer = call(method, path, body=b"x")
    assert (code, list(answer)) == (status, ["error"])


def test_the_same_name_twice_at_once(call, loaded, folder):
    row = {"model_name": "twice", "url": str(folder)}
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: call("POST", "/models", row)[0], range(3)))
    assert sorted(answers) == [200, 409, 409]
    assert call("POST", "/models", row)[0] == 409


def _started(many, path, body):
    """A request that the server works on, as long as its body has not arrived."""
    client = socket.create_connection(("127.0.0.1", many.port), 60)
    head = f"POST {path}/invoke HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n"
    client.sendall(f"{head}Connection: close\r\n\r\n".encode())
    assert client.recv(100).startswith(b"HTTP/1.1 100")
    return client


def test_unloaded_while_it_is_asked(many, call, loaded, photo, until):
    """The request in flight is answered; one that never ends is refused; no new one begins."""
    for body, answer in ((photo(), b"HTTP/1.1 200"), (b"", b"HTTP/1.1 503")):
        path = loaded("asked")
        with _started(many, path, photo()) as client, ThreadPoolExecutor() as pool:
            ended = pool.submit(call, "DELETE", path)
            until(lambda path=path: call("GET", path)[0] == 404, many)
            assert not ended.done()
            client.sendall(body)
            assert client.recv(100).startswith(answer)
            assert ended.result() == (200, {})
        assert many.scripts() == []


def test_a_worker_that_hangs_is_gone_with_its_model(many, call, loaded):
    path = loaded("hung")
    many.scripts()[-1].send_signal(signal.SIGSTOP)
    assert call("DELETE", path) == (200, {})
    assert many.scripts() == []


def test_unloaded_under_load(many, call, loaded, photo):
    path = loaded("busy")
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(call, "POST", f"{path}/invoke", body=photo()) for _ in range(60)]
        asked[10].result()
        assert call("DELETE", path)[0] == 200
        answers = {future.result()[0] for future in asked}
    assert 200 in answers
    assert answers <= {200, 404, 503}
    assert many.scripts() == []


def test_a_model_that_lost_its_workers_is_loaded_anew(many, call, loaded, photo, until):
    other, path = loaded("other"), None
    before = many.scripts()
    path = loaded("lost")
    for process in many.scripts():
        if process not in before:
            process.kill()
    until(lambda: call("POST", f"{path}/invoke", body=photo())[0] == 503, many)
    assert call("POST", f"{other}/invoke", body=photo())[0] == 200
    assert many.ping() == 200
    until(lambda: call("POST", f"{path}/invoke", body=photo())[0] == 200, many)
    assert "'lost' has had no worker for" in many.log
    assert len(many.scripts()) == 4


def test_without_memory_it_says_so_and_java_is_not_survived(tmp_path, running, write_model, sign):
    """As many workers as may be asked for do not fit; the file is large, but takes no place on the disk."""
    url = write_model(tmp_path / "large")
    os.truncate(url / ONNX, 500 << 20)
    sign(url)
    if psutil.virtual_memory().total > 300 << 30:
        pytest.skip("this machine could hold 256 such workers")
    with running(tmp_path, SAGEMAKER_MULTI_MODEL="true", SAGEMAKER_MODEL_SERVER_WORKERS="256") as server:
        while server.ping() != 200:
            assert server.process.poll() is None, server.log
        body = json.dumps({"model_name": "large", "url": str(url)}).encode()
        for _ in range(2):  # the first does not keep what it did not get
            status, answer, _ = server.request("POST", "/models", body)
            assert (status, "MB are free: unload another" in json.loads(answer)["error"]) == (507, True)
        next(p for p in server.family() if p.name() == "java").send_signal(signal.SIGKILL)
        assert server.wait_exit() == 1
        assert "serve: the model server ended by itself" in server.log
        assert server.left_behind() == []
