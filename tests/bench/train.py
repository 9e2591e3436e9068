"""`make bench-train`: our training beside the classic torchvision loop, in one run, on the same cores and photos.

Writes build/bench/train.json and prints a table. Ratios are medians over interleaved rounds; larger is better for us,
but for `probe_job`, which is a share. Parts are chosen by name: input probe_epoch probe_job stop accuracy gpu.
"""

import argparse
import json
import math
import os
import platform
import random
import shutil
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import classic
import numpy as np
import torch
from PIL import Image

from kennel import backbones, cgroup
from kennel.backbones import Classifier
from kennel.hyperparameters import Hyperparameters
from kennel.photos import decoder
from kennel.photos.photo_folders import class_folders, hashes, photos
from kennel.photos.preprocessing import Preprocessing
from kennel_launch.local_mode import command_lines
from kennel_launch.local_mode.command_lines import LocalTraining
from kennel_launch.machine import processes
from kennel_launch.make import samples
from kennel_train.context import Context
from kennel_train.data import decoding, randomness
from kennel_train.data.image_folder import Photo
from kennel_train.distributed import device
from kennel_train.distributed.device import Device
from kennel_train.engine import crops, loop, micro_batch_size
from kennel_train.engine.batches import CropDataset, Dataset, FeatureDataset, Index
from kennel_train.engine.progress import LoopCallbacks, StagePlan

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
ROUNDS = 5
SEEDS = range(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "train.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for part in options.parts or PARTS:
        say(f"== {part}")
        for key, value in PARTS[part](options.out / "scratch").items():
            found.setdefault(key, {}).update(value)
    found["machine"] = f"{platform.processor() or platform.machine()}, {cgroup.cpus()} CPUs, torch {torch.__version__}"
    found["runs"] = (
        f"input: median of 9 interleaved rounds, CPU time; others: of {ROUNDS}; accuracy: {len(SEEDS)} seeds or folds"
    )
    file.write_text(json.dumps(found, indent=2))
    for group in ("ratios", "accuracy", "images_per_second", "seconds"):
        for name, value in found.get(group, {}).items():
            print(f"{group:18} {name:32} {value:>10.4g}")
    print(file)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# Input: one process on one core, photos a second of its CPU time, which other processes do not lengthen.


def bench_input(out: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})
    small = sorted((SHARED / "hymenoptera" / "train").glob("*/*.jpg"))[:60]
    ratios: dict[str, float] = {}
    speeds: dict[str, float] = {}
    kinds = {"small": small, "q85": _q85(small, out / "q85"), "large": _large(small[:8], out / "large")}
    for size, paths in kinds.items():
        seconds = interleaved(_input_ways(paths), time.process_time, rounds=9)
        each = {name: len(paths) / value for name, value in seconds.items()}
        speeds |= {f"input_{size}_{name}": value for name, value in each.items()}
        # A GPU is handed uint8; everyone hands it floats, which the `_float` ratios compare like with like.
        ratios[f"input_{size}_first"] = each["first"] / each["classic_uint8"]
        ratios[f"input_{size}_first_float"] = each["first"] / each["classic_float"]  # ours is normalized on the GPU
        ratios[f"input_{size}_first_limit"] = each["decode"] / each["classic_uint8"]  # if all but decoding were free
        ratios[f"input_{size}_later"] = each["later"] / each["classic_uint8"]
        ratios[f"input_{size}_later_float"] = each["later_float"] / each["classic_float"]
    os.sched_setaffinity(0, every)
    torch.set_num_threads(cgroup.cpus())
    return {"ratios": ratios, "images_per_second": speeds}


def _input_ways(paths: list[Path]) -> dict[str, Callable[[], object]]:
    row = Preprocessing()
    listed = [Photo(path, 0) for path in paths]
    decoded, _ = decoding.decode(listed, row, "fail", say)
    epochs = iter(range(1, 1_000_000))

    def cut(decoded: decoding.Decoded, finish: Callable[[np.ndarray], object] = lambda batch: batch) -> None:
        epoch = next(epochs)
        drawn, order = randomness.draws(0, epoch, len(paths)), randomness.order(0, epoch, len(paths))
        for batch in np.array_split(order, -(-len(paths) // 32)):
            finish(crops.random_resized(decoded.images, decoded.local[batch], drawn[batch], 224))

    contents = [path.read_bytes() for path in paths]

    def only_decode() -> None:
        for data in contents:
            decoder.read(data, row)

    mean, std = (255 * torch.tensor(value).view(1, 3, 1, 1) for value in (row.mean, row.std))

    def normalized(batch: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(batch).permute(0, 3, 1, 2).float().sub_(mean).div_(std)

    return {
        "classic_uint8": lambda: classic.batches(paths, classic.TO_UINT8, 32),
        "classic_float": lambda: classic.batches(paths, classic.TO_FLOAT, 32),
        "first": lambda: cut(decoding.decode(listed, row, "fail", say)[0]),
        "decode": only_decode,
        "later": lambda: cut(decoded),
        "later_float": lambda: cut(decoded, normalized),
    }


def _q85(paths: Iterable[Path], folder: Path) -> list[Path]:
    """The photos as most JPEGs are: 500x375, quality 85, half the colour resolution. hymenoptera's have all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for at, path in enumerate(paths):
        made.append(folder / f"{at}.jpg")
        with Image.open(path) as photo:
            photo.convert("RGB").resize((500, 375), Image.Resampling.LANCZOS).save(made[-1], quality=85)
    return made


def _large(paths: Iterable[Path], folder: Path) -> list[Path]:
    """The photos at 3000x2000: enlarged, with grain, as JPEGs of a few megabytes."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for at, path in enumerate(paths):
        with Image.open(path) as photo:
            wide = np.asarray(photo.convert("RGB").resize((3000, 2000), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = np.random.default_rng(at).integers(-8, 9, wide.shape, dtype=np.int16)
        made.append(folder / f"{at}.jpg")
        Image.fromarray((wide + grain).clip(0, 255).astype(np.uint8)).save(made[-1], quality=90)
    return made


def interleaved(
    ways: dict[str, Callable[[], object]], clock: Callable[[], float] = time.perf_counter, rounds: int = ROUNDS
) -> dict[str, float]:
    """Median seconds of each way, all of them once a round, after one round that is not counted."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if turn:
                seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


# An epoch of a head: the classic frozen loop runs the whole backbone for it, ours a matrix product.


def bench_probe_epoch(out: Path) -> dict[str, Any]:
    count, few, classes = 6680, 64, 133
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, 2048, generator=generator)
    split = FeatureDataset(torch.arange(count) % classes, np.arange(count), count, torch.device("cpu"), features)
    few_photos = FeatureDataset(
        torch.arange(classes), np.arange(classes), classes, torch.device("cpu"), features[:classes]
    )
    hp = Hyperparameters(epochs=1, batch_size=32)
    chosen = device.choose("")

    def ours() -> None:
        plan = StagePlan("probe", 1, 0, count, torch.ones(classes), keep_statistics=True)
        hooks = LoopCallbacks(lambda: False, lambda: False, lambda _: None, lambda *_: None)
        loop.fit(torch.nn.Linear(2048, classes), split, few_photos, Context(hp, chosen), plan, hooks)

    seconds = interleaved({"classic": lambda: classic.frozen_epoch(few, 32), "ours": ours})
    classic_epoch = seconds["classic"] / few * count
    return {
        "ratios": {"probe_epoch": classic_epoch / seconds["ours"]},
        "seconds": {"probe_epoch_classic": classic_epoch, "probe_epoch_ours": seconds["ours"]},
    }


# Whole jobs by the real `train`.


def job(
    out: Path, channels: dict[str, Path], stop_after: float = 0.0, **hyperparameters: str
) -> tuple[dict[str, Any], dict[str, Any], float]:
    """(manifest, report, seconds from the stop to the end) of one job, sent SIGTERM after so many seconds, if any."""
    given = {**channels, "pretrained": samples.weights()}
    training = LocalTraining(given, {"backbone": samples.BACKBONE, **hyperparameters})
    [(layout, command)] = command_lines.prepared(out / "ml", training)
    log = out / "train.log"
    stopped = math.nan
    with processes.started(command, log) as process:
        if stop_after:
            time.sleep(stop_after)
            process.send_signal(signal.SIGTERM)
            stopped = time.monotonic()
        if process.wait():
            sys.exit(command_lines.failure([layout], process.returncode, log))
    manifest = json.loads((layout.model / "manifest.json").read_text())
    report = json.loads((layout.output_data / "report.json").read_text())
    return manifest, report, time.monotonic() - stopped


def bench_probe_job(out: Path) -> dict[str, Any]:
    """Start, extraction and twenty epochs over start and extraction; the job's end, without its report, by itself."""
    data = SHARED / "hymenoptera"
    shares, tails = [], []
    for _ in range(ROUNDS):
        _, report, _ = job(out, {"train": data / "train", "validation": data / "val"}, strategy="probe", epochs="20")
        seconds = dict(report["phases"])
        say(", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
        before = sum(seconds[name] for name in ("start", "find photos", "decode", "features"))
        shares.append((before + seconds["probe"] + seconds.get("checkpoints", 0)) / before)
        tails.append(sum(seconds[name] for name in ("evaluate", "export", "int8") if name in seconds))
    return {"ratios": {"probe_job": statistics.median(shares)}, "seconds": {"job_end": statistics.median(tails)}}


def bench_stop(out: Path) -> dict[str, Any]:
    """SIGTERM at random moments of a job that probes and fine-tunes: seconds until its model is whole and it has ended.

    The first ten seconds are left out: there is nothing yet to make a model of.
    """
    data = SHARED / "hymenoptera"
    seconds = []
    for moment in random.Random(0).choices(range(10, 90), k=ROUNDS):
        channels = {"train": data / "train", "validation": data / "val"}
        _, report, took = job(out, channels, moment, strategy="probe-then-finetune", epochs="10")
        say(f"stopped after {moment} s: {took:.1f} s, {report['outcome']}")
        seconds.append(took)
    return {"seconds": {"stop_median": statistics.median(seconds), "stop_max": max(seconds)}}


def bench_accuracy(out: Path) -> dict[str, Any]:
    """Recipes were chosen on a fifth of `train`; here `val` is the test channel, looked at once a seed."""
    data = SHARED / "hymenoptera"
    channels = {"train": data / "train", "test": data / "val"}
    found: dict[str, float] = {}
    probe = {"strategy": "probe", "int8": "false"}
    both = {"strategy": "probe-then-finetune", "epochs": "5", "int8": "false"}
    for name, recipe in (("probe", probe), ("probe_then_finetune", both)):
        scores = []
        for seed in SEEDS:
            manifest, _, _ = job(out, channels, seed=str(seed), **recipe)
            scores.append(manifest["metrics"]["test:accuracy"])
            say(f"hymenoptera {name} seed {seed}: {scores[-1]:.4f}")
        found |= _spread(f"hymenoptera_{name}", scores)
    scores = []
    for fold, fold_channels in enumerate(_folds(out)):
        manifest, _, _ = job(out, fold_channels, **probe)
        scores.append(manifest["metrics"]["test:accuracy"])
        say(f"foods fold {fold}: {scores[-1]:.4f}")
    return {"accuracy": found | _spread("foods_probe", scores)}


def _spread(name: str, scores: list[float]) -> dict[str, float]:
    return {f"{name}_mean": statistics.mean(scores), f"{name}_min": min(scores), f"{name}_max": max(scores)}


def _folds(out: Path) -> Iterable[dict[str, Path]]:
    """Five times four fifths to train on and one to test with, of the unique photos, by file hash."""
    source = samples.photos(out / "samples", ROOT / "requirements" / "npm.txt")
    classes = {name: hashes(photos(*folders)) for name, folders in class_folders(source).items()}
    for fold in SEEDS:
        target = out / "fold"
        shutil.rmtree(target, ignore_errors=True)
        for name, hashed in classes.items():
            for at, path in enumerate(sorted(hashed, key=hashed.__getitem__)):
                side = "test" if at % len(SEEDS) == fold else "train"
                (target / side / name).mkdir(parents=True, exist_ok=True)
                (target / side / name / path.name).symlink_to(path.resolve())
        yield {"train": target / "train", "test": target / "test"}


# On a GPU: the loader must never be the limit. `make bench-train PARTS=gpu` is the one command.


def bench_gpu(out: Path) -> dict[str, Any]:
    """ResNet-50, 224 px, bf16 where the GPU has it: training images a second from memory and from the photo cache."""
    chosen = device.choose("")
    if chosen.torch.type != "cuda":
        say("gpu: skipped, no GPU is here")
        return {}
    return gpu_speeds(chosen, "resnet50", 224, count=20_000, batch_size=512, epochs=4)


def gpu_speeds(chosen: Device, backbone: str, side: int, count: int, batch_size: int, epochs: int) -> dict[str, Any]:
    classes = 133
    made = backbones.load(backbone, side, False, None, None)
    classifier = Classifier(made, classes).to(chosen.torch)
    classifier.to(memory_format=torch.channels_last)
    # random weights with kept statistics diverge at a rate that would teach them anything
    hp = Hyperparameters(epochs=epochs, batch_size=batch_size, image_size=side, learning_rate=1e-8)
    micro = micro_batch_size.micro_batch(classifier, side, batch_size, chosen, 1)
    resize = made.preprocessing.resize
    images = np.random.default_rng(0).integers(0, 256, (2048, resize, resize, 3), dtype=np.uint8)
    labels, ids = torch.arange(count) % classes, np.arange(count)
    real = CropDataset(labels, ids, count, chosen.torch, images, ids % len(images), side)
    few = CropDataset(labels[:64], ids[:64], 64, chosen.torch, images, ids[:64], side)
    found = {}
    for name, inputs in (("synthetic", _Synthetic(labels, ids, count, chosen.torch, side)), ("real", real)):
        plan = StagePlan("finetune", epochs, 0, micro, torch.ones(classes), keep_statistics=True)
        hooks = LoopCallbacks(lambda: False, lambda: False, lambda _: None, lambda *_: None)
        run = loop.fit(classifier, inputs, few, Context(hp, chosen), plan, hooks)
        found[f"gpu_{name}"] = statistics.median(row["photos_per_second"] for row in run.rows[1:])
    return {"images_per_second": found, "ratios": {"real_over_synthetic": found["gpu_real"] / found["gpu_synthetic"]}}


@dataclass
class _Synthetic(Dataset):
    """The same photos on the device, again and again."""

    side: int

    def training(self, parts: Sequence[Index], seed: int, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        most = max(map(len, parts))
        photos = torch.zeros(most, 3, self.side, self.side, dtype=torch.uint8, device=self.device)
        photos = photos.contiguous(memory_format=torch.channels_last)
        for part in parts:
            yield photos[: len(part)], self.labels[torch.from_numpy(part)].to(self.device)


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "input": bench_input,
    "probe_epoch": bench_probe_epoch,
    "probe_job": bench_probe_job,
    "stop": bench_stop,
    "accuracy": bench_accuracy,
    "gpu": bench_gpu,
}

if __name__ == "__main__":
    main()
