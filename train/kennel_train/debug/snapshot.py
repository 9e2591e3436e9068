"""What a debugger saw, as plain data: the report's `debug`, of a size that a page can hold."""

from collections.abc import Sequence
from typing import Any

from kennel_train.debug.debugger import Debugger
from kennel_train.debug.rules.findings import RuleFinding
from kennel_train.measure.history import PARTS, Curve, Machine, StageHistory, Tensors

POINTS, LAYER_POINTS, ROWS = 400, 200, 600  # of a curve, of a layer's, of the machine's samples


def record(debugger: Debugger, trace: str, tensors: str) -> dict[str, Any]:
    """Findings (errors first), stages, machine.

    Args:
        trace: where torch.profiler's trace was written, or "".
        tensors: where smdebug wrote, or "".
    """
    return {
        "rules": debugger.rules,
        "findings": [finding.as_json() for finding in sorted(debugger.findings.values(), key=_order)],
        "stopped_by": debugger.stopped_by,
        "stages": [_stage(series, debugger.steps_per_epoch) for series in debugger.series],
        "machine": _machine(debugger.machine),
        "trace": trace,
        "tensors": tensors,
    }


def _order(finding: RuleFinding) -> tuple[bool, int]:
    return finding.fired.severity != "error", finding.fired.step


def _stage(series: StageHistory, steps_per_epoch: int) -> dict[str, Any]:
    last = max([series.first - 1, *series.loss.steps[-1:]])
    return {
        "stage": series.stage,
        "first": series.first,
        "steps": last + 1 - series.first,
        "steps_per_epoch": steps_per_epoch,
        "device": series.device,
        "cores": series.cores,
        "loaders": series.loaders,
        "loss": _curve(series.loss, "values", POINTS),
        "evaluated": [vars(row) for row in series.evaluated],
        "gradients": _layers(series.gradients),
        "weights": _layers(series.weights),
        "seconds": series.seconds,
        "times": _times(series.times),
        "slowest": [
            {"step": step, "epoch": step // steps_per_epoch + 1, "seconds": seconds, "parts": parts}
            for seconds, step, parts in sorted(series.slowest, key=lambda row: -row[0])
        ],
    }


def _curve(curve: Curve, name: str, points: int) -> dict[str, list[Any]]:
    return {"steps": _thin(curve.steps, points), name: _thin(curve.values, points)}


def _layers(tensors: dict[str, Tensors]) -> dict[str, Any]:
    return {name: _curve(row.norm, "norm", LAYER_POINTS) for name, row in tensors.items()}


def _times(times: dict[str, Curve]) -> dict[str, list[Any]]:
    if not times:
        return {}
    return {
        "steps": _thin(times[PARTS[0]].steps, POINTS),
        **{part: _thin(row.values, POINTS) for part, row in times.items()},
    }


def _machine(machine: Machine) -> dict[str, Any]:
    rows: dict[str, Any] = {name: _thin(column, ROWS) for name, column in machine.columns()}
    rows["gpu"] = [_thin(column, ROWS) for column in machine.gpu]
    rows["gpu_memory"] = [_thin(column, ROWS) for column in machine.gpu_memory]
    return {**rows, "interval": machine.interval}


def _thin(values: Sequence[Any], points: int) -> list[Any]:
    """At most so many of them, at equal distances."""
    return list(values[:: max(1, -(-len(values) // points))])
