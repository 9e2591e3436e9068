"""The plots of a search, drawn as plots draws: trials across their hyperparameters, and all their learning curves.

Lines of one colour are one path, and no more are drawn than can be told apart: a thousand trials stay small.
"""

import math
import re
from collections.abc import Sequence
from itertools import chain
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kennel_train.report import plots
from kennel_train.report.search.hyperparameter_axis import Axis, axis
from kennel_train.report.search.result import SearchResult, TrialResult

LINES = 100  # of the best trials
BROKEN = 20  # lines of failed trials
POINTS = 40  # of one learning curve
ROW, TOP, BOTTOM, SIDE = 56, 34, 28, 16  # points: between two axes, and around them
SPREAD = 0.5  # of a choice's place, over which its trials are spread so that they do not hide each other
TONED = (1.0, 0.75, 0.5, 0.25, 0.1)  # shares of the trials, counted from the best, up to which each tone reaches
FULL = 20  # trials from which on the whole of that is used
FAR = 4.0  # times the median's distance from the best: what is farther lies at the axis's end
WORD = re.compile(r"(?:[<>] ?)?[\w.+%, -]{1,40}", re.ASCII)  # what is drawn; any other text may be anybody's
Line = tuple[Sequence[float], Sequence[float]]


def plots_of(search: SearchResult) -> dict[str, str]:
    """Both plots by name, empty where there is nothing to draw."""
    return {"across": _across(search) if search.space and search.trials else "", "curves": _curves(search)}


def judged(search: SearchResult) -> list[TrialResult]:
    """The trials that are drawn, the best first: those with a result of their own."""
    known = [trial for trial in search.trials if trial.value is not None and trial.state not in ("same", "failed")]
    return known[:LINES]


def caption(search: SearchResult) -> str:
    """What the plot across the axes leaves out."""
    known = sum(trial.value is not None for trial in search.ranked if trial.state != "same")
    said = [f"The best {LINES} of {known:,} trials with a result are drawn."] if known > LINES else []
    if len(search.failed) > BROKEN:
        said.append(f"Of {len(search.failed):,} failed trials {BROKEN} are drawn.")
    rest = sum(trial.value is None or trial.state == "same" for trial in search.ranked)
    if rest:
        said.append(f"Not drawn: {rest:,} without a result of {'its' if rest == 1 else 'their'} own.")
    return " ".join(said)


def _across(search: SearchResult) -> str:
    """Parallel coordinates: an axis for each hyperparameter, the objective's last, a line for each trial."""
    good, bad = judged(search), search.failed[:BROKEN]
    axes = [axis(name, tried, [t.settings.get(name) for t in good + bad]) for name, tried in search.space.items()]
    result = _result(search, [trial.value for trial in good if trial.value is not None])
    shown = [*axes, result] if good else axes
    height = max(plots.HEIGHT, TOP + BOTTOM + ROW * (len(shown) - 1))
    rows = np.linspace(TOP, height - BOTTOM, len(shown)).tolist()
    ranks = ((len(good) - 1) / 2 - np.arange(len(good))) / max(len(good), FULL)
    lines = [
        ([*_places(axes, t, rank), _clipped(result, t)], rows) for t, rank in zip(good, ranks.tolist(), strict=True)
    ]
    with plots.settings("across"):
        figure = Figure(figsize=(plots.WIDTH / 72, height / 72))
        canvas = figure.add_axes((SIDE / plots.WIDTH, 0, 1 - 2 * SIDE / plots.WIDTH, 1))
        canvas.set_axis_off()
        canvas.set(xlim=(0, 1), ylim=(height, 0))
        _draw(
            canvas, [(_places(axes, t, 0.0), rows[: len(axes)]) for t in bad], color=plots.FAILED, linestyle=(0, (4, 3))
        )
        _toned(canvas, lines, search)
        best = search.best.settings if search.best and search.best in good else {}
        if best:
            canvas.plot(*lines[0], color=plots.INK, linewidth=2.2, marker="o", markersize=6, zorder=4, clip_on=False)
        for one, row in zip(shown, rows, strict=True):
            _rule(canvas, one, row, one.said(best[one.name]) if one.name in best else "")
        return plots.small(plots.inline(figure, "across"))


def _places(axes: Sequence[Axis], trial: TrialResult, rank: float) -> list[float]:
    """Where a trial crosses the axes; on a choice by its `rank`, -0.5 to 0.5, the better ones further to the right."""
    spread = [SPREAD * rank / len(one.values) if one.values else 0.0 for one in axes]
    return [one.place(trial.settings.get(one.name)) + by for one, by in zip(axes, spread, strict=True)]


def _result(search: SearchResult, values: list[float]) -> Axis:
    """The objective's axis, the best at its right end; one bad trial does not push all others together there."""
    if not values:
        return Axis(search.words, said=search.said)
    best, far = values[0], FAR * abs(values[0] - median(values))
    inside = [value for value in values if not far or abs(value - best) <= far]
    ends = (min(inside), max(inside))
    low, high = ends if search.maximize else ends[::-1]
    return Axis(search.words, low, high, said=search.said, cut=len(inside) < len(values))


def _clipped(result: Axis, trial: TrialResult) -> float:
    return min(1.0, max(0.0, result.place(trial.value)))


def _rule(canvas: Axes, one: Axis, row: float, best: str) -> None:
    """One axis: its line, its name and the best trial's value above it, its ticks below."""
    canvas.plot([0, 1], [row, row], color=plots.MUTED, linewidth=1, zorder=3, clip_on=False)
    _word(canvas, 0, row - 9, one.name, ha="left")
    _word(canvas, 1, row - 9, best, ha="right", weight="bold")
    for place, word in one.ticks():
        canvas.plot([place, place], [row, row + 4], color=plots.MUTED, linewidth=1, zorder=3, clip_on=False)
        at_end = "left" if place <= 0 else "right" if place >= 1 else "center"
        _word(canvas, place, row + 16, word, ha=at_end, color=plots.MUTED)


def _word(canvas: Axes, x: float, y: float, word: str, *, color: str = plots.INK, **how: Any) -> None:
    """A text of ours; whatever else a table may hold is not drawn."""
    if WORD.fullmatch(word):
        canvas.text(x, y, word, color=color, zorder=6, clip_on=False, parse_math=False, **how)


def _curves(search: SearchResult) -> str:
    """The objective by epoch, a line for each trial, the best one's strong and its best epoch ringed."""
    trials = [trial for trial in judged(search) if trial.row.get("curve")]
    lines = [_curve(trial.row["curve"], search) for trial in trials]
    known = [value for _, values in lines for value in values if math.isfinite(value)]
    if not known:
        return ""
    with plots.settings("curves"):
        figure = Figure(figsize=(plots.WIDTH / 72, plots.HEIGHT / 72))
        axes = figure.add_axes((0.125, 0.155, 0.85, 0.795))
        longest = max(int(places[-1]) for places, _ in lines)
        plots.frame(axes, longest, percent=search.is_share)
        axes.set_ylim(_span(known, lines[0][1], maximize=search.maximize))
        _toned(axes, lines, search, marker="o" if longest == 1 else "")
        if trials[0] is search.best:
            axes.plot(*lines[0], color=plots.INK, linewidth=2.2, zorder=4)
            epochs = [row.get("epoch") for row in search.best.row["curve"]]
            if (epoch := search.best.row.get("epoch")) in epochs:
                plots.ring(axes, epochs.index(epoch) + 1, search.best.value)
        return plots.small(plots.inline(figure, "curves"))


def _curve(rows: Sequence[Any], search: SearchResult) -> Line:
    """A trial's line, thinned; its best and its last point stay."""
    values = [plots.number(row.get(search.objective)) for row in rows]
    losses = [-value if search.maximize else value for value in values]
    best = min(range(len(rows)), key=lambda at: losses[at] if math.isfinite(losses[at]) else math.inf)
    kept = sorted({*range(0, len(rows), -(-len(rows) // POINTS)), best, len(rows) - 1})
    return [at + 1 for at in kept], [values[at] for at in kept]


def _span(values: list[float], best: Sequence[float], *, maximize: bool) -> tuple[float, float]:
    """The y axis: without the worst twentieth of all points, but with all of the best trial's."""
    ends = np.quantile(values, (0.05, 1) if maximize else (0, 0.95)).tolist()
    low, high = (pick([*ends, *(value for value in best if math.isfinite(value))]) for pick in (min, max))
    room = 0.05 * (high - low) or 0.05
    return low - room, high + room


def _toned(axes: Axes, lines: Sequence[Line], search: SearchResult, **how: Any) -> None:
    """Lines, the best first, in the tones of their ranks: few in the strongest, which is on top."""
    ends = [math.ceil(share * len(lines)) for share in TONED]
    for tone, (color, end, start) in enumerate(zip(plots.TONES, ends, [*ends[1:], 0], strict=True)):
        its = lines[start:end]
        if search.flat:
            its = lines if tone == len(TONED) // 2 else []
        _draw(axes, its, color=color, zorder=2 + tone / 10, linewidth=0.8 + tone / 10, alpha=0.6 + tone / 12, **how)


def _draw(axes: Axes, lines: Sequence[Line], **how: Any) -> None:
    """Many lines as a single path."""
    if lines:
        xs, ys = ([*chain.from_iterable([*line[way], math.nan] for line in lines)] for way in (0, 1))
        axes.plot(xs, ys, **({"linewidth": 1.2, "alpha": 0.8} | how))
