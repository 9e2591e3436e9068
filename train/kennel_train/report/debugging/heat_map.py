"""Norms of a network's layers over its steps as a heat map, drawn as plots draws: rows from input to output.

No bitmap: its colours would be fixed, and the page has a dark mode. A tone is one path of horizontal runs, so that a
map of 600 layers over 200 steps takes some tens of kilobytes.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kennel_train.report import plots
from kennel_train.report.debugging.result import Line, Numbers

ROWS, COLUMNS = 90, 80  # cells at most; beyond, neighbours share one
HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 330, 112, 8, 44, 14  # points
DECADES = 12.0  # between the ends of the scale
LABELS, GAP = 10, 16  # names of groups of layers, and points between two
NAME = re.compile(r"[\w.-]{1,60}", re.ASCII)  # what is drawn of a name; any other text may be anybody's
CUT = 13  # characters of it
BROKEN = len(plots.HEAT)  # a cell's tone
FINE = 0.99  # of all norms lie within the scale; the few beyond get its last tones
Group = tuple[str, int, int]  # label, first layer, end


@dataclass(frozen=True)
class Map:
    """A heat map and what its legend says."""

    svg: str
    low: float  # at the ends of the scale
    high: float
    broken: bool  # some cell was no finite number
    layers: int  # in a row, at most


def draw(lines: Mapping[str, Line], name: str, *, relative: bool) -> Map | None:
    """A map of the layers' norms, or None where there is nothing to draw.

    Args:
        lines: norm over steps by layer, from input to output.
        name: a word, unique in the page, that stands before every id.
        relative: each norm against its layer's first one that is not 0, in two hues; otherwise as it is, in one.
    """
    steps = np.unique(np.concatenate([line.steps for line in lines.values()])) if lines else np.empty(0)
    if not len(steps):
        return None
    logs = [_logs(line, relative=relative) for line in lines.values()]
    low, high = _scale(np.concatenate(logs), relative=relative)
    starts = steps[:: -(-len(steps) // COLUMNS)]
    share = -(-len(lines) // ROWS)
    cells = _cells(list(lines.values()), [log.clip(low, high) for log in logs], starts, share)
    edges = np.append(starts, 2 * steps[-1] - steps[-2] if len(steps) > 1 else steps[-1] + 1)
    svg = _drawn(_levels(cells, low, high), edges, _groups(list(lines)), len(lines) / share, name, relative=relative)
    return Map(svg, 10**low, 10**high, bool(np.isinf(cells).any()), share)


def _logs(line: Line, *, relative: bool) -> Numbers:
    """log10 of the norms; 0 is -inf, what is no finite number nan."""
    with np.errstate(divide="ignore"):
        logs: Numbers = np.log10(np.abs(line.finite))
    if not relative:
        return logs
    known = logs[np.isfinite(logs)]
    base = known[0] if len(known) else 0.0
    before = np.cumsum(np.isfinite(logs)) == 0  # a weight that begins as 0 has not changed yet
    return np.where(before & (logs == -np.inf), 0.0, logs - base)


def _scale(logs: Numbers, *, relative: bool) -> tuple[float, float]:
    """Both ends, as log10."""
    known = logs[np.isfinite(logs)]
    if relative:
        reach = max(float(np.quantile(np.abs(known), FINE)) if len(known) else 0.0, math.log10(1.01))
        return -reach, reach
    if not len(known):
        return -1.0, 0.0
    low, high = np.quantile(known, (1 - FINE, FINE)).tolist()
    low = max(low, high - DECADES)
    room = max(0.0, 1 - (high - low)) / 2  # a scale of a decade at least: what hardly differs looks alike
    return low - room, high + room


def _cells(lines: Sequence[Line], logs: Sequence[Numbers], starts: Numbers, share: int) -> Numbers:
    """(rows, columns) means of log10; nan where nothing was measured, inf where something was not finite."""
    shape = (-(-len(lines) // share), len(starts))
    sums, counts, broken = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    for at, (line, log) in enumerate(zip(lines, logs, strict=True)):
        columns = np.searchsorted(starts, line.steps, "right") - 1
        np.add.at(sums[at // share], columns, np.nan_to_num(log))
        np.add.at(counts[at // share], columns, ~line.broken)
        np.logical_or.at(broken[at // share], columns, line.broken)
    means: Numbers = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return np.where(broken, np.inf, means)


def _levels(cells: Numbers, low: float, high: float) -> NDArray[np.int64]:
    """(rows, columns) tone of each cell: -1 where nothing was measured, `BROKEN` where something was not finite."""
    count = len(plots.HEAT)
    levels = np.full(cells.shape, -1)
    known = np.isfinite(cells)
    levels[known] = np.minimum((cells[known] - low) / (high - low) * count, count - 1).astype(int)
    levels[np.isinf(cells)] = BROKEN
    return levels


def _drawn(
    levels: NDArray[np.int64], edges: Numbers, groups: list[Group], rows: float, name: str, *, relative: bool
) -> str:
    """The <svg>; `rows` as many as the layers fill, the last perhaps in part."""
    height = HEIGHT - TOP - BOTTOM
    with plots.settings(name):
        figure = Figure(figsize=(plots.WIDTH / 72, HEIGHT / 72))
        box = (LEFT / plots.WIDTH, BOTTOM / HEIGHT, 1 - (LEFT + RIGHT) / plots.WIDTH, height / HEIGHT)
        axes = figure.add_axes(box)
        plots.frame(axes, 1, percent=False)
        axes.set(xlim=(edges[0], edges[-1]), ylim=(rows, 0), yticks=[], xlabel="step")
        plots.whole(axes, 5)
        axes.grid(visible=False)
        for tone, color in enumerate([*(plots.SHIFT if relative else plots.HEAT), plots.FAILED]):
            _runs(axes, levels == tone, edges, color, height / rows)
        _labels(axes, groups, rows, height)
        return plots.small(plots.inline(figure, name))


def _runs(axes: Axes, on: NDArray[np.bool_], edges: Numbers, color: str, thick: float) -> None:
    """Cells of one tone: neighbours in a row are one stroke, all strokes one path."""
    padded = np.pad(on, ((0, 0), (1, 1))).astype(np.int8)
    rows, starts = np.nonzero(np.diff(padded, axis=1) == 1)
    _, stops = np.nonzero(np.diff(padded, axis=1) == -1)
    if not len(rows):
        return
    gap = np.full(len(rows), np.nan)
    xs = np.column_stack([edges[starts], edges[stops], gap]).ravel()
    ys = np.column_stack([rows + 0.5, rows + 0.5, gap]).ravel()
    # A little thicker than a row: no seam shows between two. Striped: no colour alone says that a cell is broken.
    style = (0, (3 / thick, 1.2 / thick)) if color == plots.FAILED else "solid"
    how: dict[str, Any] = {"linestyle": style, "solid_capstyle": "butt", "dash_capstyle": "butt"}
    (line,) = axes.plot(xs, ys, color=color, linewidth=1.04 * thick, **how)
    line.get_path().should_simplify = False


def _labels(axes: Axes, groups: list[Group], rows: float, height: float) -> None:
    """The names of groups of layers beside the map, the largest groups first, as many as there is room for."""
    taken: list[float] = []
    layers = groups[-1][2]
    for label, start, end in sorted(groups, key=lambda group: group[1] - group[2]):
        if start:
            axes.axhline(start / layers * rows, color=plots.SURFACE, linewidth=1.2, zorder=3)
        middle = min(max((start + end) / 2 / layers * height, GAP / 2), height - GAP / 2)
        if all(abs(middle - other) >= GAP for other in taken) and NAME.fullmatch(label):
            taken.append(middle)
            said = label if len(label) <= CUT else label[: CUT - 2] + ".."
            axes.text(-0.025, 1 - middle / height, said, transform=axes.transAxes, ha="right", va="center",
                      color=plots.MUTED, parse_math=False, clip_on=False)  # fmt: skip


def _groups(names: list[str]) -> list[Group]:
    """(label, first, end) of neighbouring layers under one module, as deep as leaves no more than `LABELS`."""
    paths = [(name.removeprefix("backbone.").split(".")[:-1] or [name]) for name in names]
    found: list[Group] = []
    for depth in range(1, max(map(len, paths)) + 1):
        deeper: list[Group] = []
        for at, path in enumerate(paths):
            label = ".".join(path[:depth])
            if deeper and deeper[-1][0] == label:
                deeper[-1] = (label, deeper[-1][1], at + 1)
            else:
                deeper.append((label, at, at + 1))
        if found and len(deeper) > LABELS:
            break
        found = deeper
    return found
