"""The code that an Estimator or a ModelTrainer sends: fetched, and its hook loaded. Runs no script."""

import importlib.util
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sagemaker_training import files

from kennel import source_code
from kennel.errors import UserError
from kennel.hyperparameters import unquote
from kennel.layout import Layout
from kennel.source_code import HOOK

OnEpochEnd = Callable[[int, dict[str, float]], object]

_UNPACKED = ".kennel-unpacked"  # in a code folder that we filled: an earlier job's, where /opt/ml outlives a job


def fetch(raw: Mapping[str, Any], code: Path) -> str:
    """Unpack the code that was sent; its entry point's name, relative to `code`, or "" where none was sent.

    Args:
        raw: hyperparameters.json as it is; `sagemaker_program` names the entry point, `sagemaker_submit_directory`
            where it comes from (a folder, a .tar.gz on disk or on S3).
        code: the folder to unpack it into; what the user mounted there is used as it is.

    Raises:
        UserError: the source or the entry point is not there.
    """
    program = str(unquote(raw.get("sagemaker_program", "")))
    if not program:
        return ""
    source = str(unquote(raw.get("sagemaker_submit_directory", code))).removeprefix("file://")
    if Path(source) != code:
        _unpack(source, code)
    packaged = (code / "setup.py").is_file()  # the toolkit installs it and runs the entry point as a module of it
    if not packaged and not (code / program).is_file():
        raise UserError(f"entry point {program} is not in {source}: name a file of source_dir")
    return program


def find(raw: Mapping[str, Any], layout: Layout) -> Path | None:
    """The hook's file, or None where none was sent; after `fetch`."""
    program = str(unquote(raw.get("sagemaker_program", "")))
    if program:
        path = layout.code / program
        return path if source_code.is_hook(path) else None
    sent = source_code.read(layout)
    return sent.hook if sent else None


def load(raw: Mapping[str, Any], layout: Layout) -> OnEpochEnd | None:
    """The user's `on_epoch_end(epoch: int, metrics: dict[str, float])`, or None where none was sent; after `fetch`.

    Raises:
        UserError: the file cannot be imported, or what it calls `on_epoch_end` is no function.
    """
    path = find(raw, layout)
    if path is None:
        return None
    code = next(folder for folder in (layout.code, layout.data / "code") if path.is_relative_to(folder))
    sys.path.insert(0, str(code))  # so that the hook can import its neighbours
    hook = getattr(_import(path), HOOK, None)
    if not callable(hook):
        raise UserError(f"{HOOK} in entry point {path.name} is no function: define {HOOK}(epoch, metrics)")
    return hook  # type: ignore[no-any-return]


def _unpack(source: str, code: Path) -> None:
    if (code / _UNPACKED).exists():
        shutil.rmtree(code)
    if code.is_dir() and any(code.iterdir()):
        logging.getLogger("kennel").warning("warning: %s holds code already: %s is not unpacked", code, source)
        return
    if not source.startswith("s3://") and not Path(source).exists():
        raise UserError(
            f"sagemaker_submit_directory {source} is not there: name a folder or a .tar.gz in the container"
        )
    files.download_and_extract(source, str(code))
    (code / _UNPACKED).touch()


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
