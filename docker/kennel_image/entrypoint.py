"""The image's PID 1: prepares the environment, runs one command as its child and clears up after it.

Knows nothing of training or serving beyond the word `train`, whose sudden death must leave a failure file, and the
start of a job by SageMaker's SDK v3.
"""

import importlib.util
import json
import os
import pwd
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kennel import config, hyperparameters, source_code
from kennel.errors import UserError
from kennel.layout import Layout
from kennel_image import child, cuda_compat, ownership, sdk_v3
from kennel_image.cuda_compat import Choice

_MEANINGS = {
    signal.SIGKILL: "most likely out of memory: lower batch_size, or take an instance with more memory",
    signal.SIGBUS: "most likely out of shared memory: lower batch_size, or give the container a larger /dev/shm",
    signal.SIGTERM: "stopped from outside: allow a longer run time, or train for fewer epochs",
}
_BASH_ENV = "/opt/kennel/bash_env.sh"
_USAGE = "run this image with `train` or `serve`"


def main(command: list[str], environ: Mapping[str, str], root: Path = Path("/")) -> int:
    """Run `command` to its end; without one what the mounted folder is for.

    Returns:
        its exit code, 128 + the signal that killed it, or 126/127 when it could not be started.
    """
    layout = Layout(Path(environ.get("SAGEMAKER_BASE_DIR") or Layout().base))
    command = command or _default(layout)
    if not command:
        _say(f"no command was given, and {layout.base} has neither a job's settings nor a model: {_USAGE}")
        return 2
    compat = _compat(environ.get("KENNEL_CUDA_COMPAT", "auto"), root)
    if compat is None:
        _say(f"KENNEL_CUDA_COMPAT={environ['KENNEL_CUDA_COMPAT']!r}: write on, off or auto")
        return 2
    environment = _environment(environ, compat, root)
    if command[0] == "train":
        code = _job(layout, lambda: _train(command, environment, layout))
    elif sdk_v3.starts(command):
        code = _job(layout, lambda: _start_of_sdk_v3(command, environment, layout))
    else:
        code, cause = _run(command, environment)
        if cause:
            _say(cause)
    if os.geteuid() == 0:
        ownership.give_back(layout.base)
    return code


def _default(layout: Layout) -> list[str]:
    """What SageMaker, or its SDK v3's local mode, wants that gives no command."""
    if layout.hyperparameters.exists() or (layout.config / "resourceconfig.json").exists():
        return ["train"]
    return ["serve"] if layout.model.is_dir() and any(layout.model.iterdir()) else []


def _job(layout: Layout, work: Callable[[], tuple[int, str]]) -> int:
    """A training job's exit code: one that fails, or did nothing, always says why in its failure file.

    Args:
        work: gives the exit code and, where it is known, a sentence on why it is not 0.
    """
    if importlib.util.find_spec("torch") is None:
        _leave_failure(layout, "this image only serves: train in the full image, which `make build` makes")
        return 1
    try:
        _prepare(layout)
        code, cause = work()
    except (UserError, OSError) as error:
        _leave_failure(layout, str(error))
        return 1
    if code != 0:
        _leave_failure(layout, cause or _meaning(code))
    return code


def _train(command: list[str], environment: dict[str, str], layout: Layout) -> tuple[int, str]:
    code, cause = _run(command, environment)
    if code > 128 and layout.success.exists():  # a signal that came while Python ended: compose stops the other hosts
        code = 0
    if code == 0 and not layout.success.exists():
        # Where the toolkit cannot even write its failure file it ends with exit code 0.
        code, cause = 1, "training ended without a word of success: its last log lines say where"
    return code, cause


def _start_of_sdk_v3(command: list[str], environment: dict[str, str], layout: Layout) -> tuple[int, str]:
    sent = source_code.read(layout)
    if sent and sdk_v3.own_training(sent):
        install = sdk_v3.installation(sent, layout)
        if install and _run(install, environment)[0]:
            return 1, f"pip could not install {sent.requirements} of source_dir: the log says why"
        return _train(["train"], environment, layout)
    output, signals = bytearray(), set[signal.Signals]()

    def send(child: int, number: signal.Signals) -> None:
        signals.add(number)
        sdk_v3.send(child, number)

    code, cause = _run(command, environment, send, output)
    found = sdk_v3.reason(layout.failure, sent, bytes(output), signal.SIGTERM in signals) if code else ""
    if found:  # better than what v3's drivers left
        layout.failure.unlink(missing_ok=True)
    return code, cause or found


def _prepare(layout: Layout) -> None:
    """Check and complete what the toolkit reads before any code of ours: it answers a fault there with a traceback.

    SageMaker writes every file; by hand people mount photos and, at most, hyperparameters.

    Raises:
        UserError: there is no input, or a file of settings is no JSON.
        OSError: a missing file cannot be written.
    """
    if not layout.data.parent.is_dir():
        raise UserError(f"{layout.base} holds no input: mount a folder with input/data/train/<class>/*.jpg there")
    hyperparameters.load(layout.hyperparameters)
    layout.failure.parent.mkdir(parents=True, exist_ok=True)
    for word_of_an_earlier_job in (layout.failure, layout.success):
        word_of_an_earlier_job.unlink(missing_ok=True)
    host = "localhost"
    wanted = {"hyperparameters": {}, "inputdataconfig": {}, "resourceconfig": {"current_host": host, "hosts": [host]}}
    for name, content in wanted.items():
        path = layout.config / f"{name}.json"
        if config.read(path) is None:  # the toolkit would fail at a file of 0 bytes, or null
            layout.config.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))


def _compat(override: str, root: Path) -> Choice | None:
    """None where the override is no word that we know."""
    if override in ("on", "off"):
        return Choice(override == "on", f"{override}: KENNEL_CUDA_COMPAT says so")
    return cuda_compat.choose(root) if override == "auto" else None


def _environment(environ: Mapping[str, str], compat: Choice, root: Path) -> dict[str, str]:
    """The child's environment: the library path, and a home and a name for a user that the image does not know."""
    made = {**environ, "KENNEL_CUDA_COMPAT_CHOICE": compat.reason}
    if made.get("BASH_ENV") == _BASH_ENV:  # it has brought us here, and a shell below is no job's start
        del made["BASH_ENV"]
    if compat.use:
        paths = [str(root / cuda_compat.COMPAT), environ.get("LD_LIBRARY_PATH", "")]
        made["LD_LIBRARY_PATH"] = ":".join(filter(None, paths))
    if not os.access(made.get("HOME") or "/nonexistent", os.W_OK):
        made["HOME"] = "/tmp"  # noqa: S108 - the one folder that a read-only container still writes to
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:  # getpass.getuser, which torch calls, raises without one of these
        made.setdefault("USER", "kennel")
    return made


def _run(command: list[str], environment: dict[str, str], *options: Any) -> tuple[int, str]:
    """The command's exit code and, where it could not be started, a sentence on why; options are `child.run`'s."""
    try:
        return child.run(command, environment, *options), ""
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126  # as a shell says it
        return code, f"{command[0]!r} cannot be started ({error.strerror}): {_USAGE}"


def _meaning(code: int) -> str:
    killers = {128 + number: number for number in signal.Signals}
    if code in killers:
        killer = killers[code]
        return f"training was killed by {killer.name}, {_MEANINGS.get(killer, 'a crash in native code: see its log')}"
    return f"training ended with exit code {code} and left no reason: its last log lines say where"


def _leave_failure(layout: Layout, cause: str) -> None:
    """Write the failure file unless the job wrote its own."""
    if layout.failure.exists():
        return
    _say(cause)
    if not layout.base.is_dir():
        return
    try:
        layout.failure.parent.mkdir(parents=True, exist_ok=True)
        layout.failure.write_text(cause + "\n")
    except OSError as error:
        _say(f"{layout.failure} cannot be written ({error.strerror})")


def _say(sentence: str) -> None:
    sys.stderr.write(f"kennel: {sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
