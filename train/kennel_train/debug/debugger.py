"""Watches a job: gives each stage its `StageRecorder`, has the rules judge what it records, logs what fires at once.

The rules themselves are in `rules/`; `machine_sampler` watches the machine. Off means that nothing here exists.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import nn

from kennel import cgroup
from kennel.errors import UserError
from kennel_train.debug.rules import table
from kennel_train.debug.rules.findings import Fired, RuleFinding
from kennel_train.debug.rules.table import Chosen
from kennel_train.measure.callbacks import Callback, CallbackList
from kennel_train.measure.history import Machine, StageHistory
from kennel_train.measure.machine_sampler import Sampler
from kennel_train.measure.stage_recorder import StageRecorder
from kennel_train.measure.step_timer import StepClock

log = logging.getLogger("kennel")
STALLED = "stalled_training"
GIVE_UP = 60.0  # seconds that a stalled job, asked to stop, has to take a step before it is ended
MACHINE = 10.0  # seconds between two looks at the machine's samples


class Debugger:
    """One job's rules, findings and measurements; rank 0's."""

    def __init__(
        self,
        chosen: Sequence[Chosen],
        on_rule: str,
        sampler: Sampler | None,
        profile: bool,
        open_more: Callable[[nn.Module], Callback],
        give_up: Callable[[str], None],
        patience: float = GIVE_UP,
    ) -> None:
        """
        Args:
            sampler: of the machine, not yet started; None where it is not asked for.
            profile: whether steps are timed.
            open_more: further watches of a stage's module: tensors, a trace.
            give_up: ends the process for a reason; for a job that stands still and cannot be asked.
            patience: seconds that such a job is given to take a step after all.
        """
        self.class_names: tuple[str, ...] = ()
        self.findings: dict[tuple[str, str], RuleFinding] = {}  # by stage and rule
        self.series: list[StageHistory] = []
        self.steps_per_epoch = 1
        self.reason, self.stopped_by = "", ""  # why the training is to stop, and by which rule
        self._on_rule, self._chosen = on_rule, chosen
        self._open_more, self._give_up, self._patience = open_more, give_up, patience
        self._sampler, self._profile = sampler, profile
        self._failed: set[str] = set()  # rules that raised
        self._running: StageRecorder | None = None
        self._lock = threading.Lock()  # the sampler's thread judges, too
        self._machine_at = self._asked_to_stop_at = 0.0
        if sampler:
            sampler.on_sample = self._look
            sampler.start()

    @property
    def machine(self) -> Machine:
        return self._sampler.machine if self._sampler else Machine()

    @property
    def rules(self) -> list[str]:
        """The names of those that watch."""
        return [row.rule.name for row in self._chosen if row.rule.name not in self._failed]

    def of(self, class_names: tuple[str, ...]) -> "Debugger":
        """Itself, with the names that its rules should call the classes by."""
        self.class_names = class_names
        return self

    def stop(self) -> bool:
        """Whether a rule wants the training to stop."""
        return bool(self.reason)

    @contextmanager
    def stage(
        self,
        name: str,
        module: nn.Module,
        device: torch.device,
        waited: Callable[[], float],
        steps_per_epoch: int,
        *,
        pretrained: bool,
        loaders: int,
    ) -> Iterator[Callback]:
        """A watch for one stage.

        Args:
            module: what is trained.
            waited: seconds that the device has waited for batches so far.
            loaders: threads that make batches.
        """
        about = {"device": device.type, "cores": cgroup.cpus(), "loaders": loaders}
        series = StageHistory(name, pretrained=pretrained, class_names=self.class_names, **about)  # type: ignore[arg-type]
        self.series.append(series)
        self.steps_per_epoch = steps_per_epoch
        clock = StepClock(device, waited) if self._profile else None
        tensors = any(row.rule.of == "tensors" for row in self._chosen)
        watch = self._running = StageRecorder(series, module, clock, lambda: self._judge(series), tensors=tensors)
        more = self._open_more(module)
        both = CallbackList(watch, more)
        try:
            yield both
        except BaseException:
            self._running = None
            with suppress(Exception):  # of a training that failed the last numbers may be out of reach
                both.close()
            raise
        self._running = None
        try:
            more.close()
        except UserError:  # of smdebug's, where the job is to be strict
            raise
        except Exception as error:  # noqa: BLE001 - the stage itself has ended well
            log.warning("warning: what a watch of stage %s still had to write is lost: %r", name, error)
        finally:
            watch.close()

    def close(self) -> None:
        """Stop looking at the machine."""
        if self._sampler:
            self._sampler.close()

    def _judge(self, series: StageHistory) -> None:
        now = time.monotonic()
        if series.ended or now - self._machine_at >= MACHINE:
            series.machine, self._machine_at = self.machine.during(series.stage), now
        self._report(series, self._judged([row for row in self._chosen if row.rule.name != STALLED], series))

    def _judged(self, chosen: Sequence[Chosen], series: StageHistory) -> dict[str, Fired]:
        """What rules say of a series; one that raises is not asked again."""
        found: dict[str, Fired] = {}
        for one in chosen:
            if one.rule.name in self._failed:
                continue
            try:
                found |= table.judge([one], series)
            except Exception as error:  # noqa: BLE001 - it is about the training, and no part of it
                self._failed.add(one.rule.name)
                log.warning("warning: rule %s failed and is left out from now on: %r", one.rule.name, error)
        return found

    def _look(self) -> None:
        """In the sampler's thread: does the stage still take steps?"""
        watch, series = self._running, self.series[-1] if self.series else None
        if watch is None or series is None:
            return
        series.idle = time.monotonic() - watch.last
        fired = self._judged([row for row in self._chosen if row.rule.name == STALLED], series)
        self._report(series, fired)
        if fired and self.reason and watch.last < self._asked_to_stop_at < time.monotonic() - self._patience:
            self._give_up(self.reason)

    def _report(self, series: StageHistory, fired: dict[str, Fired]) -> None:
        with self._lock:
            for name, found in fired.items():
                before = self.findings.get((series.stage, name))
                step = before.fired.step if before else found.step
                epoch = step // self.steps_per_epoch + 1
                finding = RuleFinding(name, series.stage, epoch, dataclasses.replace(found, step=step))
                self.findings[series.stage, name] = finding
                if not before:
                    log.warning(finding.line())
                    if self._on_rule == "stop" and not self.reason:
                        self.stopped_by, self._asked_to_stop_at = name, time.monotonic()
                        self.reason = finding.line()
                        log.warning("stopping: on_rule=stop")
