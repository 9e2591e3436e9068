"""One command as a child of PID 1: signals go on to it, every orphan is reaped, its output may be kept."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping

_FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_FROM_TERMINAL = {signal.SIGINT, signal.SIGQUIT}
KEPT = 64 * 1024  # bytes of output for the failure file
DRAIN = 2.0  # seconds for what is left in the pipe: a process that the command left behind may hold it open


def run(
    command: list[str],
    environment: Mapping[str, str],
    send: Callable[[int, signal.Signals], None] = os.kill,
    output: bytearray | None = None,
) -> int:
    """Run the command to its end.

    Args:
        send: passes a signal on to the child's process id.
        output: takes the last `KEPT` bytes of stdout and stderr, which are passed on as they come.

    Returns:
        its exit code, or 128 + the signal that killed it.

    Raises:
        OSError: it could not be started.
    """
    # Blocked from before the child exists: a signal waits for sigwait, none can slip by or kill us.
    waited = _FORWARDED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    # Python ignores two more, and our parent may have ignored any: the child starts with a clean slate.
    reset = {*_FORWARDED, signal.SIGPIPE, signal.SIGXFSZ}
    if output is None:
        child = os.posix_spawnp(command[0], command, environment, setsigmask=before, setsigdef=reset)
        return _wait(child, waited, send)
    read, write = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, write, number) for number in (1, 2)]
        child = os.posix_spawnp(
            command[0], command, environment, file_actions=actions, setsigmask=before, setsigdef=reset
        )
    finally:
        os.close(write)
    reader = threading.Thread(target=_copy, args=(read, output), daemon=True)
    reader.start()
    code = _wait(child, waited, send)
    reader.join(DRAIN)
    return code


def _copy(source: int, kept: bytearray) -> None:
    while chunk := os.read(source, KEPT):
        kept += chunk
        del kept[:-KEPT]
        while chunk:
            chunk = chunk[os.write(1, chunk) :]


def _wait(child: int, waited: set[signal.Signals], send: Callable[[int, signal.Signals], None]) -> int:
    """Pass signals on until the child ends; reap every orphan on the way, as PID 1 must."""
    while True:
        got = signal.Signals(signal.sigwait(waited))
        if got == signal.SIGCHLD:
            ended = _reap()
            if child in ended:
                return ended[child]
        # A terminal sends its signals to the child by itself: twice would be two KeyboardInterrupts.
        elif not (got in _FROM_TERMINAL and os.isatty(0)):
            send(child, got)


def _reap() -> dict[int, int]:
    """The exit code, or 128 + the signal, of every process that has ended since the last call."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):  # none is left
        while (pair := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(pair[1])
            ended[pair[0]] = code if code >= 0 else 128 - code
    return ended
