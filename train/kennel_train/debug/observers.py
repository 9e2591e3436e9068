"""Who watches a job: by its hyperparameters and by SageMaker's files on debugging, profiling and TensorBoard.

What each of them needs is imported only where it is asked for: smdebug costs seconds, and most jobs have no use for it.
"""

import functools
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from kennel import files
from kennel.hyperparameters import Hyperparameters
from kennel.layout import Layout
from kennel_train.context import Context
from kennel_train.debug import hook_config, snapshot, trace
from kennel_train.debug.debugger import Debugger
from kennel_train.debug.hook_config import Asked
from kennel_train.debug.rules import table
from kennel_train.debug.rules.table import Chosen
from kennel_train.measure import formatting
from kennel_train.measure.callbacks import NO_CALLBACK, Callback, CallbackList
from kennel_train.measure.history import EpochRow
from kennel_train.measure.machine_sampler import Sampler

log = logging.getLogger("kennel")
PROFILE = "profile.json"  # what the report draws, in a ProfilerConfig's folder


@dataclass(frozen=True)
class Wanted:
    """What a job asks for, checked."""

    rules: list[Chosen]
    steps: tuple[int, int] | None  # for torch.profiler, the first and the last
    asked: Asked
    hp: Hyperparameters
    layout: Layout

    @property
    def tensors(self) -> bool:
        """Whether smdebug is wanted."""
        return self.hp.debug or self.asked.hook is not None

    @property
    def profile(self) -> Path:
        """Where the profile is written: what SageMaker picks up."""
        return self.asked.profiler or self.layout.output_data / "profile"


def _wanted(hp: Hyperparameters, layout: Layout) -> Wanted:
    """What the hyperparameters and the files in input/config ask for."""
    asked = hook_config.read(layout.config, layout.base / "output")
    return Wanted(table.chosen(hp.rules), trace.steps(hp.profile_steps) or asked.trace, asked, hp, layout)


def wants_steps(hp: Hyperparameters, layout: Layout) -> bool:
    """Whether a job asks for what only a training in steps has: tensors by name, or a trace."""
    wanted = _wanted(hp, layout)
    return hp.debug or wanted.asked.collections or wanted.steps is not None


@dataclass
class Observers:
    """Those of one process."""

    debugger: Debugger | None
    record: Callable[[], dict[str, Any]] = dict  # for the report
    board: Any = None  # TensorBoard's
    rows: list[EpochRow] = field(default_factory=list)  # of the epochs so far

    def epoch(self, row: EpochRow) -> None:
        """An epoch is closed."""
        self.rows.append(row)
        if self.board:
            self.board.epoch(row)
            for series in self.debugger.series[-1:] if self.debugger else ():
                self.board.add(series)


@contextmanager
def observing(context: Context, give_up: Callable[[str], None], visible: str | None) -> Iterator[Observers]:
    """All observers, from here to the end of the job; on ranks other than 0, smdebug alone.

    Args:
        give_up: ends the process for a reason.
        visible: CUDA_VISIBLE_DEVICES, or None.

    Raises:
        UserError: a rule, a parameter or a step that there is not, or a file that is no JSON.
    """
    hp, cluster, timing = context.hp, context.cluster, context.timing
    wanted, rank_zero = _wanted(hp, context.layout), cluster.is_rank_zero
    with ExitStack() as stack:
        chosen, steps = (wanted.rules, wanted.steps) if rank_zero else ([], None)
        hook = None
        if wanted.tensors:
            from kennel_train.debug.smdebug import job_hook

            hook = job_hook.open(wanted.asked.hook, wanted.layout, cluster=cluster, strict=hp.debug_strict)
            if hook:
                stack.callback(_close, "smdebug's hook", hook.close)
        board = None
        if rank_zero and wanted.asked.tensorboard:
            from kennel_train.debug.tensorboard import Board

            board = Board(wanted.asked.tensorboard)
            stack.callback(_close, "TensorBoard's file", board.close)
        if not (chosen or steps or hook or (rank_zero and hp.profile)):
            yield Observers(None, board=board)
            return
        sampler = None
        if rank_zero and (hp.profile or chosen):
            root = os.getppid() if cluster.local_world > 1 else None  # the launcher: every rank is the job's
            sampler = Sampler(lambda: timing.now, wanted.asked.interval or 1.0, root=root, visible=visible)
        traced = trace.Trace(*steps, wanted.profile, log.info) if steps else NO_CALLBACK

        def more(module: nn.Module) -> Callback:
            return CallbackList(traced, hook.stage(module) if hook else NO_CALLBACK)

        debugger = Debugger(chosen, hp.on_rule, sampler, rank_zero and hp.profile, more, give_up)
        stack.callback(_close, "the sampler", debugger.close)
        record = functools.partial(_record, debugger, wanted, traced, hook)
        if rank_zero and wanted.asked.profiler:  # at the job's end, however it ends: all lies in one folder then
            stack.callback(_put_profile, wanted.profile / PROFILE, record)
        yield Observers(debugger, record, board)


def _close(what: str, close: Callable[[], None]) -> None:
    """The job has ended, well or not: what cannot be closed changes nothing of that."""
    try:
        close()
    except Exception as error:  # noqa: BLE001 - whatever a writer raises
        log.warning("warning: %s could not be closed: %s", what, error)


def _put_profile(path: Path, record: Callable[[], dict[str, Any]]) -> None:
    """A full disk fails no job that has its model, and hides no other error."""
    try:
        files.put(path, json.dumps(formatting.plain(record())))
    except Exception as error:  # noqa: BLE001 - as above
        log.warning("warning: the profile could not be written: %s", error)


def _shown(path: Path, base: Path) -> str:
    """Below the base folder as seen from there; a LocalPath may lead elsewhere."""
    return str(path.relative_to(base) if path.is_relative_to(base) else path)


def _record(debugger: Debugger, wanted: Wanted, traced: Callback, hook: Any) -> dict[str, Any]:
    written = traced.written[:1] if isinstance(traced, trace.Trace) else []
    tensors = [hook.folder] if hook and hook.folder else []
    base = wanted.layout.base
    places = (_shown(found[0], base) if found else "" for found in (written, tensors))
    return snapshot.record(debugger, *places)
