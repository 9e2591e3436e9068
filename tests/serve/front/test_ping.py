"""/ping says what is: workers stopped, slow or killed, on a real server with a short worker timeout."""

import io
import signal
import threading
import time

import pytest
from PIL import Image

TIMEOUT = "10"  # seconds, where an endpoint has 30


@pytest.fixture(scope="module")
def server(running, write_model, tmp_path_factory):
    base = tmp_path_factory.mktemp("health")
    write_model(base / "model")
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": TIMEOUT}
    with running(base, **settings) as started:
        yield started.wait_ready()


def workers(server):
    return server.scripts()[1:]


def test_idle_workers_that_are_stopped_are_noticed_and_replaced(server, until, photo):
    before = workers(server)
    for worker in before:
        worker.send_signal(signal.SIGSTOP)
    assert server.ping() == 200, "they may still be well"
    until(lambda: server.ping() == 503, server)
    until(lambda: server.ping() == 200, server)
    assert server.invoke(photo())[0] == 200
    assert not {worker.pid for worker in before} & {worker.pid for worker in workers(server)}
    assert server.log.count("hangs and is killed") == len(before)
    until(lambda: len(workers(server)) == len(before), server)


def test_a_worker_that_is_stopped_costs_its_own_request_and_no_other(server, until, photo):
    stopped, _ = workers(server)
    stopped.send_signal(signal.SIGSTOP)
    answers = [server.invoke(photo())[0] for _ in range(6)]  # MMS may hand it one, which fails in time
    assert answers.count(200) >= 5
    assert set(answers) <= {200, 500}
    assert server.ping() == 200
    until(lambda: stopped.pid not in {w.pid for w in workers(server)} and len(workers(server)) == 2, server)


def test_slow_photos_are_no_hung_workers(server):
    file = io.BytesIO()
    Image.new("RGBA", (5000, 5000), (200, 0, 0, 90)).save(file, "PNG", compress_level=1)
    answers = []

    def ask():
        answers.extend(server.invoke(file.getvalue(), "image/png")[0] for _ in range(2))

    threads = [threading.Thread(target=ask) for _ in workers(server)]
    said = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        said.append(server.ping())
        time.sleep(0.02)
    assert set(said) == set(answers) == {200}
    assert len(said) > 10, "the photos were not slow"
    assert "no worker" not in server.log.rpartition("hangs and is killed")[2]


def test_dead_workers_are_noticed_at_once(server, until, photo):
    for worker in workers(server):
        worker.send_signal(signal.SIGKILL)
    until(lambda: server.ping() == 503, server)
    until(lambda: server.ping() == 200, server)
    assert server.invoke(photo())[0] == 200


def test_java_that_hangs_ends_the_server(base, running, until, photo):
    with running(base) as server:
        server.wait_ready()
        next(p for p in server.family() if p.name() == "java").send_signal(signal.SIGSTOP)
        status, answer, headers = server.request("POST", "/invocations", photo(), {"Content-Type": "image/jpeg"})
        assert (status, headers["Retry-After"]) == (503, "1")
        assert b"the model server does not answer" in answer
        until(lambda: server.ping() == 503, server)
        assert b"the model server does not answer" in server.request("GET", "/ping")[1]
        assert server.wait_exit() == 1
        assert "serve: the model server does not answer for" in server.log
        assert server.left_behind() == []


@pytest.mark.parametrize(
    ("signum", "how"),
    [
        (signal.SIGKILL, "SIGKILL, most likely of the kernel's out-of-memory killer"),
        (signal.SIGSEGV, "SIGSEGV (Segmentation fault), of its own code or a library's"),
    ],
)
def test_a_worker_that_dies_is_in_the_log_with_the_signal(server, until, signum, how):
    oldest = min(workers(server), key=lambda worker: worker.create_time())  # another may still be starting
    oldest.send_signal(signum)
    until(lambda: f"worker {oldest.pid} died while it was idle: {how}" in server.log, server)
    until(lambda: server.ping() == 200 and len(workers(server)) == 2, server)
