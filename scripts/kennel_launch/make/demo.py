"""`make demo`: photos in, a served classifier out, by the real `train` and the real `serve`, here or by `docker run`.

No AWS, GPU, Java or Node is needed. What is fetched is in `samples`, what is laid out in `machine.opt_ml`.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from kennel.errors import UserError
from kennel.layout import Layout
from kennel_launch.console import terminal
from kennel_launch.console.steps import Show, Steps
from kennel_launch.local_mode import command_lines
from kennel_launch.local_mode.command_lines import LocalTraining
from kennel_launch.machine import http_probe, opt_ml, processes
from kennel_launch.make import results, samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="your own photos instead of the samples")
    parser.add_argument("--image", default="", help="train and serve by docker run of this image")
    parser.add_argument("--gpus", default="", help="docker's --gpus, with --image")
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--npm-lock", type=Path, default=Path("requirements/npm.txt"))
    parser.add_argument("--started", type=float, help="when the environment began to be made, seconds since 1970")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        demo(parser.parse_args())
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    return 0


def demo(options: argparse.Namespace) -> None:
    """The whole job; its figures land in `<out>/result.json`."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    file = out / "result.json"
    file.unlink(missing_ok=True)  # an old one must not outlive a failed run
    console = terminal.out()
    steps = Steps(console)
    if options.started:
        steps.seconds["environment"] = round(max(0.0, time.time() - options.started), 1)
    with steps.phase("data", "your photos" if options.data else f"sample photos, npm's {samples.PACKAGE}"):
        plan = opt_ml.plan(options.data or samples.photos(out / "samples", options.npm_lock), out / "cut")
    if plan.left_out:
        console.print(f"left out: {'; '.join(plan.left_out)}", markup=False, soft_wrap=True)
    channels = {**plan.channels, "pretrained": samples.weights()}
    hyperparameters = {"backbone": samples.BACKBONE}
    job = LocalTraining(channels, hyperparameters, options.image, options.gpus)
    [(layout, training)] = command_lines.prepared(out / "ml", job)
    kept_back = f"{len(plan.test)} photos are kept back"
    log = out / "train.log"
    with steps.phase("train", f"{len(plan.class_names)} classes, {kept_back}; log in {log}") as show:
        train(training, layout, log, show)
    port = http_probe.free_port()
    if options.image:
        serving = command_lines.serve_in_image(options.image, layout.model, port, options.gpus)
    else:
        serving = command_lines.serve_here(layout, port)
    found = ask(serving, port, plan.test, out / "serve.log", steps)
    results.write(found, steps.seconds, file)
    results.show(found, console, file)
    page = layout.output_data / "report.html"
    if page.is_file():
        console.print(f"report: {page.resolve().as_uri()}", markup=False, soft_wrap=True)
    console.print(f"model: {layout.model}  figures: {file}  logs: {out}/*.log", markup=False, soft_wrap=True)


def train(run: processes.Command, layout: Layout, log: Path, show: Show) -> None:
    """Runs a training job to its end, showing its log's last line.

    Raises:
        UserError: it failed; says the failure file's words.
    """
    with processes.started(run, log) as process:
        while process.poll() is None:
            show(next(iter(processes.last_lines(log, 1)), ""), 0)
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        if process.returncode:
            raise UserError(command_lines.failure([layout], process.returncode, log))


def ask(run: processes.Command, port: int, photos: list[opt_ml.Photo], log: Path, steps: Steps) -> results.Results:
    """Starts the endpoint, asks it for every photo and stops it."""
    found = results.Results()
    with processes.started(run, log) as process:
        with steps.phase("serve", f"on 127.0.0.1:{port}; log in {log}") as show:
            http_probe.wait_until_healthy(port, process, lambda: show("", 0), log)
        with steps.phase("predict", f"{len(photos)} photos over HTTP", len(photos)) as show:
            for done, photo in enumerate(photos):
                show(photo.path.name, done)
                try:
                    found.predictions.append(results.DemoPrediction(photo, http_probe.classify(port, photo.path, log)))
                except http_probe.RefusedPhotoError as error:
                    found.refused.append((photo, str(error)))
    if not found.predictions:
        raise UserError(f"the endpoint refused every photo ({found.refused[0][1]}): see {log}")
    return found


if __name__ == "__main__":
    sys.exit(main())
