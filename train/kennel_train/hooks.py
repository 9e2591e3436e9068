"""A user's own function in the training loop: the entry point that an Estimator sends, called, not run as a script.

This image trains by itself; `entry_point="hooks.py"` may define `on_epoch_end(epoch, metrics)`.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sagemaker_training import files

from kennel.errors import UserError
from kennel.hyperparameters import unquote

OnEpochEnd = Callable[[int, dict[str, float]], object]


def load(raw: Mapping[str, Any], code: Path) -> OnEpochEnd | None:
    """The user's `on_epoch_end(epoch: int, metrics: dict[str, float])`, or None where no entry point was sent.

    Args:
        raw: hyperparameters.json as it is; `sagemaker_program` names the file, `sagemaker_submit_directory` where
            it comes from (a folder, a .tar.gz on disk or on S3).
        code: the folder to unpack it into.

    Raises:
        UserError: the file is not there, cannot be imported, or defines no hook.
    """
    program = str(unquote(raw.get("sagemaker_program", "")))
    if not program:
        return None
    source = str(unquote(raw.get("sagemaker_submit_directory", code)))
    if Path(source) != code:
        files.download_and_extract(source, str(code))
    path = code / program
    if not path.is_file():
        raise UserError(f"entry point {program} is not in {source}: name a file of source_dir")
    sys.path.insert(0, str(code))  # so that the hook can import its neighbours
    hook = getattr(_import(path), "on_epoch_end", None)
    if not callable(hook):
        raise UserError(
            f"entry point {program} defines no on_epoch_end(epoch, metrics): this image trains by itself and calls "
            f"that function after each epoch; leave entry_point out if you need none"
        )
    return hook  # type: ignore[no-any-return]


def _import(path: Path) -> object:
    spec = importlib.util.spec_from_file_location("kennel_user_hooks", path)
    if spec is None or spec.loader is None:
        raise UserError(f"entry point {path.name} is not a Python file: name a .py file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's module raises
        raise UserError(f"entry point {path.name} cannot be imported: {type(error).__name__}: {error}") from error
    return module
