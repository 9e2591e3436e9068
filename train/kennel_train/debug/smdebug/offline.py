"""A folder that smdebug wrote, by whatever training, as a `StageHistory`; and the rules on it, as a command.

python -m kennel_train.debug.smdebug FOLDER [--rules TEXT] [--json]: exit code 0 where nothing fires, 1 where something
does, 2 where the folder or the rules cannot be used.
"""

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kennel.errors import UserError
from kennel_train.debug.rules.findings import RuleFinding
from kennel_train.debug.smdebug.reader import TensorFolder
from kennel_train.measure.history import Evaluated, Seen, StageHistory

_GRADIENT = "gradient/"
_GIVEN = re.compile(r"_(input|output)_\d+$")  # what a module took in or gave out
_INPUT = re.compile(r"_input_\d+$")


def read(folder: Path) -> StageHistory:
    """What a training was seen to do; steps are those of mode TRAIN where it has set modes, else the global ones.

    Raises:
        UserError: there is no folder, smdebug did not write it, or it holds no step.
    """
    seen = TensorFolder(folder)
    series = StageHistory(first=min(seen.steps, default=0), ended=True)
    for step, loss in seen.losses(seen.mode):
        series.loss.add(step, loss)
    series.evaluated = _evaluated(seen)
    for name in seen.named("gradients", f"^{_GRADIENT}"):
        series.gradients[name.removeprefix(_GRADIENT)] = seen.curves(name)
        if spread := seen.first(name, _spread):
            series.gradient_spread[name.removeprefix(_GRADIENT)] = spread
    parameters = [*seen.named("weights", r"weight$"), *seen.named("biases", r"bias$")]
    for name in parameters:
        if not (name.startswith(_GRADIENT) or _GIVEN.search(name)):
            series.weights[name] = seen.curves(name)
    for name in _taken(seen.names):
        if variance := seen.first(name, lambda value: float(value.var())):
            series.activation_variance[_INPUT.sub("", name)] = variance
    series.seen = _seen(seen)
    return series


def _evaluated(seen: TensorFolder) -> list[Evaluated]:
    """Steps of evaluation that follow one another, as one evaluation each.

    Global steps count on at every step of any mode, saved or not: where they run ahead, a training step was between.
    """
    if seen.evaluation is None:
        return []
    train = {seen.trial.global_step(seen.mode, step): (step, loss) for step, loss in seen.losses(seen.mode)}
    judged = {seen.trial.global_step(seen.evaluation, s): (s, loss) for s, loss in seen.losses(seen.evaluation)}
    found: list[Evaluated] = []
    since: list[float] = []
    batches: list[float] = []
    at, ahead, before = 0, None, math.nan

    def close() -> None:
        nonlocal before
        if batches:
            before = statistics.fmean(since) if since else before
            error = statistics.stdev(batches) / math.sqrt(len(batches)) if len(batches) > 1 else 0.0
            found.append(Evaluated(at, before, statistics.fmean(batches), error))
            since.clear()
            batches.clear()

    for number in sorted(train | judged):
        if number in train:
            close()
            at, loss = train[number]
            since.append(loss)
            continue
        step, loss = judged[number]
        if number - step != ahead:
            close()
        ahead = number - step
        batches.append(loss)
    close()
    return found


def _spread(value: NDArray[np.float64]) -> float:
    low, high = np.percentile(value, [5, 95])
    return float(high - low)


def _taken(names: Sequence[str]) -> list[str]:
    """What activation functions took in, by AWS's name for it; where there is nothing, what any module took in."""
    relu = [name for name in names if re.search("relu_input", name)]
    return relu or [name for name in names if _INPUT.search(name) and "oss_input" not in name]


def _seen(seen: TensorFolder) -> Seen | None:
    """The photos of the steps whose labels and predictions were saved."""
    labels, given = (next(iter(seen.named(n, n)), None) for n in ("labels", "predictions"))
    if labels is None or given is None:
        return None
    pairs, last = [], 0
    for step in seen.trial.tensor(labels).steps(seen.mode):
        truth, said = (seen.value(name, step, seen.mode) for name in (labels, given))
        if truth is not None and said is not None and len(said) == truth.size:
            pairs.append((truth.reshape(-1).astype(np.int64), said))
            last = step
    if not pairs:
        return None
    truth = np.concatenate([labels for labels, _ in pairs])
    taken = np.concatenate([said.argmax(1) if said.ndim == 2 else said.reshape(-1) for _, said in pairs])
    classes = max(int(truth.max()) + 1, *(said.shape[1] if said.ndim == 2 else 0 for _, said in pairs), 1)
    wrong = truth[taken.astype(np.int64) != truth]
    return Seen(np.bincount(truth, minlength=classes), np.bincount(wrong, minlength=classes), last)


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kennel_train.debug.smdebug", description=__doc__)
    parser.add_argument("folder", type=Path, help="that smdebug wrote")
    parser.add_argument(
        "--rules", default="all", help='as the hyperparameter: "overfit:patience=3 loss_not_decreasing"'
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    given = parser.parse_args(words)
    from kennel_train.debug.rules import table

    try:
        fired = table.judge(table.chosen(given.rules), read(given.folder))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    findings = [RuleFinding(name, "", 0, what) for name, what in fired.items()]
    if given.json:
        lines = [json.dumps([finding.as_json() for finding in findings], indent=2)]
    else:
        lines = [finding.line() for finding in findings] or ["no rule fires"]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if findings else 0
