"""The code that a job brings: whether its entry point is a hook, and what SageMaker's SDK v3 says of it.

A hook is a file that defines `on_epoch_end(epoch, metrics)`: this image's own training calls it after each epoch. Any
other entry point is a script, which trains by itself. Files are read here, nothing is run.

SDK v3 sends a `SourceCode` as two channels: `code`, the user's folder, and `sm_drivers`, a script that starts it,
drivers and sourcecode.json (sagemaker-train 1.27, model_trainer.py).
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from kennel import config
from kennel.layout import Layout

HOOK = "on_epoch_end"


@dataclass(frozen=True)
class SourceCode:
    """What SDK v3's `SourceCode` had; "" where nothing was said."""

    folder: Path  # where source_dir lies in the container
    entry_script: str  # relative to `folder`
    command: str
    requirements: str  # a file in `folder`

    @property
    def hook(self) -> Path | None:
        """The entry script, where it is a hook."""
        path = self.folder / self.entry_script
        return path if self.entry_script and is_hook(path) else None


def drivers(layout: Layout) -> Path:
    """SDK v3's channel of scripts."""
    return layout.data / "sm_drivers"


def read(layout: Layout) -> SourceCode | None:
    """What SDK v3 sent; None where the job is none of its, or has no source code.

    Raises:
        UserError: sourcecode.json is no JSON object.
    """
    row = config.read(drivers(layout) / "sourcecode.json")
    if row is None:
        return None
    said = {key: str(row.get(key) or "") for key in ("entry_script", "command", "requirements")}
    return SourceCode(layout.data / "code", **said)


def is_hook(path: Path) -> bool:
    """Whether a file defines, imports or assigns `on_epoch_end` at its top level."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # a shell script, a module's name, or a fault that running it will show
        return False
    return any(HOOK in _names(statement) for statement in tree.body)


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
