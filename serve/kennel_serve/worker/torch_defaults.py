"""What AWS's PyTorch image does where an inference.py leaves a function out, for models that are not ours.

The model is a TorchScript file, a body of JSON, CSV or NPY a tensor, and a torch module is called. Imported only where
one of these is needed: the slim image has no torch.
"""

import io
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sagemaker_inference import content_types

from kennel.errors import UserError
from kennel_serve.formats import npy
from kennel_serve.formats.request_body import RequestError
from kennel_serve.inference.predictor import short

_MODEL = "model.pt"
_SUFFIXES = (".pt", ".pth")
_KINDS = (content_types.JSON, content_types.CSV, npy.KIND)


class TorchDefaults:
    """On one device."""

    def __init__(self, gpu: int | None) -> None:
        self._device = torch.device(f"cuda:{gpu or 0}" if torch.cuda.is_available() else "cpu")

    def load(self, folder: Path) -> torch.nn.Module:
        """model.pt, or the only *.pt or *.pth of a model folder.

        Raises:
            UserError: there is none, or several; or it is no TorchScript.
        """
        files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
        file = folder / _MODEL if folder / _MODEL in files else files[0] if len(files) == 1 else None
        define = "or define model_fn(model_dir)"
        if file is None:
            names = ", ".join(path.name for path in files[:5]) or "none"
            raise UserError(f"{folder} must hold one TorchScript file (*.pt, *.pth), found: {names}: pack it, {define}")
        try:
            module: torch.nn.Module = torch.jit.load(file, map_location=self._device)  # type: ignore[no-untyped-call]
        except Exception as error:  # RuntimeError for most files that are none, but not for all
            wanted = "write it by torch.jit.save"
            raise UserError(f"{file} cannot be loaded as TorchScript ({short(error)}): {wanted}, {define}") from error
        return module

    def ready(self, model: torch.nn.Module) -> torch.nn.Module:
        """A module as `predict` calls it: on the device, in eval mode, and not spread over GPUs by DataParallel."""
        model = model.module if isinstance(model, torch.nn.DataParallel) else model
        return model.to(self._device).eval()

    def tensor(self, body: str | bytes, content_type: str) -> torch.Tensor:
        """A request's body: float32 of JSON and CSV, the array's own type of NPY.

        Args:
            body: JSON and CSV as text.

        Raises:
            RequestError: 415 for another type, 400 for what is not of this one.
        """
        kind = content_type.partition(";")[0].strip().lower()
        if kind not in _KINDS:
            sentence = f"content type {kind[:80]!r} is not supported: send one of {', '.join(_KINDS)}"
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{sentence}, or define input_fn")
        try:
            array = npy.read(body) if isinstance(body, bytes) else _numbers(body, kind)
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).to(self._device)
        except (ValueError, TypeError, RecursionError) as error:
            sentence = f"the body is no array of numbers as {kind} ({short(error)}): send one"
            raise RequestError(HTTPStatus.BAD_REQUEST, sentence) from error

    def predict(self, model: torch.nn.Module, data: Any) -> Any:
        """What a `ready` module gives for a tensor or an array; other data goes to it as it is."""
        data = torch.from_numpy(data) if isinstance(data, np.ndarray) else data
        with torch.inference_mode():
            return model(data.to(self._device) if hasattr(data, "to") else data)


def _numbers(text: str, kind: str) -> NDArray[np.generic]:
    """
    Raises:
        ValueError: it holds something else, or rows of different lengths.
    """
    if not text.strip():
        raise ValueError("it is empty")
    if kind == content_types.CSV:
        return np.loadtxt(io.StringIO(text), np.float32, comments=None, delimiter=",")
    found = np.array(json.loads(text))
    if found.dtype.kind not in "biuf":
        raise ValueError("not every value is a number")
    return found.astype(np.float32)
