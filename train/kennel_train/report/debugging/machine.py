"""The pictures of the machine over a job, drawn as plots draws: processors, memory, disk, network; phases as bands."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kennel_train.measure.history import Machine
from kennel_train.report import plots
from kennel_train.report.debugging.heat_map import NAME
from kennel_train.report.debugging.result import Numbers
from kennel_train.report.debugging.usage import bands

MATTERS = 5.0  # MB/s at most, below which disk and network are not shown
LETTER = 8.4  # points of a phase's name for each letter, on a phone
TONES = {"validation": plots.COLOURS["validation:loss"], "train": plots.COLOURS["train:loss"]}
BINS = 150  # points of a line; beyond, neighbours share one
BOX = (0.14, 0.16, 0.83, 0.75)  # of the axes in a panel, shares of it: left, bottom, width, height
UNITS = ((7200.0, 3600.0, "hours"), (180.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))  # from so many seconds on


@dataclass(frozen=True)
class Panel:
    """One picture: its title, what its lines are, each with a tone of the page, and whether they have bands."""

    title: str
    svg: str
    keys: list[tuple[str, str]]
    spread: bool


Group = tuple[str, str, Numbers]  # key, tone, (samples, lines)


def panels(machine: Machine) -> list[Panel]:
    """What was measured: processors and memory always, disk and network where they did something."""
    gpus = f"GPU{'s' * (len(machine.gpu) > 1)}"
    wanted = [
        ("Processors", "%", [("CPU cores", "validation", [machine.cpu]), (gpus, "train", machine.gpu)]),
        (
            "Memory",
            "GB",
            [("of the job's processes", "validation", [[megabytes / 1000 for megabytes in machine.memory]])],
        ),
        ("GPU memory", "%", [("in use", "train", machine.gpu_memory)]),
        ("Disk", "MB/s", [("read", "validation", [machine.read]), ("written", "train", [machine.written])]),
        ("Network", "MB/s", [("received", "validation", [machine.received]), ("sent", "train", [machine.sent])]),
    ]
    found = []
    for at, (title, unit, given) in enumerate(wanted):
        groups = [(key, tone, np.array([line for line in lines if line]).T) for key, tone, lines in given]
        groups = [group for group in groups if np.isfinite(group[2]).any()]
        top = max((float(np.nanmax(values)) for *_, values in groups), default=0.0)
        if groups and (unit != "MB/s" or top >= MATTERS):
            svg = _panel(machine, groups, unit, top, f"machine-{at}")
            spread = len(machine.at) > BINS or any(values.shape[1] > 1 for *_, values in groups)
            found.append(
                Panel(
                    title if unit == "%" else f"{title}, {unit}", svg, [(key, tone) for key, tone, _ in groups], spread
                )
            )
    return found


def _panel(machine: Machine, groups: Sequence[Group], unit: str, top: float, name: str) -> str:
    end = machine.at[-1]
    by, label = next((by, label) for least, by, label in UNITS if end >= least)
    every = -(-len(machine.at) // BINS)
    at = np.array(machine.at)[every // 2 :: every] / by
    with plots.settings(name):
        figure = Figure(figsize=(plots.WIDTH / 72, plots.HEIGHT / 72))
        axes = figure.add_axes(BOX)
        plots.frame(axes, 1, percent=False)
        axes.set(xlim=(0, end / by or 1), ylim=(0, 104 if unit == "%" else 1.1 * top or 1))
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], min_n_ticks=1))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{'%' if unit == '%' else ''}"))
        axes.set_xlabel(f"{label} since the job began", color=plots.MUTED)
        _bands(axes, machine, by)
        for _, tone, values in groups:
            _line(axes, at, values, every, TONES[tone])
        return plots.small(plots.inline(figure, name))


def _line(axes: Axes, at: Numbers, values: Numbers, every: int, color: str) -> None:
    """The mean of all lines of a group over each `every` samples, and a band from the least to the most of them."""
    known = np.isfinite(values)
    starts = np.arange(0, len(values), every)
    counts = np.add.reduceat(known.sum(1), starts)
    sums = np.add.reduceat(np.where(known, values, 0).sum(1), starts)
    low = np.minimum.reduceat(np.where(known, values, np.inf).min(1), starts)
    high = np.maximum.reduceat(np.where(known, values, -np.inf).max(1), starts)
    at = np.append(at, at[-1])[: len(starts)]  # the last samples may be too few for a middle one
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    axes.plot(
        at,
        mean,
        color=color,
        linewidth=1.6,
        marker="o" if len(at) <= plots.MARKED else "",
        markersize=3,
        zorder=3,
        clip_on=False,
    )
    if (high > low).any():
        axes.fill_between(at, low, high, where=counts > 0, color=color, alpha=0.2, linewidth=0, zorder=2)


def _bands(axes: Axes, machine: Machine, by: float) -> None:
    """A band behind every second phase, and its name above where there is room for it."""
    points = BOX[2] * plots.WIDTH / (machine.at[-1] or 1)
    for at, (name, start, end) in enumerate(bands(machine)):
        if at % 2:
            axes.axvspan(start / by, end / by, color=plots.BAND, linewidth=0, zorder=0)
        middle, wide = (start + end) / 2, LETTER * len(name) / points
        if wide <= end - start and NAME.fullmatch(name.replace(" ", "_")):
            axes.text(middle / by, 1.03, name, transform=axes.get_xaxis_transform(), ha="center", color=plots.MUTED,
                      clip_on=False, parse_math=False)  # fmt: skip
