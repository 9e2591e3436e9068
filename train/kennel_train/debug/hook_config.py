"""What SageMaker's own debugging and profiling settings ask for, by the files that it lays into input/config.

The files' grammar is smdebug's and the SDK's. Only what Kennel can do is read; it knows no hyperparameters.
"""

import ast
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kennel import config as config_files
from kennel.errors import UserError

log = logging.getLogger("kennel")
PROFILER, TENSORBOARD, HOOK = "profilerconfig.json", "tensorboardoutputconfig.json", "debughookconfig.json"
TRACED = 100  # steps of a trace at most: browsers open some hundred MB, and a step of a ResNet-50 is one or more
_OUTPUT = PurePosixPath("/opt/ml/output")
_DETAILED = "detailedprofilingconfig"
_DEFAULT_START, _DEFAULT_STEPS = 0, 1  # https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-profiling-api.html


@dataclass(frozen=True)
class Asked:
    """What a job's settings beside its hyperparameters ask for; None: nothing of the kind."""

    profiler: Path | None = None  # the folder of what the profiler writes
    interval: float | None = None  # seconds between two samples of the machine
    trace: tuple[int, int] | None = None  # first and last step
    tensorboard: Path | None = None  # the folder of TensorBoard's files
    hook: Path | None = None  # the file that configures smdebug's hook
    collections: bool = False  # that file names tensors; SDK v2 sends one without any where nothing was asked for


def read(config: Path, output: Path) -> Asked:
    """What the files in `config` ask for; a file that is not there asks for nothing.

    Of the profiler's parameters LocalPath and DetailedProfilingConfig are read, the latter by steps. What was meant for
    Python's profiler, for the loaders or for a distributed library is left aside.

    Args:
        config: input/config.
        output: stands for /opt/ml/output in the paths that the files name.

    Raises:
        UserError: a file is no JSON object, or a value in it cannot be meant.
    """
    profiler, tensorboard, hook = (_load(config / name) for name in (PROFILER, TENSORBOARD, HOOK))
    folder = interval = trace = None
    if profiler is not None and not _is_true(profiler.get("disableprofiler")):
        where = config / PROFILER
        parameters = _lowered(profiler.get("profilingparameters") or {}, where)
        path = parameters.get("localpath") or profiler.get("localpath")
        folder = _local(path, output, "profiler", where)
        interval = _interval(profiler.get("profilingintervalinmilliseconds"), where)
        trace = _trace(parameters.get(_DETAILED), where)
    board = None
    if tensorboard is not None:
        board = _local(tensorboard.get("localpath"), output, "tensorboard", config / TENSORBOARD)
    named = bool((hook or {}).get("collectionconfigurations"))
    return Asked(folder, interval, trace, board, None if hook is None else config / HOOK, named)


def _load(path: Path) -> dict[str, Any] | None:
    row = config_files.read(path)
    return None if row is None else _lowered(row, path)


def _lowered(row: Any, path: Path) -> dict[str, Any]:
    """With keys in lower case: smdebug reads the whole file so, its paths included, which are left as they are here."""
    if not isinstance(row, Mapping):
        raise UserError(f"{path}: expected a JSON object, got {row!r}: fix or remove it")
    return {str(key).lower(): value for key, value in row.items()}


def _trace(given: Any, path: Path) -> tuple[int, int] | None:
    """The first and last step of a DetailedProfilingConfig.

    The SDK writes it as a string with a comma after the last value, which is Python's grammar and not JSON's.
    """
    if isinstance(given, str):
        try:
            given = ast.literal_eval(given.strip() or "{}")
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise UserError(f'{path}: DetailedProfilingConfig={given!r}: give one such as {{"StartStep": 5}}') from None
    row = _lowered(given or {}, path)
    if not row:
        return None
    if not {"startstep", "numsteps"} & set(row):
        log.warning("warning: %s: DetailedProfilingConfig names no steps and is left out: give StartStep", path)
        return None
    first = _whole(row.get("startstep", _DEFAULT_START), "StartStep", 0, path)
    count = _whole(row.get("numsteps", _DEFAULT_STEPS), "NumSteps", 1, path)
    if count > TRACED:
        raise UserError(f"{path}: NumSteps={count}: trace at most {TRACED} steps, no program could open more")
    return first, first + count - 1


def _whole(value: Any, name: str, least: int, path: Path) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if number < least:
        raise UserError(f"{path}: {name}={value!r}: give a whole number of at least {least}")
    return number


def _interval(value: Any, path: Path) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value) / 1000
    except (ValueError, TypeError):
        seconds = math.nan
    if not 0.1 <= seconds <= 60:  # what the API allows
        raise UserError(f"{path}: ProfilingIntervalInMilliseconds={value!r}: give 100 to 60000")
    return seconds


def _local(value: Any, output: Path, default: str, path: Path) -> Path:
    """A LocalPath, below `output` where it is relative or below /opt/ml/output."""
    if not isinstance(value, str | None):
        raise UserError(f"{path}: LocalPath={value!r}: give a folder's path, such as {_OUTPUT / default}")
    given = PurePosixPath(value or _OUTPUT / default)
    return output / (given.relative_to(_OUTPUT) if given.is_relative_to(_OUTPUT) else given)


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() == "true"
