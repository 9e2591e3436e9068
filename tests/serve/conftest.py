"""A real model folder without torch, and the real `serve` executable around it, on real ports."""

import contextlib
import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import pillow_heif
import psutil
import pytest
from mms.context import Context, RequestProcessor
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from kennel.artifact import Manifest, write_manifest
from kennel.files import file_hash
from kennel.layout import MANIFEST, ONNX, Layout
from kennel.photos.preprocessing import Preprocessing
from kennel_serve import server, settings
from kennel_serve.worker import handler

CLASSES = ("red", "green", "blue")
PREPROCESSING = Preprocessing(image_size=32, resize=36)
SETTLED = 0.2  # seconds without a line, after which a log holds all that was written
PATIENCE = 60  # seconds before a test calls a server hung


def _write_model(folder: Path, weights: np.ndarray | None = None, output: str = "logits") -> Path:
    """A model folder whose answer is the channel that the photo has most of."""
    folder.mkdir(parents=True)
    weights = np.eye(3, dtype=np.float32) * 0.05 if weights is None else weights
    nodes = [
        helper.make_node("Cast", ["photos"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["floats"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("Gemm", ["features", "weights"], [output]),
    ]
    side = PREPROCESSING.image_size
    photos = helper.make_tensor_value_info("photos", TensorProto.UINT8, ["N", 3, side, side])
    logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", weights.shape[1]])
    graph = helper.make_graph(nodes, "test", [photos], [logits], [numpy_helper.from_array(weights, "weights")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / ONNX)
    _sign(folder)
    return folder


def _sign(folder: Path) -> None:
    """A manifest for whatever model.onnx holds."""
    backbone = {"name": "none", "library": "none", "weights": "none"}
    write_manifest(folder, Manifest(CLASSES, PREPROCESSING, backbone, files={ONNX: file_hash(folder / ONNX)}))


def _photo(color: str = "red", format: str = "JPEG", size: tuple[int, int] = (50, 40)) -> bytes:
    file = io.BytesIO()
    image = Image.new("RGB", size, color)
    if format == "HEIF":  # which Pillow itself does not write
        pillow_heif.from_pillow(image).save(file)
    else:
        image.save(file, format)
    return file.getvalue()


@dataclass
class Server:
    """One `serve` process, its log and a client."""

    base: Path
    port: int
    process: subprocess.Popen[bytes]
    tmp: Path
    log_file: Path
    before: list[int | None] = field(default_factory=list)  # what /ping said until its first 200
    first: int = 0  # status of the invocation right after

    @property
    def log(self) -> str:
        """Its lines; those of what was just answered come a moment later."""
        before = -1
        while (size := self.log_file.stat().st_size) != before:
            before = size
            time.sleep(SETTLED)
        return self.log_file.read_text()

    def request(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers

    def invoke(self, body: bytes, content_type: str = "image/jpeg", **headers: str) -> tuple[int, dict]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answer, _ = self.request("POST", "/invocations", body, {"Content-Type": content_type, **names})
        return status, json.loads(answer)

    def ping(self) -> int | None:
        """The status of /ping, None where there is no answer."""
        try:
            return self.request("GET", "/ping")[0]
        except OSError:
            return None

    def wait_ready(self) -> "Server":
        def ready() -> bool:
            assert self.process.poll() is None, self.log
            self.before.append(self.ping())
            return self.before[-1] == 200

        _until(ready, self)
        self.before.pop()
        self.first = self.invoke(_photo())[0]
        return self

    def wait_exit(self) -> int:
        return self.process.wait(PATIENCE)

    def family(self) -> list[psutil.Process]:
        """Every process that belongs to this server, under any parent."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SAGEMAKER_BASE_DIR") == str(self.base):
                    found.append(process)
        return found

    def scripts(self) -> list[psutil.Process]:
        """Python processes of the model server: the workers' parent first, then the workers."""
        found = [p for p in self.family() if any("model_service_worker" in word for word in p.cmdline())]
        pids = {p.pid for p in found}
        return sorted(found, key=lambda p: p.ppid() in pids)

    def left_behind(self) -> list[str]:
        return [p.name() for p in self.family()] + [p.name for p in self.tmp.iterdir() if p.name.startswith("kennel-")]


def _until(reached: Callable[[], bool], server: Server) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end, server.log
        time.sleep(0.05)


def free_port() -> int:
    """One that no client is given by chance: the soak leaves thousands of those waiting for their last packets."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = random.randrange(20000, 32000)
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def _running(base: Path, before: tuple[str, ...] = (), **settings: str) -> Iterator[Server]:
    """A `serve` process, killed with all that belongs to it at the end; `before` are words that run it."""
    tmp = Path(tempfile.mkdtemp())  # short, as TMPDIR has to be
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SAGEMAKER_")}
    chosen = {
        "SAGEMAKER_BASE_DIR": str(base),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
        "TMPDIR": str(tmp),
    }
    with (tmp / "log").open("wb") as log:
        process = subprocess.Popen(
            [*before, Path(sys.executable).parent / "serve"],
            env={**clean, **chosen, **settings},
            stdout=log,
            stderr=log,
        )
    server = Server(base, port, process, tmp, tmp / "log")
    try:
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()
        for left in server.family():
            with contextlib.suppress(psutil.Error):
                left.kill()
        shutil.rmtree(tmp)


def _ask(context: Context, *requests: tuple[bytes, dict[str, str]]) -> list[tuple[int, bytes, str]]:
    """(status, body, content type) of each (body, headers) of one batch."""
    context.request_processor = [RequestProcessor(headers) for _, headers in requests]
    answers = handler.handle([{"body": bytearray(body)} for body, _ in requests], context)
    return [
        (context.get_response_status(i)[0], answer, context.get_response_content_type(i))
        for i, answer in enumerate(answers)
    ]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base folder with a model of its own."""
    _write_model(tmp_path / "model")
    return tmp_path


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a worker's imports change for good."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def worker(clean: None, base: Path) -> Callable[..., Context]:
    """A function that loads code as a worker does, in our own model's folder or in one without a manifest."""
    model, private = base / "model", base / "private"

    def load(code: str, own_model: bool = False, **files: str) -> Context:
        (model / "code").mkdir()
        for name, text in {"inference": code, **files}.items():
            (model / "code" / f"{name}.py").write_text(text)
        if own_model:
            (model / MANIFEST).unlink()
        chosen = replace(settings.read(), layout=Layout(base))
        serving = server.check(chosen, 0, model)
        (private / handler.PULSES).mkdir(parents=True)
        serving.save(private)
        context = Context("model", str(private), None, 4, None, "1.1.11")
        handler.handle(None, context)
        return context

    return load


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that all request tests share: two workers, bodies up to 2 MB."""
    base = tmp_path_factory.mktemp("endpoint")
    _write_model(base / "model")
    with _running(base, SAGEMAKER_MODEL_SERVER_WORKERS="2", SAGEMAKER_MAX_PAYLOAD_IN_MB="2") as server:
        yield server.wait_ready()


# Tests get these helpers as fixtures: nothing in tests/ is importable.
@pytest.fixture(scope="session")
def photo() -> Callable[..., bytes]:
    return _photo


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    return _write_model


@pytest.fixture(scope="session")
def sign() -> Callable[[Path], None]:
    return _sign


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool], Server], None]:
    return _until


@pytest.fixture
def unused_port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def running() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    return _running


@pytest.fixture(scope="session")
def ask() -> Callable[..., list[tuple[int, bytes, str]]]:
    return _ask
