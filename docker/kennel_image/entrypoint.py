"""The image's PID 1: prepares the environment, runs one command as its child and clears up after it.

Knows nothing of training or serving beyond the word `train`, whose sudden death must leave a failure file.
"""

import contextlib
import importlib.util
import json
import os
import pwd
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from kennel import config, hyperparameters
from kennel.errors import UserError
from kennel.layout import Layout
from kennel_image import cuda_compat, ownership
from kennel_image.cuda_compat import Choice

_FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_FROM_TERMINAL = {signal.SIGINT, signal.SIGQUIT}
_MEANINGS = {
    signal.SIGKILL: "most likely out of memory: lower batch_size, or take an instance with more memory",
    signal.SIGBUS: "most likely out of shared memory: lower batch_size, or give the container a larger /dev/shm",
    signal.SIGTERM: "stopped from outside: allow a longer run time, or train for fewer epochs",
}
_USAGE = "run this image with `train` or `serve`"


def main(command: list[str], environ: Mapping[str, str], root: Path = Path("/")) -> int:
    """Run `command` to its end.

    Returns:
        its exit code, 128 + the signal that killed it, or 126/127 when it could not be started.
    """
    if not command:
        _say(f"no command was given: {_USAGE}")
        return 2
    compat = _compat(environ.get("KENNEL_CUDA_COMPAT", "auto"), root)
    if compat is None:
        _say(f"KENNEL_CUDA_COMPAT={environ['KENNEL_CUDA_COMPAT']!r}: write on, off or auto")
        return 2
    layout = Layout(Path(environ.get("SAGEMAKER_BASE_DIR") or Layout().base))
    if command[0] == "train":
        code = _train(command, _environment(environ, compat, root), layout)
    else:
        code, cause = _run(command, _environment(environ, compat, root))
        if cause:
            _say(cause)
    if os.geteuid() == 0:
        ownership.give_back(layout.base)
    return code


def _train(command: list[str], environment: dict[str, str], layout: Layout) -> int:
    """`_run` for a training job: one that fails, or did nothing, always says why in its failure file."""
    if importlib.util.find_spec("torch") is None:
        _leave_failure(layout, "this image only serves: train in the full image, which `make build` makes")
        return 1
    try:
        _prepare(layout)
    except (UserError, OSError) as error:
        _leave_failure(layout, str(error))
        return 1
    code, cause = _run(command, environment)
    if code > 128 and layout.success.exists():  # a signal that came while Python ended: compose stops the other hosts
        code = 0
    if code == 0 and not layout.success.exists():
        # Where the toolkit cannot even write its failure file it ends with exit code 0.
        code, cause = 1, "training ended without a word of success: its last log lines say where"
    if code != 0:
        _leave_failure(layout, cause or _meaning(code))
    return code


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


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run the command as a child to its end; its exit code and, where it could not be started, a sentence on why."""
    # Blocked from before the child exists: a signal waits for sigwait, none can slip by or kill us.
    waited = _FORWARDED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    # Python ignores two more, and our parent may have ignored any: the child starts with a clean slate.
    reset = {*_FORWARDED, signal.SIGPIPE, signal.SIGXFSZ}
    try:
        child = os.posix_spawnp(command[0], command, environment, setsigmask=before, setsigdef=reset)
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126  # as a shell says it
        return code, f"{command[0]!r} cannot be started ({error.strerror}): {_USAGE}"
    return _wait(child, waited), ""


def _wait(child: int, waited: set[signal.Signals]) -> int:
    """Pass signals on until the child ends; reap every orphan on the way, as PID 1 must."""
    while True:
        got = signal.sigwait(waited)
        if got == signal.SIGCHLD:
            ended = _reap()
            if child in ended:
                return ended[child]
        # A terminal sends its signals to the child by itself: twice would be two KeyboardInterrupts.
        elif not (got in _FROM_TERMINAL and os.isatty(0)):
            os.kill(child, got)


def _reap() -> dict[int, int]:
    """The exit code, or 128 + the signal, of every process that has ended since the last call."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):  # none is left
        while (pair := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(pair[1])
            ended[pair[0]] = code if code >= 0 else 128 - code
    return ended


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
