"""What lies in a folder that smdebug wrote, as smdebug reads it: tensors, their reductions, losses by mode and step."""

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kennel.errors import UserError
from kennel_train.measure.history import Curve, Tensors

FIRST = 10  # saved steps by which an initialization is judged
_LOSS = re.compile(r"[Ll]oss_(?!input).*output|(?i:(^|/)loss$)")  # smdebug's own of PyTorch, and a custom tensor


class TensorFolder:
    """smdebug's view of the folder, as of a training that has ended: it waits for nothing."""

    def __init__(self, folder: Path) -> None:
        _check(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from kennel_train.debug.smdebug import protobuf

            protobuf.load()
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
