"""`make bench-debug`: what rules and profiler, with their defaults, add to a training step.

Two trainings of the same network in one process take steps by turns, one watched and one bare; each pair gives a ratio.
Writes build/bench/debug.json and prints a table. What samples the machine once a second runs beside both of a pair, so
its own time is measured apart and added.
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.progress import track

from kennel import backbones, cgroup
from kennel.backbones import Classifier
from kennel.hyperparameters import Hyperparameters
from kennel_train.context import Context
from kennel_train.debug.debugger import Debugger
from kennel_train.debug.rules import table
from kennel_train.distributed import device
from kennel_train.distributed.device import Device
from kennel_train.engine import loop
from kennel_train.engine.batches import CropDataset
from kennel_train.engine.progress import Run, StagePlan
from kennel_train.measure.callbacks import NO_CALLBACK, Callback
from kennel_train.measure.machine_sampler import Sampler, totals

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("resnet18", "resnet50")
SIDE, WARM_UP = 224, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=220)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args()
    made: dict[str, Any] = {"ratios": {}, "intervals": {}, "milliseconds": {}}
    for name in NETWORKS:
        bare, watched = pairs(name, options.pairs, options.batch_size)
        ratios = [w / b for w, b in zip(watched, bare, strict=True)]
        sampling = sample_seconds()
        key = f"step_default_over_bare_{name}"
        made["ratios"][key] = statistics.median(ratios) + sampling
        made["intervals"][key] = [end + sampling for end in interval(ratios)]
        made["milliseconds"] |= {f"{name}_bare": 1000 * statistics.median(bare), "machine_sample": 1000 * sampling}
    worst = max(made["ratios"].values())
    made["ratios"] = {"step_default_over_bare": worst, **made["ratios"]}
    made["machine"] = f"{platform.processor() or platform.machine()}, {cgroup.cpus()} CPUs"
    made["runs"] = f"medians of {options.pairs} pairs of steps of {options.batch_size} photos, 95% intervals"
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "debug.json"
    file.write_text(json.dumps(made, indent=2))
    for name, ratio in made["ratios"].items():
        low, high = made["intervals"].get(name, ("", ""))
        print(f"{name:36}{ratio:8.4f}   {f'[{low:.4f}, {high:.4f}]' if low else ''}")
    print(file)


def pairs(name: str, count: int, batch_size: int) -> tuple[list[float], list[float]]:
    """Seconds of so many steps, bare and watched, one of each in turn, now the one first and now the other."""
    chosen = device.choose("")
    hp = Hyperparameters(backbone=name, pretrained=False, batch_size=batch_size, epochs=1)
    train = _photos(batch_size * (count + WARM_UP))
    sampler = Sampler(lambda: "finetune")
    debugger = Debugger(table.chosen(hp.rules), hp.on_rule, sampler, hp.profile, lambda _: NO_CALLBACK, print)
    bare, watched = _run(hp, train, chosen), _run(hp, train, chosen)
    steps_per_epoch = math.ceil(train.total / batch_size)
    found: dict[bool, list[float]] = {False: [], True: []}
    with debugger.stage(
        "finetune",
        watched.module,
        train.device,
        lambda: train.waited,
        steps_per_epoch,
        pretrained=True,
        loaders=1,
    ) as watch:
        ways = {False: _steps(bare, NO_CALLBACK), True: _steps(watched, watch)}
        for pair in track(range(count + WARM_UP), f"{name}, pairs of steps"):
            for way in (False, True) if pair % 2 else (True, False):
                started = time.perf_counter()
                next(ways[way])
                if pair >= WARM_UP:
                    found[way].append(time.perf_counter() - started)
    debugger.close()
    return found[False], found[True]


def sample_seconds(count: int = 20) -> float:
    """Seconds of one look at the machine's processes, of which there is one a second: so it is a share, too."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        totals(psutil.Process())
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def interval(values: list[float]) -> tuple[float, float]:
    """The median's 95% interval by order statistics (Conover, Practical Nonparametric Statistics, 3.2)."""
    ranked, half = sorted(values), 0.98 * math.sqrt(len(values))
    return ranked[math.floor(len(values) / 2 - half)], ranked[math.ceil(len(values) / 2 + half) - 1]


def _photos(count: int) -> CropDataset:
    images = np.random.default_rng(0).integers(0, 256, (64, SIDE + 32, SIDE + 32, 3), dtype=np.uint8)
    rows = np.arange(count) % len(images)
    return CropDataset(torch.arange(count) % 2, np.arange(count), count, torch.device("cpu"), images, rows, SIDE)


def _run(hp: Hyperparameters, train: CropDataset, chosen: Device) -> Run:
    torch.manual_seed(0)
    backbone = backbones.load(hp.backbone, SIDE, hp.pretrained, None, baked=None)
    classifier = Classifier(backbone, 2).to(memory_format=torch.channels_last)
    return Run(classifier, train, Context(hp, chosen), _plan(hp.batch_size))


def _steps(run: Run, callback: Callback) -> Iterator[bool]:
    return loop.steps(run, callback, lambda: False)


def _plan(batch_size: int) -> StagePlan:
    return StagePlan("finetune", 1, 0, batch_size, torch.ones(2), keep_statistics=False)


if __name__ == "__main__":
    main()
