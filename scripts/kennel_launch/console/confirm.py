"""What is going to be created is shown first, on stderr, and nothing is before somebody says yes."""

import sys
from collections.abc import Iterable

from kennel.errors import UserError


def ask(lines: Iterable[str], yes: bool) -> None:
    """Shows the lines; returns when it may be done.

    Args:
        yes: it was said already, by --yes.

    Raises:
        UserError: the answer is no, or there is no terminal to ask at.
    """
    for line in lines:
        print(line, file=sys.stderr)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nothing is done without a yes, and here is no terminal to ask at: add --yes")
    print("go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was done, the answer was no: answer y, or add --yes")
