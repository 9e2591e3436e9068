"""`make deploy ARGS='...'`: ARGS from the environment, split into words as a shell splits them, and run by no shell."""

import os
import shlex
import sys


def main() -> None:
    """Become the command in argv, with the words of ARGS after it."""
    try:
        words = shlex.split(os.environ.get("ARGS", ""))
    except ValueError as error:
        sys.exit(f"ARGS={os.environ['ARGS']}: {str(error).lower()}: close each quotation mark that is opened")
    os.execv(sys.argv[1], [*sys.argv[1:], *words])  # noqa: S606 # the command is the Makefile's, and no shell is wanted


if __name__ == "__main__":
    main()
