"""The report of a job, of one that has its model and of one that failed in its training. No error here fails a job."""

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from kennel.artifact import Manifest
from kennel.backbones import Backbone
from kennel.search.trials import TrialsTable
from kennel_train.contract import failure
from kennel_train.engine import strategies
from kennel_train.engine.strategies import Trained, Training
from kennel_train.measure.history import EpochRow
from kennel_train.model import export
from kennel_train.model.evaluation import Evaluation, SplitLogits

if TYPE_CHECKING:
    from kennel_train.report import page

log = logging.getLogger("kennel")
MISTAKES = 24  # of the worst, in the report


@dataclasses.dataclass(frozen=True)
class Ending:
    """What the end of a job knows beside the job itself."""

    name: str  # of the job
    backbone: Backbone
    class_names: tuple[str, ...]
    audit: dict[str, Any]
    debug: Callable[[], dict[str, Any]]  # what was seen of the training, for the report
    search: TrialsTable | None = None  # of a single trial there is none


def write(
    job: Training,
    trained: Trained,
    ending: Ending,
    manifest: Manifest,
    found: dict[str, Evaluation],
    mine: dict[str, SplitLogits],
) -> None:
    """report.html and report.json of a job that has its model.

    Args:
        found: by split, of all ranks' photos.
        mine: by split, of this rank's photos, of which the report shows the worst mistakes.
    """
    with job.context.timing("report"):
        try:
            _write(job, trained, ending, manifest, found, mine)
        except Exception as error:  # noqa: BLE001 - the model is written: the job has succeeded
            log.warning("warning: the report could not be written (%s: %s)", type(error).__name__, error)


def write_failed(job: Training, rows: list[EpochRow], ending: Ending, error: Exception) -> None:
    """report.html and report.json of what there is; what goes wrong here does not hide the job's own error.

    Args:
        rows: of the epochs that were finished.
    """
    if not job.context.cluster.is_rank_zero:
        return
    from kennel_train.report import page

    try:
        made = page.Report(
            job=ending.name,
            outcome=f"failed: {failure.describe(error).splitlines()[0]}",
            device=job.context.device.description,
            class_names=ending.class_names,
            hyperparameters=dataclasses.asdict(job.context.hp),
            epochs=rows,
            best={},
            evaluation={},
            temperature=1.0,
            int8={},
            audit=ending.audit,
            phases=list(job.context.timing.seconds.items()),
            throughput={},
            mistakes=[],
            versions=export.versions(),
            debug=ending.debug(),
        )
        page.write(job.context.layout.output_data, made)
    except Exception as refused:  # noqa: BLE001 - whatever it is, the job's own error is what has to be heard
        log.warning("warning: no report was written: %s", refused)


def _write(
    job: Training,
    trained: Trained,
    ending: Ending,
    manifest: Manifest,
    found: dict[str, Evaluation],
    mine: dict[str, SplitLogits],
) -> None:
    from kennel_train.report import page  # here: matplotlib takes a second, which a job that fails early need not wait

    split = "test" if "test" in mine else "validation"
    made = page.Report(
        job=ending.name,
        outcome=_outcome(job, trained),
        device=job.context.device.description,
        class_names=ending.class_names,
        hyperparameters=manifest.hyperparameters,
        epochs=trained.rows,
        l2_path=trained.solved.path if trained.solved else (),
        best={"stage": trained.best.stage, "epoch": trained.best.epoch},
        evaluation={split: {**row.as_json(), "confusion": row.confusion} for split, row in found.items()},
        temperature=manifest.temperature,
        int8=manifest.int8,
        audit=ending.audit,
        phases=list(job.context.timing.seconds.items()),
        throughput=_throughput(job, trained),
        mistakes=_mistakes(job, split, mine[split], manifest),
        mistakes_of=split,
        versions=manifest.versions,
        search=ending.search,
        debug=ending.debug(),
    )
    page.write(job.context.layout.output_data, made)


def _mistakes(job: Training, split: str, mine: SplitLogits, manifest: Manifest) -> "list[page.Mistake]":
    """The surest of the wrong predictions, at most MISTAKES."""
    from kennel_train.report import page

    decoded, labels, names = job.splits.parts[split].mine, mine.labels, manifest.class_names
    sure = softmax(mine.logits / manifest.temperature, axis=1)
    predicted = sure.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-sure[wrong, predicted[wrong]], kind="stable")][:MISTAKES]
    return [
        page.Mistake(
            str(decoded.photos[at].path.relative_to(job.context.root)),
            names[labels[at]],
            names[predicted[at]],
            float(sure[at, predicted[at]]),
            np.array(decoded.images[decoded.local[at]]),
        )
        for at in worst
    ]


def _outcome(job: Training, trained: Trained) -> str:
    if job.context.stop():
        return f"stopped early: SIGTERM came, after {len(trained.rows)} epochs"
    if job.debugger and job.debugger.reason:
        return f"stopped early: {job.debugger.reason}"
    last = trained.rows[-1]["stage"]
    ran = sum(row["stage"] == last for row in trained.rows)
    hp = job.context.hp
    planned = strategies.probe_epochs(hp) if last == "probe" else hp.epochs
    if "l2" in trained.rows[-1]:
        planned = 1
    return "completed" if ran == planned else f"completed: patience={hp.patience} ended {last} after {ran} epochs"


def _throughput(job: Training, trained: Trained) -> dict[str, float]:
    """Photos a second by phase."""
    counts = {name: len(part.photos) for name, part in job.splits.parts.items()}
    seconds = job.context.timing.seconds
    found = {"decoded photos/s": sum(counts.values()) / max(seconds["decode"], 1e-9)}
    if "features" in seconds:
        found["features photos/s"] = (counts["train"] + counts["validation"]) / max(seconds["features"], 1e-9)
    for stage in ("probe", "finetune"):
        speeds = [row["photos_per_second"] for row in trained.rows if row["stage"] == stage]
        if speeds:
            found[f"{stage} photos/s"] = float(np.median(speeds))
    return found
