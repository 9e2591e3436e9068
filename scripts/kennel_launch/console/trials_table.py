"""The trials of a search, from the trials.json that the job writes after each: put in order, as a table, as lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kennel.hyperparameters import text
from kennel.search.trials import TrialRow, TrialsTable

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 20
_SOME = 3  # of those that failed or go on, where not all are shown
_PLACES = {"complete": 1, "same": 1, "pruned": 2, "failed": 3, "running": 4}  # the best is in place 0


@dataclass(frozen=True)
class Trials:
    """One state of a search."""

    objective: str
    maximize: bool
    search: str
    tuned: tuple[str, ...]
    rows: tuple[TrialRow, ...]
    best: int | None
    seconds: float

    @property
    def winner(self) -> TrialRow | None:
        """The best trial; it has no value where the search was stopped in it."""
        return next((row for row in self.rows if row["number"] == self.best), None)

    @property
    def ended(self) -> int:
        return sum(row["state"] != "running" for row in self.rows)


def read(path: Path) -> Trials | None:
    """The trials so far, None where there are none yet."""
    try:
        content: TrialsTable = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # a view must not end the search that it shows
        return None
    return Trials(
        objective=content["objective"],
        maximize=content["goal"] == "Maximize",
        search=content["search"],
        tuned=tuple(content["space"]),
        rows=tuple(content["trials"]),
        best=content["best"],
        seconds=content["seconds"],
    )


def ordered(trials: Trials) -> list[TrialRow]:
    """The best first; those stopped early after those that went to the end, then what failed, then what is not over."""

    def key(row: TrialRow) -> tuple[float, ...]:
        worth = float("inf") if row["value"] is None else -row["value"] if trials.maximize else row["value"]
        return 0 if row["number"] == trials.best else _PLACES[row["state"]], worth, row["number"]

    return sorted(trials.rows, key=key)


def chosen(trials: Trials, most: int = SHOWN) -> list[TrialRow]:
    """The rows of a table that is not too long: the best ones, the newest, and some that failed or go on."""
    running = _numbers(trials, "running")[:_SOME]  # the job takes them by number, and does not say which it has begun
    rows = [row for row in ordered(trials) if row["state"] != "running" or row["number"] in running]
    over = [number for state in _PLACES if state != "running" for number in _numbers(trials, state)]
    must = {*running, *_numbers(trials, "failed")[-_SOME:], *sorted(over)[-1:]}
    others = [row["number"] for row in rows if row["number"] not in must][: most - len(must)]
    return [row for row in rows if row["number"] in {*must, *others}]


def _numbers(trials: Trials, state: str) -> list[int]:
    return sorted(row["number"] for row in trials.rows if row["state"] == state)


def table(trials: Trials) -> "Table":
    """Best first, as many as fit a screen."""
    from rich.table import Table
    from rich.text import Text

    rows = chosen(trials)
    left = len(trials.rows) - len(rows)
    made = Table(
        title=f"{trials.search} search: {trials.ended} trials ended in {trials.seconds:.0f} s",
        caption=f"and {left} more" if left else None,
        title_justify="left",
        caption_justify="left",
    )
    made.add_column("trial", justify="right")
    for name in (*trials.tuned, trials.objective, "epoch", "seconds"):
        made.add_column(Text(name), justify="right")
    made.add_column("", overflow="fold")
    for row in rows:
        settings = [_short(row["hyperparameters"].get(name)) for name in trials.tuned]
        figures = (_figure(row["value"]), _short(row["epoch"]), f"{row['seconds']:.1f}")
        style = {"failed": "red", "pruned": "dim", "running": "cyan"}.get(row["state"], "")
        cells = map(Text, (str(row["number"]), *settings, *figures, remark(row, trials.best)))
        made.add_row(*cells, style="bold" if row["number"] == trials.best else style)
    return made


def lines(before: Trials | None, now: Trials) -> Iterator[str]:
    """One line for each trial that has ended since."""
    known = {row["number"] for row in before.rows if row["state"] != "running"} if before else set()
    for row in now.rows:
        if row["number"] not in known and row["state"] != "running":
            said = "best so far" if row["number"] == now.best else remark(row, now.best)
            yield f"{summary_line(row, now)} {said}".rstrip()


def summary_line(row: TrialRow, trials: Trials) -> str:
    """`trial 7: validation:accuracy=0.9400 learning_rate=0.01 batch_size=32`."""
    value = [] if row["value"] is None else [f"{trials.objective}={_figure(row['value'])}"]
    settings = [f"{name}={_short(row['hyperparameters'].get(name))}" for name in trials.tuned]
    return " ".join([f"trial {row['number']}:", *value, *settings])


def remark(row: TrialRow, best: int | None) -> str:
    """What there is to say of one trial beside its figures."""
    reason = " ".join(str(row["reason"]).split())
    said = {
        "running": "running or next",
        "pruned": f"stopped early{': ' if reason else ''}{reason}",
        "failed": f"failed{': ' if reason else ''}{reason}",
        "same": f"same as trial {row['same_as']}",
    }.get(row["state"], reason)
    return "best" if row["number"] == best else said


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
