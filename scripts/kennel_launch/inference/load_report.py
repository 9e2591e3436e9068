"""`kennel invoke --load`: asked first, a row for each concurrency, and what the best one means for --autoscale."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kennel.errors import UserError
from kennel_launch.console import confirm, terminal
from kennel_launch.console.steps import Steps
from kennel_launch.hosting import specs
from kennel_launch.hosting.endpoint_info import EndpointInfo
from kennel_launch.inference import load
from kennel_launch.inference.invocation import Question
from kennel_launch.inference.load import Level
from kennel_launch.inference.photo_sources import Photo

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST = 600  # seconds at one concurrency


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--load", action="store_true", help="how many requests it carries, for deploy --autoscale")
    parser.add_argument(
        "--load-seconds", type=float, default=10, metavar="N", help="for each concurrency (%(default)s)"
    )
    parser.add_argument("--p99", type=float, default=500, metavar="MS", help="that --load allows (%(default)s)")
    parser.add_argument("--yes", action="store_true", help="--load begins without asking")


def check(options: argparse.Namespace) -> None:
    """
    Raises:
        UserError: a number that is none.
    """
    if not 0 < options.load_seconds <= _LONGEST:
        raise UserError(f"--load-seconds {options.load_seconds:g}: write seconds, more than 0 and up to {_LONGEST}")
    if not 0 < options.p99 < math.inf:
        raise UserError(f"--p99 {options.p99:g}: write milliseconds, more than 0")


def run(photos: Sequence[Photo], question: Question, options: argparse.Namespace, steps: Steps) -> int:
    """Asks with growing concurrency; 1: no answer came in time.

    Raises:
        UserError: it may not begin, or a photo is refused.
    """
    endpoint, seconds = question.endpoint, options.load_seconds
    load.check(endpoint)
    counts = load.concurrencies(endpoint)
    if not options.local:
        question = load.with_own_client(question)
        confirm.ask(lines(endpoint, counts, seconds), options.yes)
    bodies = load.prepared(photos, question)
    found: list[Level] = []
    with steps.phase("load", f"up to {counts[-1]} requests at a time", len(counts)) as show_:
        for level in load.levels(question, bodies, seconds, options.p99):
            found.append(level)
            show_(f"{level.concurrency} at a time: {level.rate:.1f} a second", len(found))
    if options.json:
        for level in found:
            print(json.dumps({key: None if value != value else value for key, value in vars(level).items()}))
    else:
        show(found, terminal.out())
    if found[-1].error:
        print(f"the first error at {found[-1].concurrency} at a time: {found[-1].error}", file=sys.stderr)
    best = load.best(found, options.p99)
    if best is None:
        print(f"kennel invoke: nothing within --p99 {options.p99:g} ms without errors: allow more", file=sys.stderr)
        return 1
    for line in verdict(best, endpoint, "on an instance as fast as this machine, " if options.local else ""):
        print(line, file=sys.stderr if options.json else sys.stdout)
    return 0


def lines(endpoint: EndpointInfo, counts: Sequence[int], seconds: float) -> list[str]:
    """What a load does to an endpoint, before it begins."""
    lines = [
        f"asks endpoint {endpoint.name} for {seconds * len(counts):g} seconds at most, up to {counts[-1]} requests at "
        f"a time, {load.MOST * len(counts)} in all: others wait for it meanwhile"
    ]
    if endpoint.mode == specs.SERVERLESS:
        return [*lines, "each of them is billed by its milliseconds"]
    if endpoint.instances > 1:
        lines.append(f"it has {endpoint.instances} instances, which share them: one alone is measured more exactly")
    return lines


def verdict(best: Level, endpoint: EndpointInfo, where: str) -> list[str]:
    """What the best concurrency means for --autoscale."""
    said = f"best: {best.rate:.1f} requests a second at {best.concurrency} at a time, p99 {best.p99:.0f} ms"
    if endpoint.mode == specs.SERVERLESS:
        return [said]
    instances = max(1, endpoint.instances)
    target = load.invocations_per_instance(best, instances)
    each = f" / {instances} instances" if instances > 1 else ""
    return [
        said,
        f"{best.rate:.1f}{each} × {load.SAFETY_FACTOR} to be safe × 60 seconds: {where}"
        f"kennel deploy --autoscale 1..4 --invocations-per-instance {target}",
    ]


def show(found: Sequence[Level], console: "Console") -> None:
    """A row for each concurrency."""
    from rich.table import Table

    table = Table(*(["at a time", "answers", "errors", "a second", "p50 ms", "p99 ms"]))
    for level in found:
        numbers = (level.rate, level.p50, level.p99)
        table.add_row(str(level.concurrency), str(level.answers), str(level.errors), *(f"{n:.1f}" for n in numbers))
    console.print(table)
