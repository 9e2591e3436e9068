"""A folder that smdebug wrote, by whatever training, as a `Series`; and the rules on it, as a command.

python -m kennel_train.smdebug_folder FOLDER [--rules TEXT] [--json]: exit code 0 where nothing fires, 1 where something
does, 2 where the folder or the rules cannot be used.
"""

import argparse
import json
import math
import re
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kennel.errors import UserError
from kennel_train.findings import Finding
from kennel_train.series import Curve, Evaluated, Seen, Series, Tensors

FIRST = 10  # saved steps by which an initialization is judged
_GRADIENT = "gradient/"
_LOSS = re.compile(r"[Ll]oss_(?!input).*output|(?i:(^|/)loss$)")  # smdebug's own of PyTorch, and a custom tensor
_GIVEN = re.compile(r"_(input|output)_\d+$")  # what a module took in or gave out
_INPUT = re.compile(r"_input_\d+$")


def read(folder: Path) -> Series:
    """What a training was seen to do; steps are those of mode TRAIN where it has set modes, else the global ones.

    Raises:
        UserError: there is no folder, smdebug did not write it, or it holds no step.
    """
    seen = _Trial(folder)
    series = Series(first=min(seen.steps, default=0))
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


class _Trial:
    """smdebug's view of the folder, as of a training that has ended: it waits for nothing."""

    def __init__(self, folder: Path) -> None:
        _check(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from kennel_train import smdebug_messages

            smdebug_messages.load()
            from smdebug.core.modes import ModeKeys
            from smdebug.exceptions import TensorUnavailableForStep
            from smdebug.trials import create_trial

            self.trial = create_trial(str(folder))
        self.trial.loaded_all_steps = True
        self.trial.index_reader.event_file_retry_limit = 0  # a file that is missing will not come
        self._absent = TensorUnavailableForStep
        modes = set(self.trial.modes())
        self.mode = ModeKeys.TRAIN if ModeKeys.TRAIN in modes else ModeKeys.GLOBAL
        self.evaluation = next((m for m in (ModeKeys.EVAL, ModeKeys.PREDICT) if m in modes), None)
        self.names: list[str] = self.trial.tensor_names()
        self.steps: list[int] = self.trial.steps(self.mode)
        if not self.trial.steps():
            raise UserError(f"{folder} holds no step: train on, or save more often (save_interval)")

    def named(self, collection: str, pattern: str) -> list[str]:
        """The tensors of a collection, or where nothing of it was saved those that a pattern knows."""
        found = []
        if collection in self.trial.collections():
            expressions = self.trial.collection(collection).include_regex or []
            listed = set(self.trial.collection(collection).tensor_names)
            found = [n for n in self.names if n in listed or any(re.search(e, n) for e in expressions)]
        return found or [name for name in self.names if re.search(pattern, name)]

    def value(self, name: str, step: int, mode: Any) -> NDArray[Any] | None:
        """A tensor, or None where it was not saved whole."""
        try:
            return np.asarray(self.trial.tensor(name).value(step, mode))
        except self._absent:
            return None

    def reduced(self, name: str, step: int, reductions: Sequence[tuple[str, bool]]) -> float | None:
        """The first of these (reduction, of absolute values) that was saved of a tensor."""
        saved = self.trial.tensor(name).reduction_values(step, self.mode)
        return next((float(np.asarray(saved[one]).squeeze()) for one in reductions if one in saved), None)

    def losses(self, mode: Any) -> Iterator[tuple[int, float]]:
        """(step, loss) in order; of several losses that which was saved most often."""
        names = [n for n in self.named("losses", _LOSS.pattern) if "_input_" not in n]
        saved = [(name, self.trial.tensor(name).steps(mode)) for name in names]
        if not saved:
            return
        name, steps = max(saved, key=lambda pair: len(pair[1]))
        for step in steps:
            workers = self.trial.tensor(name).workers(step, mode)
            found = [self.trial.tensor(name).value(step, mode, worker) for worker in workers]
            yield step, float(np.mean([np.mean(value) for value in found]))

    def curves(self, name: str) -> Tensors:
        """Mean of absolute values and Euclidean norm, from the tensor or from its reductions."""
        made = Tensors()
        for step in self.trial.tensor(name).steps(self.mode):
            value = self.value(name, step, self.mode)
            mean = norm = None
            if value is None:
                mean = self.reduced(name, step, [("mean", True)])
                norm = self.reduced(name, step, [("l2", False), ("l2", True)])
            elif value.size:
                flat = value.astype(np.float64).reshape(-1)
                mean, norm = float(np.abs(flat).mean()), float(np.linalg.norm(flat))
            for curve, number in ((made.mean_abs, mean), (made.norm, norm)):
                if number is not None:
                    curve.add(step, number)
        return made

    def first(self, name: str, measure: Any) -> Curve:
        """A number of a tensor in the first steps that it was saved in."""
        made = Curve()
        for step in self.trial.tensor(name).steps(self.mode)[:FIRST]:
            value = self.value(name, step, self.mode)
            if value is not None and value.size:
                made.add(step, measure(value.astype(np.float64)))
        return made


def _check(folder: Path) -> None:
    """That smdebug will not wait for ever for what is not there."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the one that smdebug wrote, as in output/tensors")
    found = sorted((folder / "collections").rglob("*collections.json"))
    if not found:
        raise UserError(f"{folder} holds no collections/*/*_collections.json: give the folder that smdebug wrote")
    try:
        workers = int(json.loads(found[0].read_text())["_meta"]["num_workers"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{found[0]} is no list of collections of smdebug's: copy the folder again") from None
    if len(found) < workers:
        raise UserError(f"{folder} has the collections of {len(found)} of {workers} workers: bring the others' files")


def _evaluated(seen: _Trial) -> list[Evaluated]:
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


def _seen(seen: _Trial) -> Seen | None:
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
    parser = argparse.ArgumentParser(prog="python -m kennel_train.smdebug_folder", description=__doc__)
    parser.add_argument("folder", type=Path, help="that smdebug wrote")
    parser.add_argument(
        "--rules", default="all", help='as the hyperparameter: "overfit:patience=3 loss_not_decreasing"'
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    given = parser.parse_args(words)
    from kennel_train import rules

    try:
        fired = rules.judge(rules.chosen(given.rules), read(given.folder))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    findings = [Finding(name, "", 0, what) for name, what in fired.items()]
    if given.json:
        lines = [json.dumps([finding.as_json() for finding in findings], indent=2)]
    else:
        lines = [finding.line() for finding in findings] or ["no rule fires"]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
