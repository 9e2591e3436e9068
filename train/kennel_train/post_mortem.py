"""The report of a job that fails in its training: what was seen of it until then, which one then wants to look at."""

import dataclasses
import logging
from typing import Any

from kennel_train.contract import failure
from kennel_train.engine.strategies import Training
from kennel_train.finish import Ending
from kennel_train.model import export

log = logging.getLogger("kennel")


def write(job: Training, rows: list[dict[str, Any]], ending: Ending, error: Exception) -> None:
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
