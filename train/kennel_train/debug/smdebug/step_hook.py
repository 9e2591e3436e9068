"""smdebug's hook, driven by step numbers of ours instead of by forward passes. Imports smdebug: import it late.

What is saved in which step is smdebug's own doing: its configuration, collections, reductions, files.
"""

import atexit
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kennel.layout import Layout
from kennel_train.debug.smdebug import files, protobuf

protobuf.load()

from smdebug.core.json_config import create_hook_from_json_config  # noqa: E402
from smdebug.core.modes import ModeKeys  # noqa: E402
from smdebug.core.singleton_utils import del_hook  # noqa: E402
from smdebug.core.utils import error_handling_agent  # noqa: E402
from smdebug.pytorch import Hook  # noqa: E402

_PHASES = {"forward": "Forward", "backward": "Backward(post-forward)", "data wait": "DataIterator"}  # smdebug's words


class Writer(Hook):  # type: ignore[misc]
    """One process's tensors of a whole job."""

    def __init__(self, **settings: Any) -> None:
        error_handling_agent.disable_smdebug = False
        files.unclaim(Path(settings["out_dir"]))
        Hook.__init__.__wrapped__(self, **settings)  # what is wrapped around it swallows some errors
        self._at = 0.0

    def resume(self, step: int, rank: int, world: int) -> None:
        """Stand before training step `step`: remove this rank's files of steps that come again, count on from the rest.

        An empty folder of a job that has been on before: its first container's files are in S3, and those of smdebug's
        global steps to come must not replace them. Centiseconds are past any step that it can have reached.
        """
        folder = Path(self.out_dir)
        if step == 0:
            files.forget(folder, 0, lambda worker: worker == rank or worker >= world)
            last, evaluations = -1, -1
        else:
            cut, last, evaluations = files.kept(folder, step, rank)
            files.forget(folder, cut, lambda worker: worker == rank)
            last = int(time.time() * 100) if last < 0 else last
        self.step = last
        self.mode_steps = {ModeKeys.GLOBAL: last, ModeKeys.TRAIN: step - 1, ModeKeys.EVAL: evaluations}

    def prepare(self) -> None:
        """Close the configuration: from now on it is known what to save in which step."""
        if not self.prepared_collections:
            self._prepare_collections()

    def start(self, step: int | None = None) -> frozenset[str]:
        """Begin training step `step`, or without one the next step of evaluation; the collections to save in it."""
        self.set_mode(ModeKeys.EVAL if step is None else ModeKeys.TRAIN)
        self.step += 1
        self.mode_steps[ModeKeys.GLOBAL] = self.step
        self.mode_steps[self.mode] = self.mode_steps[self.mode] + 1 if step is None else step
        self.written_tensor_name_for_step.clear()
        found = frozenset(collection.name for collection in self._get_collections_to_save_for_step())
        if found:
            self._initialize_writers()
        self._at = time.time()
        return found

    def wants(self, name: str) -> bool:
        """Whether this step saves a tensor of this name."""
        return bool(self._is_tensor_saved_for_step(name))

    def save(self, name: str, tensor: Tensor) -> None:
        """Save it if this step is to."""
        self._save_for_tensor(name, tensor)

    def save_taken(self, module: str, taken: Any) -> None:
        """What a module took in: a tensor, or a nest of tuples, lists and dicts with some in it."""
        self._write_inputs(module, _leaves(taken))

    def save_given(self, module: str, given: Any) -> None:
        """What a module gave out."""
        self._write_outputs(module, _leaves(given))

    def finish(self) -> None:
        """The step's tensors go to disk."""
        self._close_writers()
        if not self.exported_collections:
            self.publish()

    def publish(self) -> None:
        """Write the file by which readers find collections and their tensors."""
        self.export_collections()
        self.exported_collections = True

    @property
    def profiled(self) -> bool:
        """Whether there is a timeline."""
        return bool(self.profiler_config_parser.profiling_enabled)

    def lap(self, part: str) -> None:
        """A line for the profiler's timeline: what happened since the last was `part` of `history.PARTS`."""
        at, self._at = self._at, time.time()
        number = str(self.mode_steps[self.mode])
        phase = _PHASES.get(part, part)
        self.record_trace_events(at, phase, part, duration=self._at - at, step_num=number)

    def close(self) -> None:
        """Write what is left, and leave no handler for the process's end."""
        self.forget()
        self.publish()
        self._cleanup()

    def forget(self) -> None:
        """Unregister what smdebug does at the process's end, and its one hook of the process."""
        for handler in (self._cleanup, self.profiler_config_parser.stop_post_hook_close_python_profiling, del_hook):
            atexit.unregister(handler)
        del_hook()

    def _write_for_tensor(self, tensor_name: str, tensor_value: Any, *rest: Any, **more: Any) -> None:
        if isinstance(tensor_value, Tensor):
            tensor_value = plain(tensor_value)
            if not tensor_value.numel():
                return
        super()._write_for_tensor(tensor_name, tensor_value, *rest, **more)

    @staticmethod
    def _make_numpy_array(tensor_value: Any) -> Any:
        return plain(tensor_value).numpy() if isinstance(tensor_value, Tensor) else Hook._make_numpy_array(tensor_value)

    @staticmethod
    def _get_reduction_of_data(reduction_name: str, tensor_value: Any, tensor_name: str, abs: bool) -> Any:
        if isinstance(tensor_value, Tensor) and not tensor_value.is_floating_point():
            tensor_value = tensor_value.double()  # whole numbers have no mean in torch
        return Hook._get_reduction_of_data(reduction_name, tensor_value, tensor_name, abs)


def make(config: Path, base: Path, timelines: str) -> Writer:
    """The hook of a debughookconfig.json, with the profiler's timelines in `timelines`; /opt/ml is `base`."""
    usual = Layout().base

    def here(path: str | None) -> str | None:
        if path is None or not Path(path).is_relative_to(usual):
            return path
        return str(base / Path(path).relative_to(usual))

    def made(**settings: Any) -> Writer:
        return Writer(**settings | {name: here(settings[name]) for name in ("out_dir", "tensorboard_dir")})

    writer: Writer = create_hook_from_json_config(made, str(config))
    writer.prepare()
    timeline = writer.profiler_config_parser.config
    if timeline:  # smdebug has put its path into lower case
        timeline.local_path = here(timelines)
    return writer


def plain(tensor: Tensor) -> Tensor:
    """The tensor detached, dense, on the CPU and of a type that numpy has: bfloat16 and less become float32."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.cpu()


def _leaves(nest: Any) -> list[Tensor]:
    """The tensors in it, from left to right, as plain ones: smdebug goes by the class's name."""
    if isinstance(nest, Tensor):
        return [nest.detach().as_subclass(Tensor)]
    inner = list(nest.values()) if isinstance(nest, dict) else nest if isinstance(nest, tuple | list) else []
    return [leaf for item in inner for leaf in _leaves(item)]
