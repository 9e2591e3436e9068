"""The report's learning curves as inline SVG whose colours are the page's CSS variables. Draws no text of a user's.

matplotlib, for its axes and ticks; by its object-oriented API, so that no global figure or backend is chosen.
"""

import io
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a read-only home makes it warn of a slower next import

import matplotlib  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: E402

WIDTH, HEIGHT = 460, 270  # points, one panel; a phone shows it at three quarters, so 11 points stay readable
MARKED = 30  # epochs up to which each one gets a dot

# Colours that stand for a CSS variable: matplotlib insists on numbers, dark mode insists on names.
INK, MUTED, GRID, BAND = "#010101", "#020202", "#030303", "#040404"
COLOURS = {"train:loss": "#050505", "validation:loss": "#060606", "validation:accuracy": "#060606"}
TONES = ("#070001", "#070002", "#070003", "#070004", "#070005")  # of a search's trials, from the worst to the best
FAILED, SURFACE = "#080808", "#080809"
PARTS = ("#090001", "#090002", "#090003", "#090004", "#090005", "#090006")  # of a step's time, as in history.PARTS
HEAT = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005", "#0a0006", "#0a0007")  # of a norm, from little to much
SHIFT = ("#0b0001", "#0b0002", "#0b0003", "#0b0004", "#0b0005", "#0b0006", "#0b0007")  # of a change, from less to more
VARIABLES = {
    **{tone: f"--part-{number}" for number, tone in enumerate(PARTS)},
    **{tone: f"--heat-{number}" for number, tone in enumerate(HEAT)},
    **{tone: f"--shift-{number}" for number, tone in enumerate(SHIFT)},
    **{tone: f"--tone-{number}" for number, tone in enumerate(TONES)},
    FAILED: "--bad",
    SURFACE: "--surface",
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    BAND: "--band",
    COLOURS["train:loss"]: "--train",
    COLOURS["validation:loss"]: "--validation",
}


def curves(epochs: Sequence[Mapping[str, Any]], keys: Sequence[str], best: int | None, name: str) -> str:
    """One panel: a line for each key over all epochs, stages as bands, the best epoch ringed.

    Args:
        epochs: in order; each has `stage`, any of `keys` may be absent, None or not finite (a gap).
        keys: the series, each one of `COLOURS`; accuracies are shown as percentages.
        best: the best epoch's position in `epochs`.
        name: a word, unique in the page, that stands before every id.

    Returns:
        an <svg> element without size, prolog or metadata; it fills its container.
    """
    rows = {key: [number(epoch.get(key)) for epoch in epochs] for key in keys}
    with settings(name):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        axes = figure.add_axes((0.125, 0.155, 0.85, 0.755))
        frame(axes, len(epochs), percent=all(key.endswith("accuracy") for key in keys))
        _stages(axes, [str(epoch.get("stage", "")) for epoch in epochs])
        for key, values in rows.items():
            marker = "o" if len(values) <= MARKED else ""
            places = range(1, len(values) + 1)
            axes.plot(places, values, color=COLOURS[key], linewidth=2, marker=marker, markersize=3.5, zorder=3)
        if best is not None:
            axes.axvline(best + 1, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=2)
            ring(axes, best + 1, rows[keys[-1]][best])
        return inline(figure, name)


def path(rows: Sequence[Mapping[str, Any]], key: str, best: int, name: str) -> str:
    """One panel: `loss` or `accuracy` of held-out photos over the L2, the chosen one ringed; an <svg> as `curves` has.

    Args:
        rows: by `l2`, each with `key`.
        name: a word, unique in the page, that stands before every id.
    """
    places, values = [number(row["l2"]) for row in rows], [number(row[key]) for row in rows]
    with settings(name):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        axes = figure.add_axes((0.125, 0.155, 0.85, 0.755))
        frame(axes, 1, percent=key == "accuracy")
        axes.set_xscale("log")
        axes.set_xlim(places[0] / 2, places[-1] * 2)
        axes.set_xlabel("L2", color=MUTED)
        axes.plot(places, values, color=COLOURS["validation:loss"], linewidth=2, marker="o", markersize=3.5, zorder=3)
        axes.axvline(places[best], color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=2)
        ring(axes, places[best], values[best])
        axes.tick_params(which="both", colors=MUTED, length=0, pad=6)
        return inline(figure, name)


STEPS = [1, 2, 2.5, 5, 10]
_DEFAULTS = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}


def settings(name: str) -> AbstractContextManager[None]:
    """matplotlib's settings for one drawing, in a context, so that neither a user's matplotlibrc nor ours leaks out."""
    return matplotlib.rc_context({**_DEFAULTS, "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 11})


def number(value: Any) -> float:
    """nan, which matplotlib draws as a gap, for whatever is no finite number."""
    return float(value) if isinstance(value, int | float) and abs(value) < float("inf") else float("nan")


def ring(axes: Axes, place: float, value: float | None) -> None:
    """Mark the best epoch, or L2."""
    axes.plot([place], [number(value)], "o", markersize=10, fillstyle="none", color=INK, mew=1.6, zorder=4)


def frame(axes: Axes, count: int, *, percent: bool) -> None:
    """Quiet axes over `count` epochs: a grid, no box."""
    axes.set_facecolor("none")
    axes.set_xlim(0.5, max(count, 1) + 0.5)
    axes.margins(y=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    if percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))
    axes.set_xlabel("epoch", color=MUTED)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.tick_params(colors=MUTED, length=0, pad=6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def whole(axes: Axes, count: int) -> None:
    """At most `count` whole numbers on the x axis, with thousands' commas."""
    axes.xaxis.set_major_locator(MaxNLocator(count, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _stages(axes: Axes, stages: list[str]) -> None:
    """A band behind every second stage and each stage's name above it; a single stage needs neither."""
    start = 0.5
    runs = [(stage, len(list(run))) for stage, run in groupby(stages)]
    for number, (stage, length) in enumerate(runs if len(runs) > 1 else []):
        if number % 2:
            axes.axvspan(start, start + length, color=BAND, linewidth=0, zorder=0)
        axes.text(
            start + length / 2,
            1.03,
            stage,
            transform=axes.get_xaxis_transform(),
            ha="center",
            color=MUTED,
            clip_on=False,
        )
        start += length


def inline(figure: Figure, name: str) -> str:
    """The figure's <svg> for a page that holds several: unique ids, colours by variable, the size left to CSS."""
    file = io.StringIO()
    figure.patch.set_visible(False)
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(file, metadata=metadata)  # type: ignore[no-untyped-call]
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style).*?</\1>\s*|<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r' (?:width|height)="[^"]*pt"| xmlns(?::\w+)?="[^"]*"| version="1.1"', "", text, count=5)
    text = re.sub(r"\bid=\"|url\(#|href=\"#", lambda found: found.group() + name + "-", text)
    text = re.sub(r" font-family: [^;\"]*;", "", text)  # the page's
    return re.sub("|".join(VARIABLES), lambda found: f"var({VARIABLES[found.group()]})", text)


def small(svg: str) -> str:
    """Coordinates to a hundredth of a point."""
    paths = re.compile(r' d="[^"]*"')
    return paths.sub(lambda found: re.sub(r"(\.\d\d)\d+| *\n", r"\1", found.group()), svg)
