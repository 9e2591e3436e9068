"""A job's report: one self-contained HTML page and the same figures as JSON. What it says first is summary's.

jinja2, for its autoescaping: names of classes and files are a user's, and a `<script>` among them must stay text.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from kennel import files
from kennel.search.trials import TrialsTable
from kennel_train.report import plots  # before all that draw: it quiets matplotlib's import

# isort: split
from kennel_train.measure import formatting
from kennel_train.measure.history import EpochRow
from kennel_train.report import overview
from kennel_train.report.debugging import machine, usage
from kennel_train.report.debugging import plots as debug_plots
from kennel_train.report.debugging import result as debug_result
from kennel_train.report.debugging import summary as debug_summary
from kennel_train.report.search import plots as search_plots
from kennel_train.report.search import result as search_result
from kennel_train.report.search import summary as search_summary

HTML, JSON = "report.html", "report.json"
TEMPLATE = "report.html.jinja"
TABLE = 12  # classes up to which the confusion matrix is a table of numbers, above a heat map
CELLS = 3000  # of a heat map off the diagonal
PAIRS = 12  # most confused
SHOWN = 15  # rows of a long table before the rest is folded away
DENSE = 100  # classes up to which report.json holds the whole confusion matrix; [truth, predicted, photos] beyond
EPOCHS = 300  # rows of the table of epochs; report.json has them all
TRIALS = 200  # rows of the table of trials; report.json has them all
THUMBNAIL = 224  # largest side in the page, pixels


@dataclass(frozen=True)
class Mistake:
    """A photo that the model got wrong."""

    photo: str
    truth: str
    predicted: str
    probability: float  # of the predicted class, calibrated
    thumbnail: NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True)
class Report:
    """Everything that a job has to say for itself; any table may be empty, as in a job that was stopped early."""

    job: str
    outcome: str  # "completed", or "stopped early: ..." in plain words
    device: str
    class_names: tuple[str, ...]
    hyperparameters: dict[str, Any]
    epochs: list[EpochRow]
    best: dict[str, Any]  # stage and epoch
    evaluation: dict[str, Any]  # split -> Evaluation.as_json(), with `confusion` as rows or as an array
    temperature: float
    int8: dict[str, Any]  # kept, reason, fp32_accuracy, int8_accuracy, agreement, photos
    audit: dict[str, Any]  # Audit.as_json()
    phases: list[tuple[str, float]]  # (name, seconds), in order
    throughput: dict[str, float]
    mistakes: list[Mistake]  # worst first
    versions: dict[str, str]
    l2_path: Sequence[Mapping[str, Any]] = ()  # l2, and loss and accuracy of held-out photos; of a solved probe
    mistakes_of: str = "validation"  # the split that they come from
    search: TrialsTable | None = None  # trials.json; None where the job was a single trial
    debug: dict[str, Any] = field(default_factory=dict)  # rules, findings, profile; empty where nothing watched


def write(folder: Path, report: Report) -> None:
    """Put report.html and report.json into a folder, each all at once.

    Raises:
        OSError: the disk is full; no file is then left half-written.
    """
    for name, text in {JSON: as_json(report), HTML: as_html(report)}.items():
        files.put(folder / name, text)


def as_json(report: Report) -> str:
    """Everything but the thumbnails, one line for each field; what is no finite number is null."""
    rows = {field.name: getattr(report, field.name) for field in fields(report)}
    rows["evaluation"] = {split: _sparse(row) for split, row in report.evaluation.items()}
    rows["search"] = report.search or {}
    rows["mistakes"] = [
        {field.name: getattr(mistake, field.name) for field in fields(mistake) if field.name != "thumbnail"}
        for mistake in report.mistakes
    ]
    lines = (
        f"{json.dumps(k)}: {json.dumps(formatting.plain(v), ensure_ascii=False, allow_nan=False)}"
        for k, v in rows.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def as_html(report: Report) -> str:
    """The page. It refers to nothing outside itself and runs no script."""
    waits, best = overview.waits(report.epochs), _best(report.epochs, report.best)
    search = search_result.read(report.search, (report.evaluation.get("validation") or {}).get("photos"))
    debug = debug_result.read(report.debug)
    text = _environment().get_template(TEMPLATE).render(
        report=report,
        chief=overview.chief(report.evaluation),
        splits={split: _split(row) for split, row in report.evaluation.items()},
        look_at=_look_at(report, waits, search, debug),
        curves=_curves(report.epochs, best),
        path=_path(report.l2_path),
        best=best,
        solved=best is not None and "l2" in report.epochs[best],
        waits=[(wait, overview.waiting(wait)) for wait in waits],
        counts=_counts(report.audit),
        search=search,
        search_summary=search_summary,
        search_plots=search_plots,
        trials_shown=TRIALS,
        debug=debug,
        debug_summary=debug_summary,
        debug_usage=usage,
        debug_pictures=debug_plots.pictures,
        debug_machine=lambda given: machine.panels(given.machine),
        layers_shown=debug_summary.LAYERS,
        interval=overview.interval,
        calibration=overview.calibration,
        shown=SHOWN,
        table=TABLE,
        epochs_shown=EPOCHS,
        cells_shown=CELLS,
    )  # fmt: skip
    stripped = (line.strip(" ") for line in text.split("\n"))  # a fifth of the page would be indentation
    return "\n".join(line for line in stripped if line)


def _look_at(
    report: Report,
    waits: Sequence[overview.Wait],
    search: search_result.SearchResult | None,
    debug: debug_result.Debug | None,
) -> list[str]:
    """What deserves a look: first what makes the model wrong, last what a rule merely warns of."""
    starved = debug_summary.starved(debug)
    return [
        *debug_summary.look_at(debug, "error"),
        *overview.look_at(report.evaluation, report.audit, [wait for wait in waits if wait.stage not in starved]),
        *search_summary.look_at(search),
        *debug_summary.look_at(debug, "warning"),
    ]


def _environment() -> Environment:
    pages, package = (
        FunctionLoader(lambda name: (package / name).read_text("utf-8")),
        resources.files("kennel_train.report") / "templates",
    )
    made = Environment(loader=pages, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "percent": formatting.percent,
        "duration": formatting.duration,
        "figure": formatting.figure,
        "picture": _picture,
    }
    return made


def _split(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of one split beside its plain figures."""
    confusion, names = overview.matrix(row), list(row.get("classes") or {})
    return {
        **row,
        "names": names,
        "by_recall": overview.classes(row),
        "cells": overview.cells(confusion, CELLS),
        "pairs": overview.confused(names, confusion, PAIRS),
        "mixed_up": np.count_nonzero(confusion) - np.count_nonzero(confusion.diagonal()),
        "matrix": confusion.tolist() if len(confusion) <= TABLE else [],
        "totals": confusion.sum(1).tolist(),
    }


def _sparse(row: Mapping[str, Any]) -> dict[str, Any]:
    """A split with `confusion` as rows, or, where a million zeros would be most of it, as its cells."""
    confusion = overview.matrix(row)
    if len(confusion) <= DENSE:
        return {**row}
    found = np.argwhere(confusion)
    triples = np.column_stack([found, confusion[found[:, 0], found[:, 1]]])
    return {**row, "confusion": None, "confusion_cells": triples}


def _curves(epochs: Sequence[Mapping[str, Any]], best: int | None) -> dict[str, str]:
    if not epochs:
        return {}
    return {
        "loss": plots.curves(epochs, ("train:loss", "validation:loss"), best, "loss"),
        "accuracy": plots.curves(epochs, ("validation:accuracy",), best, "accuracy"),
    }


def _path(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if not rows:
        return {}
    best = min(range(len(rows)), key=lambda at: rows[at]["loss"])
    return {key: plots.path(rows, key, best, f"path-{key}") for key in ("loss", "accuracy")}


def _best(epochs: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> int | None:
    """The best epoch's position among the epochs."""
    wanted = (best.get("stage"), best.get("epoch"))
    return next((at for at, row in enumerate(epochs) if (row.get("stage"), row.get("epoch")) == wanted), None)


def _counts(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The audit's photos per class and split, a class with few training photos first."""
    counts: dict[str, dict[str, int]] = audit.get("counts") or {}
    names = dict.fromkeys(name for row in counts.values() for name in row)
    rows = [(name, [int(row.get(name, 0)) for row in counts.values()]) for name in names]
    return {
        "splits": list(counts),
        "rows": sorted(rows, key=lambda row: row[1]),
        "totals": [sum(row.values()) for row in counts.values()],
        "largest": [max(row.values(), default=0) for row in counts.values()],
    }


def _picture(thumbnail: NDArray[np.uint8]) -> str:
    """A JPEG as a data: address."""
    image, file = Image.fromarray(thumbnail), io.BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(file, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
