"""What a GPU gives: milliseconds a captured batch, beside the eager network, and training's images a second.

`python tests/bench/gpu.py [--out FOLDER]` writes gpu.json and prints it. Without a GPU it says so and ends well.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import train as bench_train

from kennel import backbones
from kennel.backbones import Classifier
from kennel_serve.inference import cuda_graphs, torch_network
from kennel_train.distributed import device

CLASSES, SIDE, ROUNDS = 133, 224, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=bench_train.ROOT / "build" / "bench")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu: skipped, no GPU is here")
        return
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__}
    for name in ("resnet50", "tf_efficientnet_lite0"):
        found[name] = serving(name)
    chosen = device.choose("")
    for size in (256, 512):
        found[f"training_{size}"] = bench_train.gpu_speeds(chosen, "resnet50", SIDE, 12_000, size, epochs=3)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(found, indent=2))
    print(json.dumps(found, indent=2))


def serving(name: str) -> dict[str, Any]:
    """Medians of `ROUNDS`, by turns: a captured batch and the same through the eager network in bf16, copies
    included."""
    classifier = Classifier(backbones.load(name, SIDE, False, None, None), CLASSES).eval()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        safetensors.torch.save_model(classifier, str(weights))
        started = time.perf_counter()
        network = torch_network.load(weights, name, SIDE, CLASSES)
        load_s = time.perf_counter() - started
    mixed = cuda_graphs.MixedPrecision(classifier.cuda().to(memory_format=torch.channels_last), torch.bfloat16)
    rows = {}
    for size in cuda_graphs.SIZES:
        photos = cuda_graphs.sample_photos(size, SIDE)

        @torch.inference_mode()
        def eager(photos: torch.Tensor = photos) -> torch.Tensor:
            return mixed(photos.cuda()).cpu()

        array = photos.numpy()
        graph_ms, eager_ms = by_turns(lambda array=array: network.run(array), eager)
        rows[size] = {"graph_ms": graph_ms, "eager_ms": eager_ms, "eager_over_graph": eager_ms / graph_ms}
    return {"load_s": load_s, "batches": rows}


def by_turns(*functions: Callable[[], object]) -> list[float]:
    """Median milliseconds of each."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(ROUNDS + 3):
        for at, function in enumerate(functions):
            started = time.perf_counter()
            function()
            if turn >= 3:
                times[at].append(1000 * (time.perf_counter() - started))
    return [statistics.median(each) for each in times]


if __name__ == "__main__":
    main()
