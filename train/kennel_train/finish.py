"""The end of a job: the best epoch judged and calibrated, exported, quantized where that is exact, and reported."""

import dataclasses
import functools
import logging
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray
from torch.onnx import ONNXProgram

from kennel import metrics
from kennel.artifact import Manifest
from kennel_train import reporting
from kennel_train.contract.stop import grace
from kennel_train.engine import crops, features, final_head, loop
from kennel_train.engine.batches import CropDataset, Dataset
from kennel_train.engine.strategies import Trained, Training
from kennel_train.model import evaluation, export, int8_gate
from kennel_train.model.evaluation import Evaluation, SplitLogits
from kennel_train.model.int8_gate import Gate
from kennel_train.reporting import Ending

log = logging.getLogger("kennel")


def finish(job: Training, trained: Trained, ending: Ending, program: ONNXProgram | None) -> Manifest | None:
    """Everything after the last step; all ranks judge their photos, rank 0 writes, and has the manifest.

    Args:
        program: `export.trace`'s, of before the training; None traces now.

    Raises:
        RuntimeError: the ranks' weights differ, or ONNX Runtime and torch disagree.
        OSError: the disk is full.
    """
    inputs = dict(trained.inputs)
    if "test" in job.splits.parts:
        inputs["test"] = CropDataset.of(job.splits.parts["test"], job.context.hp, job.context.device)
    int8 = job.context.hp.int8 and not job.context.cluster.any(job.context.stop())
    with job.context.timing("evaluate"):
        seen = [split for split in inputs if split == "validation" or (split == "train" and int8)]
        mine = {split: _judge(job, inputs[split]) for split in seen}
    before = {key: value.cpu().numpy().copy() for key, value in job.classifier.head.state_dict().items()}
    final = final_head.fit(job, trained)
    _agree(job)
    with job.context.timing("evaluate"):
        if "test" in inputs:
            mine["test"] = _judge(job, inputs["test"])
        everyones = {split: _everyones(job, inputs[split], mine[split]) for split in inputs if split != "train"}
        unseen = _unseen(job, trained, everyones["validation"])
    if not job.context.cluster.is_rank_zero:
        return None
    temperature = evaluation.calibrate(unseen.logits, unseen.labels)
    for split, row in everyones.items():
        if len(row.labels) < inputs[split].total:
            log.warning("stopped: judged by %d of %d %s photos", len(row.labels), inputs[split].total, split)
    found = {
        split: evaluation.evaluate(row.logits, row.labels, ending.class_names, temperature)
        for split, row in everyones.items()
    }
    manifest = _manifest(job, trained, ending, found, temperature)
    if final:
        log.info("head: learned from train and validation; what is said of validation is the head of train's")
        manifest.data["head"] = "train and validation"
    manifest = _export(job, program, manifest, mine if int8 else None, before if final else None)
    log.info("model: %s (epoch %d of %d)", job.context.layout.model, trained.best.epoch, len(trained.rows))
    log.info("int8: %s", manifest.int8.get("reason", "not tried"))
    reporting.write(job, trained, ending, manifest, found, mine)
    log.info("time: %s", ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in job.context.timing.seconds.items()))
    return manifest


def _agree(job: Training) -> None:
    """Every rank says which weights it has; they are the same to the last bit, or the job fails."""
    if job.context.cluster.world == 1:
        return
    mine = features.weights_digest(job.classifier)
    log.warning("weights of process %d of %d: %s", job.context.cluster.rank, job.context.cluster.world, mine)
    if len(set(job.context.cluster.gather(mine))) > 1:
        raise RuntimeError("the processes of this job ended with different weights: report this with the log")


def _judge(job: Training, split: Dataset) -> SplitLogits:
    """The best epoch's logits of this rank's photos, in full precision (of features, as they were extracted)."""
    module = job.classifier if isinstance(split, CropDataset) else job.classifier.head
    exact = dataclasses.replace(job.context.device, bf16=False)
    late = grace(job.context.stop)  # a job that was stopped is judged by as many photos as there is time for
    rows = []
    for logits, labels in loop.logits_of(module, split, exact):
        rows.append((logits.cpu().numpy(), labels.cpu().numpy()))
        if late():
            break
    empty = (np.empty((0, job.classifier.head.out_features), np.float32), np.empty(0, np.int64))
    return SplitLogits(*(np.concatenate(column) for column in zip(empty, *rows, strict=True)))


def _everyones(job: Training, split: Dataset, mine: SplitLogits) -> SplitLogits:
    done = len(mine.labels)
    index, *columns = zip(*job.context.cluster.gather((split.index[:done], mine.logits, mine.labels)), strict=True)
    order = np.argsort(np.concatenate(index))
    return SplitLogits(*(np.concatenate(column)[order] for column in columns))


def _unseen(job: Training, trained: Trained, validation: SplitLogits) -> SplitLogits:
    """Of all ranks, for calibration: validation, and the training photos that a fold's head had not learned from."""
    held_out = trained.solved.held_out if trained.solved else None
    if held_out is None or trained.best.stage != "probe":
        return validation
    mine = (held_out.logits.numpy(), held_out.labels.numpy())
    rows = [(validation.logits, validation.labels), *job.context.cluster.gather(mine)]
    return SplitLogits(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def _manifest(
    job: Training, trained: Trained, ending: Ending, found: dict[str, Evaluation], temperature: float
) -> Manifest:
    values = dict(trained.best.values)
    if "test" in found:
        values |= {metrics.TEST_LOSS: found["test"].loss, metrics.TEST_ACCURACY: found["test"].top1}
    # SageMaker takes the last value of a metric for the job's: it is the model's, not the last epoch's or trial's.
    log.info(metrics.line(values, best_epoch=trained.best.epoch))
    return Manifest(
        class_names=ending.class_names,
        preprocessing=ending.backbone.preprocessing,
        backbone={key: getattr(ending.backbone, key) for key in ("name", "library", "weights")},
        metrics={"epoch": trained.best.epoch, **{metric.name: value for metric, value in values.items()}},
        data=job.splits.provenance(job.context.root),
        hyperparameters=dataclasses.asdict(job.context.hp) | _l2(trained),
        temperature=temperature,
        evaluation={split: row.as_json() for split, row in found.items()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _l2(trained: Trained) -> dict[str, float]:
    """What cross-validation chose, as if it had been given."""
    row = trained.rows[trained.best.epoch - 1]
    return {"l2": row["l2"]} if "l2" in row else {}


def _export(
    job: Training,
    program: ONNXProgram | None,
    manifest: Manifest,
    mine: dict[str, SplitLogits] | None,
    head: dict[str, NDArray[np.float32]] | None,
) -> Manifest:
    """Write the model folder; int8 is judged on rank 0's photos of train and validation.

    Args:
        mine: the logits of rank 0's photos, None without int8.
        head: whose logits these are, where it is not the model's.
    """
    gate = None
    if mine and all(len(mine[split].labels) for split in ("train", "validation")):
        train, validation = (
            int8_gate.GateSplit(_squares(job, split), mine[split].logits, mine[split].labels)
            for split in ("train", "validation")
        )
        gate = Gate(train, validation, job.context.stop, head)
    split = "validation" if len(job.splits.parts["validation"].mine.local) else "train"
    count = min(4, len(job.splits.parts[split].mine.local))
    sample = torch.from_numpy(np.ascontiguousarray(_squares(job, split)(np.arange(count))))
    folder, timing = job.context.layout.model, job.context.timing
    if program is None:
        with timing("trace network"):
            program = export.trace(job.classifier.cpu(), manifest.backbone["name"])
    return export.export(job.classifier, program, sample, manifest, folder, int8=gate, phase=timing)


def _squares(job: Training, split: str) -> functools.partial[NDArray[np.uint8]]:
    """A function of items: the photos as the model sees them, uint8 (n, 3, S, S)."""
    decoded = job.splits.parts[split].mine
    return functools.partial(_cut, decoded.images, decoded.local, job.context.hp.image_size)


def _cut(images: NDArray[np.uint8], local: NDArray[np.int64], side: int, items: NDArray[np.int64]) -> NDArray[np.uint8]:
    return crops.middle(images, local[items], side).transpose(0, 3, 1, 2)
