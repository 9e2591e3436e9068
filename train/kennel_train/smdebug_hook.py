"""AWS's smdebug in a job of ours: tensors saved as input/config/debughookconfig.json says. What is saved how: smdebug.

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kennel.errors import UserError
from kennel.layout import Layout
from kennel_train.cluster import Cluster
from kennel_train.watch import Watch

if TYPE_CHECKING:
    from kennel_train.smdebug_writer import Writer

log = logging.getLogger("kennel")

LOSS = "CrossEntropyLoss_output_0"  # as smdebug names that module's output: its collection `losses` takes it in
INTERVAL = 100  # steps, of debug=true without a configuration
_USUAL: dict[str, Any] = {
    "HookParameters": {"save_interval": str(INTERVAL)},
    "CollectionConfigurations": [{"CollectionName": name} for name in ("gradients", "weights", "losses")],
}
_OF_TIMELINE = ("LocalPath", "RotateMaxFileSizeInBytes", "RotateFileCloseIntervalInSeconds", "FileOpenFailThreshold")
_OUTPUTS = 4  # of one module by which a collection may know it


class JobHook:
    """One process's hook for all stages of a job; after an error it is off."""

    def __init__(self, writer: "Writer", cluster: Cluster, strict: bool, scratch: contextlib.ExitStack) -> None:
        self.writer: Writer | None = writer
        self.handles: list[RemovableHandle] = []
        self._cluster, self._strict, self._scratch, self._placed = cluster, strict, scratch, False

    def stage(self, module: nn.Module) -> "TensorHook":
        """Whom the loop tells of a stage that trains `module`."""
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


class TensorHook(Watch):
    """Saves one stage's tensors.

    TRAIN steps are the loop's. Weights are those before a step; gradients are what the optimizer used: of all
    micro-batches and ranks, averaged, clipped; the loss is the mean over the step's photos; inputs and outputs of
    modules, logits (`predictions`) and `labels` are the first micro-batch's. An EVAL step is a batch of an evaluation:
    its mean loss alone, as a moving average may be judged in the module's place.
    """

    def __init__(self, job: JobHook, module: nn.Module) -> None:
        self._job, self._module, self._root = job, module, type(module).__name__
        self._heard: dict[frozenset[str], list[tuple[str, nn.Module]]] = {}
        self._saving = self._fresh = False

    def begin(self, step: int) -> None:
        if writer := self._job.writer:
            with self._job.guard():
                saved = self._job.begin(writer, step)
                self._saving = self._fresh = bool(saved)
                if saved:
                    for name, parameter in self._module.named_parameters():
                        writer.save(f"{self._root}_{name}", parameter)
                    self._listen(writer, saved)

    def lap(self, part: str) -> None:
        if (writer := self._job.writer) and writer.profiled:
            with self._job.guard():
                writer.lap(part)

    def batch(self, logits: Tensor, labels: Tensor) -> None:
        if (writer := self._job.writer) and self._fresh:
            self._job.unhook()
            with self._job.guard():
                writer.save("predictions", logits)
                writer.save("labels", labels)
        self._fresh = False

    def end(self, sums: Tensor) -> None:
        if (writer := self._job.writer) and self._saving:
            self._job.unhook()  # a rank without a photo in this step has had no batch
            with self._job.guard():
                for name, parameter in self._module.named_parameters():
                    if parameter.grad is not None:
                        writer.save(f"gradient/{self._root}_{name}", parameter.grad)
                writer.save(LOSS, sums[0] / sums[1])
                writer.finish()
        self._saving = False

    def evaluated(self, losses: Tensor) -> None:
        if (writer := self._job.writer) and self._job.placed:
            with self._job.guard():
                if writer.start():
                    writer.save(LOSS, losses.mean())
                    writer.finish()

    def close(self) -> None:
        self._job.unhook()
        if writer := self._job.writer:
            with self._job.guard():
                writer.publish()  # with this stage's tensors

    def _listen(self, writer: "Writer", saved: frozenset[str]) -> None:
        """Hooks on the modules of which this step saves something, until the first micro-batch has gone through."""
        if saved not in self._heard:
            self._heard[saved] = [(name, inner) for name, inner in _modules(self._module) if _wanted(writer, name)]
        for name, inner in self._heard[saved]:
            # Inputs beforehand: an activation that works in place overwrites them.
            before = inner.register_forward_pre_hook(partial(self._taken, writer, name), with_kwargs=True)
            after = inner.register_forward_hook(partial(self._given, writer, name))
            self._job.handles += [before, after]

    def _taken(self, writer: "Writer", name: str, _: nn.Module, args: Any, named: Any) -> None:
        if self._job.writer:
            with self._job.guard():
                writer.save_taken(name, (args, named))

    def _given(self, writer: "Writer", name: str, _: nn.Module, __: Any, given: Any) -> None:
        if self._job.writer:
            with self._job.guard():
                writer.save_given(name, given)


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
            asked = json.loads(config.read_text()) if config else _USUAL
            everyone = (asked.get("HookParameters") or {}).get("include_workers") == "all"
            if not (cluster.leads or everyone):
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
        from kennel_train import smdebug_writer

        return smdebug_writer.make(hook, layout.base, timeline.get("LocalPath", ""))


def _timeline(config: Path) -> dict[str, str]:
    """Of a profilerconfig.json, where there is one that is not disabled, the parameters of smdebug's timeline.

    Left out is the rest: smdebug evaluates it as Python, and its detailed profiling knows no torch 2.
    """
    row = json.loads(config.read_text() or "{}") if config.exists() else {}
    given = row.get("ProfilingParameters") or {}
    if row.get("DisableProfiler") or not given:
        return {}
    return {"LocalPath": str(Layout().base / "output" / "profiler")} | {n: given[n] for n in _OF_TIMELINE if n in given}


def _give_up(error: Exception, strict: bool) -> None:
    said = f"smdebug's hook failed ({type(error).__name__}: {' '.join(str(error).split())})"
    if strict:
        raise UserError(f"{said}: mend input/config/debughookconfig.json, or set debug_strict=false") from error
    log.warning("warning: %s: no more tensors are saved, the training goes on", said)


def _modules(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module under the name that smdebug gives it, without those that torch.compile made and all below them."""
    found: list[tuple[str, nn.Module]] = []
    left_out: list[str] = []
    for name, inner in root.named_modules():
        if any(name == out or not out or name.startswith(f"{out}.") for out in left_out):
            continue
        if hasattr(inner, "_orig_mod") or getattr(inner, "_compiled_call_impl", None):
            left_out.append(name)
        else:
            found.append((name or type(root).__name__, inner))
    if left_out:
        shown = ", ".join(name or type(root).__name__ for name in left_out)
        log.warning("warning: smdebug saves no inputs and outputs of compiled modules: %s", shown)
    return found


def _wanted(writer: "Writer", name: str) -> bool:
    return any(writer.wants(f"{name}_{side}_{at}") for side in ("input", "output") for at in range(_OUTPUTS))
