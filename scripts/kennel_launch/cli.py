"""The `kennel` command: finds the module of a subcommand, and turns what it raises into a sentence and an exit code."""

import argparse
import importlib
import signal
import sys

from kennel.errors import UserError

COMMANDS = {"tune": "try many settings and keep the best"}


def main() -> int:
    """0: done, 1: the job failed, 2: it can't be done as asked, 130: stopped by Ctrl-C."""
    parser = argparse.ArgumentParser(prog="kennel", description="Train and serve image classifiers.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in sys.argv[1:] if word in COMMANDS), "")
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        if name == asked:  # the others may need packages that are not here
            importlib.import_module(f"kennel_launch.{name}").add_arguments(command)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        return int(importlib.import_module(f"kennel_launch.{options.command}").run(options))
    except UserError as error:
        print(f"kennel {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"kennel {options.command}: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
