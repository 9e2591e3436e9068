"""The training loop: epoch, step, evaluate, keep the best, write a checkpoint. It knows neither files nor SageMaker.

Every random choice is a function of (seed, epoch, photo) or (seed, epoch, step), so that a run that was stopped and
taken up again ends with the weights of one that never was.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kennel import metrics
from kennel.errors import UserError
from kennel.metrics import Metric
from kennel_train.context import Context
from kennel_train.distributed import all_reduce
from kennel_train.distributed.device import Device
from kennel_train.engine import recipe
from kennel_train.engine.batches import Dataset, Index
from kennel_train.engine.progress import Best, LoopCallbacks, Run, StagePlan, even_batches
from kennel_train.measure.callbacks import NO_CALLBACK, Callback
from kennel_train.measure.history import EpochRow

_NO_PHOTO = 1e-12  # less than any weight of photos


class DivergedError(UserError):
    """The loss is NaN or infinite."""


def fit(
    module: nn.Module,
    train: Dataset,
    validation: Dataset,
    context: Context,
    plan: StagePlan,
    callbacks: LoopCallbacks,
    state: dict[str, Any] | None = None,
) -> Run:
    """Train `module`; the best epoch on `validation` is in the run that is returned.

    Args:
        state: `Run.as_dict()` of a checkpoint of this stage, or None.

    Raises:
        DivergedError: the loss is NaN or infinite.
    """
    run, hp = Run(module, train, context, plan), context.hp
    if state:
        run.restore(state)
    # Stopped before the first step of all: what can be learned in the time that is left becomes the model.
    late = not run.best.state and run.step == 0 and context.cluster.any(callbacks.stop())
    saved = time.monotonic()
    while not run.ended:
        started, waited, begun = time.monotonic(), train.waited, run.step
        rate = float(run.schedule.get_last_lr()[-1])
        for stopped in steps(run, callbacks.callback, callbacks.hurry if late else callbacks.stop):
            if stopped:
                break
            if time.monotonic() - saved > 60 * hp.checkpoint_minutes and run.step < run.steps:
                callbacks.save(run.as_dict())
                saved = time.monotonic()
        interrupted = run.step < run.steps
        if interrupted and not late:
            callbacks.save(run.as_dict())  # as it is: the epoch goes on here when the job is started again
        if interrupted and run.best.state:
            break
        run.sums.cpu()  # waits for a GPU to be done
        seconds = max(time.monotonic() - started, 1e-9)
        figures = {"learning_rate": rate, "seconds": seconds}
        figures["photos_per_second"] = train.total * (run.step - begun) / run.steps / seconds
        figures["waited"] = (train.waited - waited) / seconds
        # Where there is a model already, a job that is stopped while it validates leaves the epoch as it is.
        cut = callbacks.stop if run.best.state else callbacks.hurry
        closed = close_epoch(run, figures, validation, callbacks.callback, cut)
        if closed is None:
            if not late:
                callbacks.save(run.as_dict())
            break
        callbacks.on_epoch_end(*closed)
        if interrupted:
            break
        if not late:
            callbacks.save(run.as_dict())
            saved = time.monotonic()
    return run


def never() -> bool:
    return False


def evaluate(
    module: nn.Module,
    split: Dataset,
    context: Context,
    callback: Callback = NO_CALLBACK,
    cut: Callable[[], bool] = never,
) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy 0–1) of a module on a split, over all ranks.

    Args:
        cut: asked after each batch; from then on this rank's photos are left out.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    with callback.evaluating():
        for logits, labels in logits_of(module, split, context.device):
            losses = cross_entropy(logits, labels, reduction="none")
            callback.evaluated(losses)
            hits = (logits.argmax(1) == labels).sum()
            count = torch.tensor(len(labels), device=losses.device)
            sums += torch.stack([losses.double().sum(), hits.double(), count]).cpu()
            if cut():
                break
    loss, hits, count = context.cluster.sum(sums).tolist()
    return loss / count, hits / count


def logits_of(module: nn.Module, split: Dataset, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    """(float32 logits (n, classes), labels (n,)) of this rank's items of a split, in order."""
    module.eval()
    with torch.inference_mode(), torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16):
        for inputs, labels in split.evaluation():
            yield module(inputs).float(), labels


def steps(run: Run, callback: Callback, stop: Callable[[], bool]) -> Iterator[bool]:
    """The steps that are left of the running epoch; after each, whether the job is to stop.

    An epoch's photos are dealt evenly over its steps, so that no step has a remainder of one or two.
    """
    train, plan, hp, device, cluster = run.train, run.plan, run.context.hp, run.context.device, run.context.cluster
    parts = np.array_split(train.order(hp.seed, run.epoch), run.steps)[run.step :]
    micro = [_cut(part, plan.micro_batch) for part in parts]
    batches = train.training([index for cuts in micro for index in cuts], hp.seed, run.epoch)
    weights = plan.class_weights.to(device.torch)
    train_mode(run.module, plan.keep_statistics)
    for cuts in micro:
        if cluster.world == 1 and stop() and (run.step or run.epoch > 1 or run.best.state):
            yield True
            return
        torch.manual_seed(hash((hp.seed, run.epoch, run.step, cluster.rank)) % 2**63)  # for dropout
        callback.begin((plan.before + run.epoch - 1) * run.steps + run.step)
        run.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(2, device=device.torch)
        for _ in cuts:
            inputs, labels = next(batches)
            callback.lap("data wait")
            with torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16):
                logits = run.module(inputs)
            loss, weight = recipe.loss_sum(logits, labels, weights, hp.label_smoothing)
            callback.lap("forward")
            loss.backward()  # type: ignore[no-untyped-call]
            callback.lap("backward")
            callback.batch(logits.detach(), labels)
            sums += torch.stack([loss.detach(), weight])
        stopped = all_reduce.share(run.module, sums, cluster, stop() if cluster.world > 1 else False)
        callback.lap("other")
        update(run, sums)
        callback.lap("optimizer")
        callback.end(sums)
        yield stopped


def update(run: Run, sums: Tensor) -> None:
    """One optimizer step, by gradients of a sum over photos; `sums` is (2,): that sum, and the photos' weights.

    A job that was stopped while it extracted features has steps without a photo: they change nothing.
    """
    gradients = [p.grad for p in run.module.parameters() if p.grad is not None]
    if gradients:
        torch._foreach_div_(gradients, sums[1].clamp(min=_NO_PHOTO))  # of several ranks all may be without one
    if run.context.hp.gradient_clip:
        nn.utils.clip_grad_norm_(run.module.parameters(), run.context.hp.gradient_clip)
    run.optimizer.step()
    run.schedule.step()
    if run.average:
        run.average.update_parameters(run.module)
    run.sums += sums
    run.step += 1


def train_mode(module: nn.Module, keep_statistics: bool) -> None:
    module.train()
    for inner in module.modules():
        if keep_statistics and isinstance(inner, nn.modules.batchnorm._BatchNorm):
            inner.eval()


def _cut(part: Index, size: int) -> list[Index]:
    """An optimizer's batch as micro-batches of nearly equal length; none where this rank has no photo in it."""
    return np.array_split(part, even_batches(len(part), size)) if len(part) else []


def close_epoch(
    run: Run,
    figures: dict[str, float],
    validation: Dataset,
    callback: Callback = NO_CALLBACK,
    cut: Callable[[], bool] = never,
) -> tuple[EpochRow, dict[Metric, float]] | None:
    """Judge the epoch, note it, keep it where it is the best, and stand at the start of the next one.

    Args:
        figures: learning_rate, seconds, photos_per_second and waited of `EpochRow`.
        cut: whether judging is to end before its last photo; of a first epoch what was judged until then counts.

    Returns:
        the epoch's row, and its metrics; None where it was cut short and there is a best epoch already: then nothing
        has changed.

    Raises:
        DivergedError: the loss is NaN or infinite.
    """
    plan = run.plan
    values = _epoch_values(run, validation, callback, cut)
    if run.best.state and run.context.cluster.any(cut()):
        return None
    number = {"stage": plan.stage, "epoch": plan.before + run.epoch, "stage_epoch": run.epoch}
    row = cast(EpochRow, {**number, **figures, **{metric.name: value for metric, value in values.items()}})
    run.rows.append(row)
    run.stale += 1
    if not run.best.beats(plan.stage, values):
        state = {key: value.cpu().clone() for key, value in run.judged.state_dict().items()}
        run.best, run.stale = Best(plan.stage, row["epoch"], values, state), 0
    run.epoch, run.step = run.epoch + 1, 0
    run.sums.zero_()
    return row, values


def _epoch_values(run: Run, validation: Dataset, callback: Callback, cut: Callable[[], bool]) -> dict[Metric, float]:
    loss, accuracy = evaluate(run.judged, validation, run.context, callback, cut)
    values = {metrics.VALIDATION_LOSS: loss, metrics.VALIDATION_ACCURACY: accuracy}
    total, weight = run.sums.tolist()
    callback.epoch(total / weight if weight else None, loss)
    if not weight:
        return values
    if not (math.isfinite(total) and math.isfinite(loss)):
        raise DivergedError(f"the loss is NaN or infinite in epoch {run.epoch}: lower learning_rate")
    return {metrics.TRAIN_LOSS: total / weight, **values}
