"""`kennel tune --local`: a search in one training job on this machine, here or by `docker run`, shown as it goes.

Without --local it is tuning_job's. The search itself is the job's (hyperparameters trials, search, search_space,
time_budget). What it has done lies in OUT/checkpoints, so that the same command goes on where it was stopped or killed.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kennel import hyperparameters
from kennel.errors import UserError
from kennel.hyperparameters import OF_A_SEARCH, OF_TRACKING, TABLE, Hyperparameters
from kennel.layout import Layout
from kennel.search import search_space, trials
from kennel_launch import settings
from kennel_launch.console import flags, terminal, trials_table
from kennel_launch.console.trials_table import Trials
from kennel_launch.jobs import input_channels, tuning_job
from kennel_launch.local_mode import command_lines, local_job
from kennel_launch.local_mode.command_lines import LocalTraining
from kennel_launch.machine import opt_ml, processes
from kennel_launch.make import local

if TYPE_CHECKING:
    from rich.console import Console

LOG = "train.log"  # in OUT
_FLAGS = {name: f"--{name.replace('_', '-')}" for name in OF_A_SEARCH}
_LOCALLY = ("local", "out", "gpus", "fresh", *OF_A_SEARCH, *OF_TRACKING, "hyperparameters", "image", "wait", "yes")
_POLL = 0.5  # seconds
Show = Callable[[Trials | None, str], None]  # (the trials so far, the log's last line)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "kennel tune [--local | --one-job] --data FOLDER|S3-URI [flags]"
    input_channels.add_flags(parser)
    parser.add_argument(
        "--search-space", default="", metavar="WORDS", help="'learning_rate=0.001..0.1 batch_size=32,64'"
    )
    shared = "what all trials share, 'epochs=5 int8=false'"
    parser.add_argument("--hyperparameters", default="", metavar="WORDS", help=shared)
    parser.add_argument("--name", default="", help="of the job on SageMaker (kennel-<time>)")
    flags.add_doing(parser, wait="until it ends; exit code 1 where it fails")
    group = parser.add_argument_group("a search in one job")
    group.add_argument("--local", action="store_true", help="on this machine")
    group.add_argument(
        "--out", type=Path, default=Path("build/tune"), metavar="FOLDER", help="of --local; an earlier run goes on"
    )
    local_job.add_gpus(group)
    group.add_argument("--fresh", action="store_true", help="start over, without an earlier run's trials")
    group.add_argument("--trials", default="20", help="settings to try")
    group.add_argument("--search", default=Hyperparameters.search, choices=TABLE["search"].choices)
    group.add_argument("--time-budget", default="", metavar="MINUTES", help="end with the best after so long")
    tuning_job.add_arguments(parser)
    flags.add_hyperparameters(parser, without=OF_A_SEARCH)
    flags.add_training(parser, folded="kennel train")
    settings.add_flags(parser, settings.OF_A_JOB, folded="kennel train")


def run(options: argparse.Namespace) -> int:
    """The whole search; its exit code.

    Raises:
        UserError: it can't be started as asked.
    """
    flags.refuse_without_local(options)
    if not options.local:
        return tuning_job.run(options, settings_of(options) if options.one_job else shared_of(options))
    flags.refuse_elsewhere(options, (*input_channels.CHANNELS, *_LOCALLY))
    if not options.data:
        raise UserError("say where the photos are: --data FOLDER")
    if not options.image:
        command_lines.check_here("train", options.gpus)
    given = settings_of(options)
    if options.val or options.test:
        raise UserError("--local takes the splits inside the data, train/ beside val/ and test/: put them there")
    weights = input_channels.places(options).get("pretrained")
    channels = opt_ml.channels(Path(options.data), Path(weights) if weights else None)
    with opt_ml.model_kept(options.out):
        return _search(options, channels, given)


def _search(options: argparse.Namespace, channels: Mapping[str, Path], given: Mapping[str, str]) -> int:
    training = LocalTraining(channels, given, options.image, options.gpus)
    [(layout, job)] = command_lines.prepared(options.out, training, keep_checkpoints=not options.fresh)
    console = terminal.out()
    log, stopped = options.out / LOG, False
    try:
        with processes.started(job, log) as process:
            follow(process, layout, log, console)
    except KeyboardInterrupt:  # the job has ended by now, with the best so far where there is one
        stopped = True
    found = trials_table.read(layout.output_data / trials.FILE)
    if found and (stopped or not console.is_terminal):  # else it is on the screen already
        console.print(trials_table.table(found))
    for line in summary(layout, found, given, options):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not stopped and not process.returncode:
        return 0
    why = "stopped" if stopped else command_lines.failure([layout], process.returncode, log)
    again = "; the same command goes on with what is known, --fresh starts over" if layout.checkpoints.exists() else ""
    print(f"kennel tune: {why}{again}", file=sys.stderr)
    return 130 if stopped else 1


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """The job's hyperparameters, checked before anything is started.

    Raises:
        UserError: one that is none, or that has a flag of its own.
    """
    given = shared_of(options) | {name: value for name in _FLAGS if (value := str(getattr(options, name)))}
    parsed = hyperparameters.parse(given)
    if parsed.trials < 2:
        raise UserError(f"--trials {options.trials} is no search: write 2 or more")
    search_space.space(parsed.search_space)
    return given


def shared_of(options: argparse.Namespace) -> dict[str, str]:
    """The hyperparameters of --hyperparameters and of flags of their own, which go before.

    Raises:
        UserError: one that belongs to the search.
    """
    given = settings.tracking(settings.load(vars(options))) | local.settings_of(options.hyperparameters)
    if own := [name for name in _FLAGS if name in hyperparameters.given(given)]:
        raise UserError(f"--hyperparameters: write {own[0]} as {_FLAGS[own[0]]}")
    return given | flags.hyperparameters_of(options)


def follow(process: subprocess.Popen[bytes], layout: Layout, log: Path, console: "Console") -> None:
    """Shows the trials until the job ends."""
    with _view(console) as show:
        try:
            while True:
                ended = process.poll() is not None  # asked before the files are read, so that nothing is missed
                show(
                    trials_table.read(layout.output_data / trials.FILE),
                    next(iter(processes.last_lines(log, 1)), ""),
                )
                if ended:
                    return
                try:
                    process.wait(_POLL)
                except subprocess.TimeoutExpired:
                    continue
        except KeyboardInterrupt:
            console.print("stopping: the job ends with the best so far", highlight=False)
            raise


@contextmanager
def _view(console: "Console") -> Iterator[Show]:
    """On a terminal a table that changes, elsewhere a line for each trial that has ended."""
    if console.is_terminal:
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        with Live(console=console, auto_refresh=False) as live:

            def change(now: Trials | None, last: str) -> None:
                text = Text(last, style="dim", no_wrap=True, overflow="ellipsis")
                live.update(Group(trials_table.table(now), text) if now else text, refresh=True)

            yield change
        return
    before: list[Trials] = []

    def add(now: Trials | None, _last: str) -> None:
        if now:
            for line in trials_table.lines(before[-1] if before else None, now):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            before[:] = [now]

    yield add


def summary(
    layout: Layout, found: Trials | None, settings: Mapping[str, str], options: argparse.Namespace
) -> Iterator[str]:
    """What was found, where it lies, and the command that trains with it."""
    best = found.winner if found else None
    if found and best:
        yield f"best: {trials_table.summary_line(best, found)}"
    files = {
        "settings": layout.output_data / trials.BEST,
        "report": layout.output_data / "report.html",
        "model": layout.model,
    }
    for name, path in files.items():
        if path.is_file() or opt_ml.holds_files(path):
            yield f"{name}: {path}"
    if best:
        yield f"train with it: {command(best, settings, options)}"


def command(best: Mapping[str, Any], settings: Mapping[str, str], options: argparse.Namespace) -> str:
    """What trains one model with the settings of a trial."""
    shared = {name: value for name, value in settings.items() if name not in _FLAGS}
    words = " ".join(
        f"{name}={hyperparameters.text(value)}" for name, value in (shared | best["hyperparameters"]).items()
    )
    variables = {
        "DATA": options.data,
        "IMAGE": options.image,
        "GPUS": options.gpus,
        "PRETRAINED": input_channels.places(options).get("pretrained"),
    }
    given = [f"{name}={value}" for name, value in variables.items() if value]
    return shlex.join(["make", "train-local" if options.image else "train", *given, f"HP={words}"])
