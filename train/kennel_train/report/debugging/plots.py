"""The pictures of a training seen from inside, drawn as plots draws: loss, norms, step times and the machine.

Every number is one of ours; what a text says is ours too, or a layer's name of a safe pattern (debug_heat.NAME).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kennel_train.measure.history import PARTS
from kennel_train.report import plots
from kennel_train.report.debugging import curve_axes, heat_map, summary
from kennel_train.report.debugging.heat_map import Map
from kennel_train.report.debugging.result import Debug, Line, Numbers, Stage

FEW = 4  # parameters up to which each one is a line, above a row of a map
EVALUATIONS = 200  # points of a curve of evaluations
BINS = 80  # of the steps, in the picture of their times
TALL = 1.6  # times the 95th percentile from which on a step's time is cut off
COLOURS = (plots.COLOURS["validation:loss"], plots.COLOURS["train:loss"], plots.INK, plots.MUTED)
DASHES = ("solid", (0, (5, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)))


@dataclass(frozen=True)
class Norms:
    """One panel of norms: a map, or lines with their names in the order of their colours."""

    svg: str
    map: Map | None = None
    names: list[str] = field(default_factory=list)
    broken: bool = False


@dataclass(frozen=True)
class Times:
    """The panel of step times; `cut` where some are taller than it."""

    svg: str
    cut: bool


@dataclass(frozen=True)
class Pictures:
    """One stage and its panels; what was not measured is empty or None."""

    stage: Stage
    loss: str
    broken: bool  # some loss was no finite number
    gradients: Norms | None
    weights: Norms | None
    parts: list[summary.Part]
    times: Times | None

    @property
    def normed(self) -> bool:
        return bool(self.gradients or self.weights)


def pictures(debug: Debug) -> list[Pictures]:
    """All stages, in order."""
    return [
        Pictures(
            stage,
            loss(stage, f"loss-{at}"),
            any(line.broken.any() for line in _losses(stage)),
            norms(stage.gradients, f"gradients-{at}", relative=False),
            norms(stage.weights, f"weights-{at}", relative=True),
            summary.parts(stage),
            times(stage, f"times-{at}"),
        )
        for at, stage in enumerate(debug.stages)
    ]


def loss(stage: Stage, name: str) -> str:
    """Every step's loss, the mean between evaluations, validation's with its standard error; empty without any."""
    train, validation = (_thin(stage.evaluated[key], EVALUATIONS) for key in ("train_loss", "validation_loss"))
    error = _thin(stage.evaluated["error"], EVALUATIONS)
    drawn = _losses(stage)
    if not drawn:
        return ""
    train_colour, validation_colour = plots.COLOURS["train:loss"], plots.COLOURS["validation:loss"]
    with plots.settings(name):
        figure, axes = curve_axes.panel(drawn, "step")
        axes.plot(
            stage.loss.steps,
            stage.loss.finite,
            color=train_colour,
            linewidth=1,
            alpha=0.55,
            zorder=2,
            **_dot(stage.loss),
        )
        axes.plot(train.steps, train.finite, color=train_colour, linewidth=2, zorder=3, **_dot(train))
        axes.plot(
            validation.steps, validation.finite, color=validation_colour, linewidth=2, zorder=4, **_dot(validation)
        )
        if np.nansum(error.finite):
            low, high = validation.finite - error.finite, validation.finite + error.finite
            bottom = axes.get_ylim()[0]
            axes.fill_between(
                validation.steps, np.maximum(low, bottom), high, color=validation_colour, alpha=0.18, lw=0
            )
        curve_axes.broken(axes, drawn)
        return plots.small(plots.inline(figure, name))


def _losses(stage: Stage) -> list[Line]:
    known = (stage.loss, stage.evaluated["train_loss"], stage.evaluated["validation_loss"])
    return [line for line in known if len(line)]


def norms(lines: Mapping[str, Line], name: str, *, relative: bool) -> Norms | None:
    """Few parameters as lines, a network's as a map (`relative`: as its changes); None where none was measured."""
    known = {layer: line for layer, line in lines.items() if len(line)}
    if not known:
        return None
    if len(known) > FEW:
        drawn = heat_map.draw(known, name, relative=relative)
        return Norms(drawn.svg, drawn, broken=drawn.broken) if drawn else None
    with plots.settings(name):
        figure, axes = curve_axes.panel(list(known.values()), "step")
        for line, color, dash in zip(known.values(), COLOURS, DASHES, strict=False):
            axes.plot(line.steps, line.finite, color=color, linestyle=dash, linewidth=1.8, zorder=3, **_dot(line))
        curve_axes.broken(axes, list(known.values()))
        broken = any(line.broken.any() for line in known.values())
        return Norms(plots.small(plots.inline(figure, name)), names=list(known), broken=broken)


def times(stage: Stage, name: str) -> Times | None:
    """What each step's time went to, milliseconds, stacked; means of neighbours where there are many steps."""
    known = {part: stage.times[part] for part in PARTS if len(stage.times.get(part, ()))}
    if not known:
        return None
    length = min(map(len, known.values()))
    steps = next(iter(known.values())).steps[:length]
    every = -(-length // BINS)
    stacks = [1000 * _means(np.nan_to_num(line.finite[:length]).clip(0), every) for line in known.values()]
    edges = np.append(steps[::every], 2 * steps[-1] - steps[-2] if length > 1 else steps[-1] + 1)
    whole = np.sum(stacks, axis=0)
    usual = TALL * float(np.quantile(whole, 0.95))
    top = min(float(whole.max()), usual) if usual else float(whole.max())
    with plots.settings(name):
        figure, axes = curve_axes.figure_of("step")
        colors = [plots.PARTS[PARTS.index(part)] for part in known]
        axes.stackplot(edges, [np.append(row, row[-1]) for row in stacks], colors=colors, step="post", linewidth=0)
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.08 * top or 1))
        return Times(plots.small(plots.inline(figure, name)), bool(whole.max() > 1.08 * top))


def _means(values: Numbers, every: int) -> Numbers:
    """Of each `every` neighbours; the last ones may be fewer."""
    starts = np.arange(0, len(values), every)
    means: Numbers = np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
    return means


def _thin(line: Line, limit: int) -> Line:
    """Evenly, the last point kept."""
    if len(line) <= limit:
        return line
    kept = np.unique(np.append(np.arange(0, len(line), -(-len(line) // limit)), len(line) - 1))
    return Line(line.steps[kept], line.values[kept])


def _dot(line: Line) -> dict[str, Any]:
    """A dot for each of few points."""
    return {"marker": "o" if len(line) <= plots.MARKED else "", "markersize": 3.5}
