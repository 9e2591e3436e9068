"""The loop's callback of one stage that passes steps, tensors and evaluations to smdebug. Errors are `job_hook`'s."""

import logging
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kennel_train.measure.callbacks import Callback

if TYPE_CHECKING:
    from kennel_train.debug.smdebug.step_hook import Writer

log = logging.getLogger("kennel")

LOSS = "CrossEntropyLoss_output_0"  # as smdebug names that module's output: its collection `losses` takes it in
_OUTPUTS = 4  # of one module by which a collection may know it


class Hook(Protocol):
    """The job's hook, as its stages use it."""

    writer: "Writer | None"  # None after an error
    handles: list[RemovableHandle]

    def begin(self, writer: "Writer", step: int) -> frozenset[str]: ...
    def guard(self) -> AbstractContextManager[None]: ...
    def unhook(self) -> None: ...
    @property
    def placed(self) -> bool: ...


class TensorHook(Callback):
    """Saves one stage's tensors.

    TRAIN steps are the loop's. Weights are those before a step; gradients are what the optimizer used: of all
    micro-batches and ranks, averaged, clipped; the loss is the mean over the step's photos; inputs and outputs of
    modules, logits (`predictions`) and `labels` are the first micro-batch's. An EVAL step is a batch of an evaluation:
    its mean loss alone, as a moving average may be judged in the module's place.
    """

    def __init__(self, job: Hook, module: nn.Module) -> None:
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
                if sums[1] > 0:  # else no rank had a photo, of a job that was stopped
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
