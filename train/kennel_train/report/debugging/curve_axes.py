"""Axes for a training's curves: linear or logarithmic, as their values ask for; crosses where there is no number."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kennel_train.report import plots
from kennel_train.report.debugging.result import Line, Numbers

WIDE = 20.0  # largest by smallest value from which on an axis is logarithmic
RUNS = 80  # of values that are no finite number, that are drawn
BOX = (0.14, 0.16, 0.83, 0.8)  # of the axes in a panel, shares of it: left, bottom, width, height


def figure_of(label: str) -> tuple[Figure, Axes]:
    """A panel with quiet axes; `label` names the x axis, which counts."""
    figure = Figure(figsize=(plots.WIDTH / 72, plots.HEIGHT / 72))
    axes = figure.add_axes(BOX)
    plots.frame(axes, 1, percent=False)
    axes.set_xlabel(label, color=plots.MUTED)
    plots.whole(axes, 6)
    return figure, axes


def panel(lines: Sequence[Line], label: str) -> tuple[Figure, Axes]:
    """A figure whose axes hold these lines; its y axis is logarithmic where they span much."""
    figure, axes = figure_of(label)
    first, last = min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines)
    room = 0.02 * (last - first) or 0.5
    axes.set_xlim(first - room, last + room)
    known = np.concatenate([line.finite[~line.broken] for line in lines])
    axes.set_ylim(*scale(axes, known))
    return figure, axes


def scale(axes: Axes, known: Numbers) -> tuple[float, float]:
    """Both ends of a y axis around finite values; makes the axis logarithmic where they are positive and span much."""
    if not len(known):
        axes.set_yticks([])
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    positive = known[known > 0]
    if low >= 0 and len(positive) and high / positive.min() >= WIDE:
        axes.set_yscale("log", nonpositive="mask")
        floor, top = math.log10(positive.min()), math.log10(high)
        room = 0.06 * (top - floor)
        axes.yaxis.set_major_locator(FixedLocator(ticks(floor - room, top + room)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return 10 ** (floor - room), 10 ** (top + room)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    if max(abs(low), abs(high)) >= 1e5:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    return (0.0 if low >= 0 and low < room else low - room), high + room


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two powers of ten, two to seven of them where there are so many."""
    for digits in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(low), math.ceil(high) + 1)
        found = [
            digit * 10.0**power for power in powers for digit in digits if low <= math.log10(digit) + power <= high
        ]
        if len(found) <= 7:
            return found
    return found[:: -(-len(found) // 6)]


def broken(axes: Axes, lines: Sequence[Line]) -> None:
    """A cross at the top where a value is no finite number, and a line as long as that lasts."""
    steps = np.unique(np.concatenate([line.steps for line in lines]))
    bad = np.unique(np.concatenate([line.steps[line.broken] for line in lines]))
    on = np.isin(steps, bad)
    starts = np.flatnonzero(on & ~np.roll(np.append(on, False), 1)[:-1])
    for start in starts[:RUNS].tolist():
        stop = start + int(np.argmin(np.append(on[start:], False))) - 1
        for places, how in (([start, stop], {"linewidth": 3}), ([start], {"marker": "x", "markersize": 7, "mew": 2})):
            axes.plot(steps[places], [0.96] * len(places), color=plots.FAILED, transform=axes.get_xaxis_transform(),
                      zorder=5, **how)  # fmt: skip
