"""The best model as a folder: weights, ONNX, maybe int8, and the manifest, checked before they are put in place.

The network is traced before a photo is decoded, so that a backbone that cannot be ONNX costs nothing; at the end the
graph takes the trained weights.
"""

import contextlib
import dataclasses
import gc
import io
import logging
import platform
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.onnx import ONNXProgram

from kennel import artifact, backbones
from kennel.artifact import Manifest
from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel.files import file_hash
from kennel.layout import INT8, ONNX, WEIGHTS
from kennel_train.model import int8_gate
from kennel_train.model.int8_gate import Gate

_PACKAGES = ("kennel", "torch", "torchvision", "timm", "numpy", "pillow", "onnx", "onnxruntime")
for chatty in ("onnx_ir", "onnxscript", "torch.onnx"):  # the exporter tells every constant that it merges
    logging.getLogger(chatty).setLevel(logging.ERROR)
TOLERANCE = 1e-3  # of a probability; measured on lite0 and ResNet-50: below 1e-5


def trace(classifier: Classifier, name: str) -> ONNXProgram:
    """The network as an ONNX graph that still has the weights of now.

    Args:
        classifier: on the CPU.
        name: the backbone's.

    Raises:
        UserError: ONNX, or torch's exporter, cannot hold this backbone.
    """
    fused = [module for module in classifier.modules() if getattr(module, "fused_attn", False)]  # timm's name for it
    try:
        return _traced(classifier)
    except Exception as error:  # each of its steps has its own
        if not fused:
            raise UserError(backbones.not_exportable(name, error)) from error
    try:  # torch's attention is exported in four dimensions only, which SAM's has not: by plain products, then
        for module in fused:
            vars(module)["fused_attn"] = False
        return _traced(classifier)
    except Exception as error:
        raise UserError(backbones.not_exportable(name, error)) from error
    finally:
        for module in fused:
            vars(module)["fused_attn"] = True


def _traced(classifier: Classifier) -> ONNXProgram:
    side = classifier.image_size
    batch = torch.export.Dim("batch", min=1)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        sdpa_kernel(SDPBackend.MATH),  # the fused attention's strides are not those that are recorded for BEiT's
    ):
        warnings.simplefilter("ignore")  # the exporter's notes on its own deprecations
        gc.disable()  # a fifth of the time: the exporter makes a million objects
        try:
            made = torch.onnx.export(
                classifier.eval(),
                (torch.zeros(2, 3, side, side, dtype=torch.uint8),),  # a batch of 1 would be frozen as 1
                dynamo=True,
                input_names=["photos"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
                optimize=False,  # constants are folded once the weights are final
                verbose=False,
            )
        finally:
            gc.enable()
    assert made is not None
    return made


def export(
    classifier: Classifier,
    program: ONNXProgram,
    sample: Tensor,
    manifest: Manifest,
    folder: Path,
    *,
    int8: Gate | None = None,
    phase: Callable[[str], AbstractContextManager[None]] = lambda _: contextlib.nullcontext(),
) -> Manifest:
    """Write a model folder: everything into a hidden folder first, the manifest last.

    Args:
        classifier: moved to the CPU and to evaluation mode, in place.
        program: `trace`'s, used up.
        sample: uint8 (N, 3, S, S), a few real photos that torch and ONNX Runtime must agree on.
        manifest: `files`, `versions` and, with a gate, `int8` are filled in here.
        int8: what an int8 copy is judged by; None makes none.
        phase: entered by name around each part, to time it.

    Returns:
        The manifest as it was written.

    Raises:
        RuntimeError: ONNX Runtime's probabilities differ from torch's by more than `TOLERANCE`.
        OSError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        classifier.cpu().eval()
        state = _apart(classifier.state_dict())
        safetensors.torch.save_file(state, partial / WEIGHTS)
        (partial / WEIGHTS).chmod(0o644)  # safetensors makes it 0600, and another user may serve it
        with phase("export"):
            _onnx(classifier, program, state, sample, partial / ONNX)
        if int8:
            with phase("int8"):
                verdict = int8_gate.attempt(partial / ONNX, partial / INT8, int8)
            manifest = dataclasses.replace(manifest, int8=dataclasses.asdict(verdict))
        files = {name: file_hash(partial / name) for name in (WEIGHTS, ONNX, INT8) if (partial / name).exists()}
        for name in files:
            (partial / name).replace(folder / name)
        if INT8 not in files:
            (folder / INT8).unlink(missing_ok=True)  # of an earlier export
        manifest = dataclasses.replace(manifest, files=files, versions=versions())
        artifact.write_manifest(folder, manifest)
        return manifest
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as safetensors takes it: weights that stand twice in a network, as CoaT's do, are two tensors."""
    made: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in state.items():
        made[key] = value.clone() if value.data_ptr() in seen else value.contiguous()
        seen.add(value.data_ptr())
    return made


def versions() -> dict[str, str]:
    """Of Python and of what a model depends on, by package."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _onnx(classifier: Classifier, program: ONNXProgram, state: dict[str, Tensor], sample: Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that stand twice in a network, and once in its graph
        program.apply_weights(state)
    program.optimize()
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        ours = classifier(sample).softmax(1).numpy()
    (logits,) = session.run(["logits"], {"photos": sample.numpy()})
    theirs = torch.from_numpy(np.asarray(logits)).softmax(1).numpy()
    worst = float(np.abs(ours - theirs).max())
    if not worst <= TOLERANCE:
        raise RuntimeError(f"ONNX Runtime's probabilities differ from torch's by {worst:.2g}, allowed is {TOLERANCE}")
