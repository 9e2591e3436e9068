"""The code that an Estimator sends: fetched, and recognised as a hook or a script. Runs no script.

A hook is a file that defines `on_epoch_end(epoch, metrics)`: this image's own training calls it after each epoch.
Any other entry point is a script, which trains by itself.
"""

import ast
import importlib.util
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sagemaker_training import files

from kennel.errors import UserError
from kennel.hyperparameters import unquote

OnEpochEnd = Callable[[int, dict[str, float]], object]

_NAME = "on_epoch_end"
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


def is_hook(path: Path) -> bool:
    """Whether a file defines, imports or assigns `on_epoch_end` at its top level; it is read, not run."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # a shell script, a module's name, or a fault that running it will show
        return False
    return any(_NAME in _names(statement) for statement in tree.body)


def load(raw: Mapping[str, Any], code: Path) -> OnEpochEnd | None:
    """The user's `on_epoch_end(epoch: int, metrics: dict[str, float])`, or None where none was sent; after `fetch`.

    Raises:
        UserError: the file cannot be imported, or what it calls `on_epoch_end` is no function.
    """
    program = str(unquote(raw.get("sagemaker_program", "")))
    if not program or not is_hook(code / program):
        return None
    sys.path.insert(0, str(code))  # so that the hook can import its neighbours
    hook = getattr(_import(code / program), _NAME, None)
    if not callable(hook):
        raise UserError(f"{_NAME} in entry point {program} is no function: define {_NAME}(epoch, metrics)")
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


def _names(statement: ast.stmt) -> list[str]:
    """What a statement binds, as far as a hook is bound by it."""
    match statement:
        case ast.FunctionDef(name=name):
            return [name]
        case ast.ImportFrom(names=names):
            return [alias.asname or alias.name for alias in names]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


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
