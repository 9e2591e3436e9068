"""`make bench-serve`: our endpoint beside the stock SageMaker stack, FastAPI and LitServe, in one run, on the same
cores and photos, one thread a worker and a worker a core.

Writes build/bench/serve.json and prints a table. Figures are medians over interleaved rounds, in each of which every
server is started anew; `others_cpu` says how busy the machine was without them. Ratios are the better for us the
larger, but for `p50_vs_inprocess` and `p99_over_p50`. The load generator shares the cores. Parts are chosen by name:
cold resnet50 lite0 large health.
"""

import argparse
import json
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import health
import load
import onnxruntime
import psutil
import servers
from load import Load, LoadError
from servers import Server

from kennel import artifact, cgroup
from kennel.layout import INT8
from kennel.photos import decoder, preprocessing

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
CLIENTS = (1, 4, 32)
SECONDS = 6.0  # of each load, once every client is warm

Figures = dict[str, list[float]]  # name -> one figure a round


@dataclass(frozen=True)
class Bench:
    """What all parts work on, and what they find: group -> name -> a figure a round."""

    scratch: Path
    rounds: int
    seconds: float
    workers: int = field(default_factory=cgroup.cpus)
    found: dict[str, Figures] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def turns(self, part: str, backbone: str, names: tuple[str, ...], measure: Callable[[Server], None]) -> None:
        """Every server once a round, after each other."""
        first = self.requests("small")[0]
        for turn in range(self.rounds):
            for name in names:
                log = self.scratch / f"serve-{name}.log"
                self.found["percent"]["others_cpu"].append(psutil.cpu_percent(0.5))  # while none of ours is alive
                try:
                    with servers.running(name, self.scratch / backbone, self.workers, first, log) as server:
                        say(f"{part} {turn + 1}/{self.rounds}: {name} answers after {server.cold_start:.1f} s")
                        measure(server)
                except (LoadError, OSError) as error:
                    sys.exit(f"{part}, {name}: {error}; see {log}")

    def photos(self, size: str) -> list[bytes]:
        folder = SHARED / "hymenoptera" / "train" if size == "small" else self.scratch
        paths = sorted(folder.glob("*/*.jpg" if size == "small" else "large/*.jpg"))[:60]
        return [path.read_bytes() for path in paths]

    def requests(self, size: str) -> list[bytes]:
        return [load.post(photo) for photo in self.photos(size)]

    def closed(self, server: Server, size: str, clients: int, key: str) -> Load:
        """One closed load; its figures go under `key`, the server and the clients."""
        found = load.closed(server.port, self.requests(size), clients, self.seconds)
        name = f"{key}_{server.name}_{clients}"
        self.found["requests_per_second"][name].append(found.per_second)
        for percent in (50, 90, 99):
            self.found["milliseconds"][f"{name}_p{percent}"].append(found.percentile(percent))
        self.found["milliseconds"][f"{name}_client_cpu"].append(found.client_ms)
        return found

    def middle(self, group: str, name: str) -> float:
        return statistics.median(self.found[group][name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args()
    servers.obey_once()
    bench = Bench((options.out / "scratch").resolve(), options.rounds, options.seconds)
    file = options.out / "serve.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if not (SHARED / "hymenoptera").is_dir() or not (SHARED / "photos").is_dir():
        say(f"bench-serve: skipped, the photos are not here: it needs hymenoptera and photos in {SHARED}")
        return
    bench.scratch.mkdir(parents=True, exist_ok=True)
    models = Path(__file__).with_name("models.py")
    subprocess.run([sys.executable, models, bench.scratch, "resnet50", LITE0], check=True)
    for part in options.parts or PARTS:
        say(f"== {part}")
        found.setdefault("ratios", {}).update(PARTS[part](bench))
    for group, figures in bench.found.items():
        found.setdefault(group, {}).update({name: statistics.median(values) for name, values in figures.items()})
    found["machine"] = f"{platform.processor() or platform.machine()}, {cgroup.cpus()} CPUs, shared with the load"
    found["runs"] = (
        f"medians of {bench.rounds} interleaved rounds, {bench.workers} workers of one thread, loads of "
        f"{bench.seconds:g} s; milliseconds; client_cpu: the load generator's own CPU time a request, on the same cores"
    )
    file.write_text(json.dumps(found, indent=2))
    _print({"requests_per_second": {}, "milliseconds": {}, **found})
    print(file)


def _print(found: dict[str, Any]) -> None:
    times = dict(found["milliseconds"])
    columns = ("p50", "p90", "p99", "client_cpu")
    print(f"\n{'part, server, clients':24}{'requests/s':>12}" + "".join(f"{column:>12}" for column in columns))
    for name, speed in found["requests_per_second"].items():
        row = [times.pop(f"{name}_{column}") for column in columns]
        print(f"{name.replace('_', ' '):24}{speed:12.1f}" + "".join(f"{value:12.2f}" for value in row))
    print()
    for group, figures in {**found, "milliseconds": times}.items():
        if isinstance(figures, dict) and group != "requests_per_second":
            for name, value in figures.items():
                print(f"{group:14}{name:38}{value:10.4g}")
    print(f"{found['machine']}\n{found['runs']}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def bench_cold(bench: Bench) -> dict[str, float]:
    """From the start of the process to the first photo's answer."""

    def measure(server: Server) -> None:
        bench.found["seconds"][f"cold_start_{server.name}"].append(server.cold_start)
        if server.name == "kennel":
            for stage, value in server.stages().items():
                bench.found["seconds"][f"cold_start_kennel_{stage}"].append(value)

    bench.turns("cold", "resnet50", servers.NAMES, measure)
    stock, ours = (bench.middle("seconds", f"cold_start_{name}") for name in ("stock", "kennel"))
    return {"cold_start_vs_stock": stock / ours}


def bench_resnet50(bench: Bench) -> dict[str, float]:
    """Photos of 500 px at each number of clients; memory; ours at half its best speed; the same without a server."""

    def measure(server: Server) -> None:
        load.closed(server.port, bench.requests("small"), 4, 1.0)  # every worker's first predictions
        loads = [bench.closed(server, "small", clients, "resnet50") for clients in CLIENTS]
        worker, whole = server.megabytes(bench.workers)
        bench.found["megabytes"][f"worker_uss_{server.name}"].append(worker)
        bench.found["megabytes"][f"server_pss_{server.name}"].append(whole)
        if server.name == "kennel":
            _half_load(bench, server, max(each.per_second for each in loads) / 2)
            _inprocess(bench)

    bench.turns("resnet50", "resnet50", servers.NAMES, measure)

    def speed(name: str, clients: int) -> float:
        return bench.middle("requests_per_second", f"resnet50_{name}_{clients}")

    def time_of(name: str) -> float:
        return bench.middle("milliseconds", name)

    p50 = {name: time_of(f"resnet50_{name}_1_p50") for name in servers.NAMES}
    for name in ("fastapi", "litserve"):
        bench.found["milliseconds"][f"p50_minus_{name}"] = [p50["kennel"] - p50[name]]
    return {
        "rps_vs_stock": speed("kennel", 4) / speed("stock", 4),
        "p50_vs_stock": p50["stock"] / p50["kennel"],
        "rps_vs_fastapi": min(speed("kennel", clients) / speed("fastapi", clients) for clients in (4, 32)),
        "rps_vs_litserve": min(speed("kennel", clients) / speed("litserve", clients) for clients in (4, 32)),
        "p50_vs_inprocess": p50["kennel"] / time_of("inprocess_p50"),
        "p99_over_p50": time_of("half_load_p99") / time_of("half_load_p50"),
    }


def _half_load(bench: Bench, server: Server, rate: float) -> None:
    """Requests that come evenly, as load testers send them, and then by chance, which needs a queue now and then."""
    for key, even in (("half_load", True), ("half_load_random", False)):
        found = load.paced(server.port, bench.requests("small"), rate, bench.seconds, even)
        for percent in (50, 99):
            bench.found["milliseconds"][f"{key}_p{percent}"].append(found.percentile(percent))


def _inprocess(bench: Bench) -> None:
    """Decoding and the bare network, on one thread, while the server idles."""
    folder = bench.scratch / "resnet50" / "kennel" / "model"
    row = artifact.read_manifest(folder).preprocessing
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / INT8, options, providers=["CPUExecutionProvider"])
    seconds = []
    for photo in bench.photos("small") * 2:
        began = time.perf_counter()
        session.run(["logits"], {"photos": preprocessing.square(decoder.decode(photo, row), row)[None]})
        seconds.append(time.perf_counter() - began)
    bench.found["milliseconds"]["inprocess_p50"].append(1000 * statistics.median(seconds[10:]))


def _beside_stock(bench: Bench, part: str, backbone: str, size: str) -> dict[str, float]:
    """Ours and the stock stack at four clients."""

    def measure(server: Server) -> None:
        load.closed(server.port, bench.requests(size), 4, 1.0)
        bench.closed(server, size, 4, part)

    bench.turns(part, backbone, ("stock", "kennel"), measure)
    stock, ours = (bench.middle("requests_per_second", f"{part}_{name}_4") for name in ("stock", "kennel"))
    return {f"rps_vs_stock_{part}": ours / stock}


def bench_health(bench: Bench) -> dict[str, float]:
    """Ours alone: workers killed, stopped; /ping under full load; the front door's share."""

    def measure(server: Server) -> None:
        requests, seconds, times = bench.requests("small"), bench.found["seconds"], bench.found["milliseconds"]
        load.closed(server.port, requests, 4, 1.0)
        log = bench.scratch / "serve-mms.log"
        first = health.mms_requests(requests)[0]
        with servers.running("mms", bench.scratch / "resnet50", bench.workers, first, log) as mms:
            found = health.door(server, mms, requests, health.DOOR_ROUNDS)
            for name, each in zip(("tcp", "socket"), found, strict=True):
                times[f"door_p50_over_{name}"].append(statistics.median(each))
        pings = health.pings_under_load(server, requests, max(CLIENTS))
        for percent in (50, 99, 99.9):
            times[f"ping_p{percent:g}"].append(health.percentile(pings, percent))
        times["ping_most"].append(pings[-1])
        for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
            said, fixed = health.after_signal(server, number)
            seconds[f"{name}_to_503"].append(said)
            seconds[f"{name}_503_to_200"].append(fixed)

    bench.turns("health", "resnet50", ("kennel",), measure)
    return {}


LITE0 = "tf_efficientnet_lite0"
PARTS: dict[str, Callable[[Bench], dict[str, float]]] = {
    "cold": bench_cold,
    "resnet50": bench_resnet50,
    "lite0": lambda bench: _beside_stock(bench, "lite0", LITE0, "small"),
    "large": lambda bench: _beside_stock(bench, "large", "resnet50", "large"),
    "health": bench_health,
}

if __name__ == "__main__":
    main()
