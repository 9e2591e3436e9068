"""`make bench-tune`: a search in one job beside one trial alone and beside the same trials as separate jobs.

Writes build/bench/tune.json and prints a table. hymenoptera, lite0, probes of 20 epochs, learning rate x batch size
16 to 128; whole jobs by the real `train`, start-up, extraction, export and report included.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import track

from kennel import cgroup
from kennel_launch.local_mode import command_lines
from kennel_launch.local_mode.command_lines import LocalTraining
from kennel_launch.machine import processes
from kennel_launch.make import samples

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
SPACE = "learning_rate batch_size=16,32,64,128"
COMMON = {"backbone": samples.BACKBONE, "strategy": "probe", "epochs": "20"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="of one trial and the search, by turns")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args()
    if not (SHARED / "hymenoptera").is_dir():
        print(f"bench-tune: skipped, the photos are not here: it needs hymenoptera in {SHARED}", file=sys.stderr)
        return
    folder = options.out / "scratch" / "tune"
    found: dict[str, list[float]] = {"one": [], "search": [], "separate": []}
    trials: list[dict[str, Any]] = []
    for _ in track(range(options.rounds), "one trial and the search, by turns"):
        found["one"].append(job(folder / "one", {})[0])
        seconds, out = job(folder / "search", {"trials": str(options.trials), "search_space": SPACE})
        found["search"].append(seconds)
        trials = json.loads((out / "trials.json").read_text())["trials"]
    worst = 0.0
    for trial in track(trials, "the same trials as separate jobs"):
        seconds, out = job(folder / "apart", {name: str(value) for name, value in trial["hyperparameters"].items()})
        found["separate"].append(seconds)
        epochs = json.loads((out / "report.json").read_text())["epochs"]
        worst = max(
            worst,
            *(abs(epochs[at]["validation:loss"] - row["validation:loss"]) for at, row in enumerate(trial["curve"])),
        )
    one, search = statistics.median(found["one"]), statistics.median(found["search"])
    ratios = {"search_over_one_trial": search / one, "separate_over_search": sum(found["separate"]) / search}
    made = {
        "ratios": ratios,
        "seconds": {"one_trial": one, "search": search, "separate": sum(found["separate"])},
        "largest_difference_of_validation_loss": worst,  # between a trial of the search and the same one alone
        "machine": f"{platform.processor() or platform.machine()}, {cgroup.cpus()} CPUs",
        "runs": f"medians of {options.rounds} jobs each; {len(found['separate'])} separate jobs, once each",
    }
    file = options.out / "tune.json"
    file.write_text(json.dumps(made, indent=2))
    for group in ("ratios", "seconds"):
        for name, value in made[group].items():
            print(f"{group:10}{name:32}{value:10.4g}")
    print(f"largest difference of a trial's validation loss from the same job alone: {worst:.2g}")
    print(file)


def job(base: Path, hyperparameters: dict[str, str]) -> tuple[float, Path]:
    """(seconds of a whole training job, its output folder)."""
    photos = SHARED / "hymenoptera"
    channels = {"train": photos / "train", "validation": photos / "val", "pretrained": samples.weights()}
    [(layout, command)] = command_lines.prepared(base, LocalTraining(channels, {**COMMON, **hyperparameters}))
    log = base.with_suffix(".log")
    began = time.perf_counter()
    with processes.started(command, log) as process:
        code = process.wait()
    if code:
        sys.exit(command_lines.failure([layout], code, log))
    return time.perf_counter() - began, layout.output_data


if __name__ == "__main__":
    main()
