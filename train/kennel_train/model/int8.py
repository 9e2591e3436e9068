"""How an int8 copy of an exported network is made; whether it may be kept is `int8_gate`'s to say.

ONNX Runtime's own quantizer makes it, because ONNX Runtime is what serves it.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import quantization as ort

from kennel import cgroup

_SENSITIVE = 3  # first convolutions of a network with depthwise ones


def write(model: Path, target: Path, batches: Iterable[NDArray[np.uint8]]) -> None:
    """Write a static QDQ int8 copy whose activations' ranges are what `batches`, uint8 (n, 3, S, S), make them.

    - Weights have 7 bits, per channel. With 8, a product of unsigned and signed bytes saturates on a CPU without VNNI
      (lite0: twice the error there), and the machine that serves need not be the one that judged here.
    - Ranges are least and greatest values: entropy and percentiles were no better and keep every activation in memory.
    - The last layer stays in float32: 256 levels over all logits gave two classes of a photo the very same one in 8 of
      200. It is hardly any of the work.
    - A network with depthwise convolutions keeps its first three in float32: at the same speed, lite0's and lite2's
      error is a fifth less. Others would only lose speed by it.
    """
    with tempfile.TemporaryDirectory(prefix="kennel-int8-") as folder, _quiet():
        prepared, ranges = Path(folder) / "prepared.onnx", Path(folder) / "ranges.json"
        ort.quant_pre_process(model, prepared, skip_symbolic_shape=True)
        calibrator = _Calibrator(prepared, augmented_model_path=str(Path(folder) / "calibration.onnx"))
        calibrator.augment_graph()
        calibrator.create_inference_session()
        calibrator.collect_data(_Reader(batches))
        ort.save_tensors_data(calibrator.compute_data(), ranges)
        ort.quantize_static(
            prepared,
            target,
            per_channel=True,
            reduce_range=True,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            nodes_to_exclude=_sensitive(prepared),
            calibration_cache_path=ranges,
        )


def with_head(model: Path, head: Mapping[str, NDArray[np.float32]]) -> bytes:
    """A network whose head, its last layer and float, is another one: `weight` (classes, width) and `bias` (classes,).

    Raises:
        ValueError: it has no such layer.
    """
    made = onnx.load(model)
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    for name, values in head.items():
        tensor = tensors.get(f"head.{name}")
        if tensor is None or tuple(tensor.dims) != values.shape:
            raise ValueError(f"the network has no head.{name} of shape {values.shape}")
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values, np.float32), tensor.name))
    return bytes(made.SerializeToString())


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """A network on the CPU, with as many threads as the container has CPUs: the runtime's own choice is the host's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cgroup.cpus()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a third less CPU time on a busy machine
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class _Reader(ort.CalibrationDataReader):  # type: ignore[misc]  # untyped base
    def __init__(self, batches: Iterable[NDArray[np.uint8]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        photos = next(self._batches, None)
        return None if photos is None else {"photos": photos}


class _Calibrator(ort.MinMaxCalibrater):  # type: ignore[misc]  # untyped base
    """ONNX Runtime's, on our session."""

    def create_inference_session(self) -> None:
        self.infer_session = session(self.augmented_model_path)


def _sensitive(model: Path) -> list[str]:
    """The nodes that stay in float32."""
    graph = onnx.load(model).graph
    products = [at for at, node in enumerate(graph.node) if node.op_type in ("Gemm", "MatMul")]
    ends = [node.name for node in graph.node[products[-1] :]] if products else []
    channels = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    first = [node for node in graph.node if node.op_type == "Conv"][:_SENSITIVE]
    groups = [{a.name: a.i for a in node.attribute}.get("group", 1) for node in first]
    depthwise = [1 < group == channels.get(node.input[1]) for node, group in zip(first, groups, strict=True)]
    return [*(node.name for node in first), *ends] if any(depthwise) else ends


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's advice out of the job's log: it prints, and calls logging.warning(), the root logger's."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)  # without one, logging.warning() would set up a handler for good
    root.addFilter(_ours)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(_ours)
        root.removeHandler(silent)


def _ours(record: logging.LogRecord) -> bool:
    return "onnxruntime" not in record.pathname
