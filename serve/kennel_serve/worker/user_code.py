"""A user's own inference.py: found, its requirements installed, imported, its errors as sentences.

What its functions are called with is AWS's contract (sagemaker-inference and its PyTorch image); user_endpoint.py
calls them.
"""

import asyncio
import importlib.util
import inspect
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.errors import UserError, did_you_mean
from kennel.layout import MANIFEST

DEFAULT = "inference.py"
INSTALL = "KENNEL_INSTALL_REQUIREMENTS"

# What each may define -> what it is called with; a context follows where it takes one more.
PARAMETERS = {
    "model_fn": ("model_dir",),
    "input_fn": ("body", "content_type"),
    "predict_fn": ("data", "model"),
    "output_fn": ("prediction", "accept"),
    "transform_fn": ("model", "body", "content_type", "accept"),
    "pre_model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Function:
    """One of the user's functions."""

    call: Callable[..., Any]
    takes_context: bool


def find(model: Path, program: str = "", directory: str = "") -> Path | None:
    """The file that is to answer requests; None: there is none, and the model is ours alone.

    Args:
        model: the model folder.
        program: SAGEMAKER_PROGRAM, the file's name.
        directory: SAGEMAKER_SUBMIT_DIRECTORY, where to look before the model folder; what is no folder is passed over.

    Raises:
        UserError: the file that `program` names is not there.
    """
    sent = Path(directory.removeprefix("file://"))
    folders = [*([sent] if directory and sent.is_dir() else []), model / "code", model]
    name = (program or DEFAULT).removesuffix(".py") + ".py"
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None and name == DEFAULT and (model / MANIFEST).is_file():
        if program:  # SDKs set it for every model; this one brings its own serving
            _log.info("SAGEMAKER_PROGRAM=%s: the model has no such file and is served by Kennel's own code", program)
        return None
    if found is None and program:
        fix = "pack it into the model's code folder"
        if directory.startswith("s3://"):  # what the SDK does with an entry_point alone
            fix = "name the Model's source_dir as well, which packs it into the model"
        raise UserError(f"SAGEMAKER_PROGRAM={program} is in none of {', '.join(map(str, folders))}: {fix}")
    return found


async def install(program: Path | None, wanted: bool) -> None:
    """Give requirements.txt beside the file to pip where that is allowed, else log that it was not.

    Raises:
        UserError: pip could not install them.
    """
    file = program and program.parent / "requirements.txt"
    if not file or not file.is_file():
        return
    if not wanted:
        _log.warning("%s is not installed: set %s=true if you trust its author", file, INSTALL)
        return
    _log.info("installing %s", file)
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--root-user-action=ignore"]
    pip = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "pip", "install", *options, "-r", str(file)],
        cwd=file.parent,  # what it names by a relative path is beside it
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        said = (await pip.communicate())[1].decode(errors="replace").strip()
    finally:
        if pip.returncode is None:  # the server is being stopped
            with suppress(ProcessLookupError):
                os.killpg(pip.pid, signal.SIGKILL)
            await pip.wait()
    if pip.returncode:
        _log.error("%s", said)
        lines = [line for line in said.splitlines() if line.lower().startswith("error:")] or said.splitlines()[-1:]
        raise UserError(f"{file} cannot be installed: pip says {' '.join(lines)[:300]!r}: fix it")


def load(program: Path) -> dict[str, Function]:
    """Import the file, its folder first on sys.path; what it defines of `PARAMETERS`.

    Raises:
        UserError: it cannot be imported, defines what does not go together, or a function that cannot be called.
    """
    found = vars(_import(program))
    defined = {name: found[name] for name in PARAMETERS if found.get(name) is not None}
    others = [name for name in ("input_fn", "predict_fn", "output_fn") if name in defined]
    if others and "transform_fn" in defined:
        raise UserError(f"{program.name} defines transform_fn, which does it all, and {', '.join(others)}: remove one")
    if not defined:
        _log.warning("%s defines none of %s: the model is served without it", program, ", ".join(PARAMETERS))
    return {name: Function(call, _takes_context(program, name, call)) for name, call in defined.items()}


def _takes_context(program: Path, name: str, call: Any) -> bool:
    parameters = PARAMETERS[name]
    wanted = f"define {name}({', '.join(parameters)}) or {name}({', '.join(parameters)}, context)"
    if not callable(call):
        raise UserError(f"{program.name}'s {name} is no function: {wanted}")
    if inspect.isasyncgenfunction(call):
        raise UserError(f"{program.name}'s {name} is an asynchronous generator: return one answer in place of yield")
    signature = inspect.signature(call)
    without, with_context = (_binds(signature, count) for count in (len(parameters), len(parameters) + 1))
    if not without and not with_context:
        raise UserError(f"{program.name}'s {name} takes {signature}: {wanted}")
    return with_context and (not without or list(signature.parameters)[len(parameters) :][:1] == ["context"])


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _import(program: Path) -> object:
    sys.path.insert(0, str(program.parent))
    sys.dont_write_bytecode = True  # the model folder is not ours
    name = program.stem if program.stem not in sys.modules else f"kennel_{program.stem}"
    spec = importlib.util.spec_from_file_location(name, program)
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where its classes' pickles look for it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        del sys.modules[name]
        raise UserError(f"{program.name} cannot be imported: {why(error, program)}") from error
    return module


def why(error: BaseException, program: Path) -> str:
    """What a user's code raised, where in it, and what to do: a typing error, or a package that is not installed."""
    folder = program.parent
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}: {error.msg}: fix it"
    where, missing = _where(error, folder), getattr(error, "name", None) or ""
    root = missing.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not root or root in sys.modules:
        return f"{cause(error, program)}: fix it"
    own = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    install = f"list it in requirements.txt and set {INSTALL}=true, or pack it in"
    return f"{where}: there is no module {missing!r}: {did_you_mean(root, own, install, cutoff=0.75)}"


def cause(error: BaseException, program: Path) -> str:
    """What a user's code raised, and where in it."""
    return f"{_where(error, program.parent)}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _where(error: BaseException, folder: Path) -> str:
    """`file.py:12`: the innermost line of the user's own files, else of all."""
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(path.relative_to(folder), line) for path, line in frames if path.is_relative_to(folder)]
    path, line = (own or [(Path(path.name), line) for path, line in frames])[-1]
    return f"{path}:{line}"
