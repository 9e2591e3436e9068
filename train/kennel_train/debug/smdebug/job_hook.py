"""AWS's smdebug in a job of ours: tensors saved as input/config/debughookconfig.json says. What is saved how: smdebug;
of which step: `stage_callback`.

Its own hook counts a step at every forward pass, which is wrong where a step has several micro-batches; this one counts
as the loop does. smdebug is imported by `open` alone.
"""

import contextlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from kennel import config as config_files
from kennel.errors import UserError
from kennel.layout import Layout
from kennel_train.debug.smdebug.stage_callback import TensorHook
from kennel_train.distributed.cluster import Cluster

if TYPE_CHECKING:
    from kennel_train.debug.smdebug.step_hook import Writer

log = logging.getLogger("kennel")

INTERVAL = 100  # steps, of debug=true without a configuration
_USUAL: dict[str, Any] = {
    "HookParameters": {"save_interval": str(INTERVAL)},
    "CollectionConfigurations": [{"CollectionName": name} for name in ("gradients", "weights", "losses")],
}
_OF_TIMELINE = ("LocalPath", "RotateMaxFileSizeInBytes", "RotateFileCloseIntervalInSeconds", "FileOpenFailThreshold")


class JobHook:
    """One process's hook for all stages of a job; after an error it is off."""

    def __init__(self, writer: "Writer", cluster: Cluster, strict: bool, scratch: contextlib.ExitStack) -> None:
        self.writer: Writer | None = writer
        self.handles: list[RemovableHandle] = []
        self._cluster, self._strict, self._scratch, self._placed = cluster, strict, scratch, False

    def stage(self, module: nn.Module) -> TensorHook:
        """The loop's callback of a stage that trains `module`."""
        return TensorHook(self, module)

    def begin(self, writer: "Writer", step: int) -> frozenset[str]:
        """A training step begins; the collections that it saves."""
        if not self._placed:
            writer.resume(step, self._cluster.rank, self._cluster.world)
            self._placed = True
        return writer.start(step)

    @property
    def folder(self) -> Path | None:
        """Where the tensors are, or None where the hook has failed."""
        return Path(self.writer.out_dir) if self.writer else None

    @property
    def placed(self) -> bool:
        """Whether it is known at which step the job stands."""
        return self._placed

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Around every call of smdebug: whatever it raises turns the hook off.

        Raises:
            UserError: it raised something, and the job is to be strict.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of numpy, about what smdebug calls in every save
                yield
        except Exception as error:  # noqa: BLE001 - a hook's error is no error of the training
            writer, self.writer = self.writer, None
            self.unhook()
            if writer:
                with contextlib.suppress(Exception):  # what was saved before is worth an index
                    writer.close()
                writer.forget()
            _give_up(error, self._strict)

    def unhook(self) -> None:
        """Take torch's hooks off the module."""
        while self.handles:
            self.handles.pop().remove()

    def close(self) -> None:
        """The job is over; called once."""
        self.unhook()
        with self._scratch:
            if self.writer:
                with self.guard():
                    self.writer.close()
            self.writer = None


def open(config: Path | None, layout: Layout, *, cluster: Cluster, strict: bool) -> JobHook | None:
    """The job's hook; None where another rank writes, or where it cannot be had.

    Args:
        config: a debughookconfig.json, in AWS's form
            (https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-createtrainingjob-api.html); None: gradients,
            weights and losses every 100 steps in output/tensors.

    Raises:
        UserError: smdebug cannot use the configuration, and the job is to be strict.
    """
    with contextlib.ExitStack() as stack:
        try:
            asked = _USUAL if config is None else config_files.read(config) or {}
            everyone = (asked.get("HookParameters") or {}).get("include_workers") == "all"
            if not (cluster.is_rank_zero or everyone):
                return None
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kennel-smdebug-")))
            writer = _writer(asked, layout, scratch)
        except Exception as error:  # noqa: BLE001 - a hook's error is no error of the training
            _give_up(error, strict)
            return None
        return JobHook(writer, cluster, strict, stack.pop_all())


def _writer(asked: dict[str, Any], layout: Layout, scratch: Path) -> "Writer":
    hook, profiler = scratch / "hook.json", scratch / "profiler.json"
    hook.write_text(json.dumps(asked))
    timeline = _timeline(layout.config / "profilerconfig.json")
    if timeline:
        profiler.write_text(json.dumps({"ProfilingParameters": timeline}))
    os.environ["SMPROFILER_CONFIG_PATH"] = str(profiler)  # smdebug reads it when it is imported, and later
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kennel_train.debug.smdebug import step_hook

        return step_hook.make(hook, layout.base, timeline.get("LocalPath", ""))


def _timeline(config: Path) -> dict[str, str]:
    """Of a profilerconfig.json, where there is one that is not disabled, the parameters of smdebug's timeline.

    Left out is the rest: smdebug evaluates it as Python, and its detailed profiling knows no torch 2.
    """
    row = config_files.read(config) or {}
    given = row.get("ProfilingParameters") or {}
    if row.get("DisableProfiler") or not given:
        return {}
    return {"LocalPath": str(Layout().base / "output" / "profiler")} | {n: given[n] for n in _OF_TIMELINE if n in given}


def _give_up(error: Exception, strict: bool) -> None:
    said = f"smdebug's hook failed ({type(error).__name__}: {' '.join(str(error).split())})"
    if strict:
        raise UserError(f"{said}: fix input/config/debughookconfig.json, or set debug_strict=false") from error
    log.warning("warning: %s: no more tensors are saved, the training goes on", said)
