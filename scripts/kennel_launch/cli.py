"""The `kennel` command: finds the module of a subcommand, and turns what it raises into a sentence and an exit code."""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from kennel.errors import UserError, did_you_mean

COMMANDS = {
    "push": "a local image to ECR, or to any registry",
    "upload": "a folder of photos to S3, only what changed",
    "check": "would a launch work, and what would it cost; creates nothing",
    "train": "one training job on SageMaker",
    "tune": "try many settings and keep the best",
    "deploy": "a trained model becomes an endpoint",
    "invoke": "ask an endpoint about photos",
    "transform": "ask a model about many photos, without an endpoint",
    "register": "a job's model into the model registry, or approve one there",
    "pipeline": "train, check the accuracy, register: as a SageMaker pipeline",
    "delete": "an endpoint and all that was made for it; pipelines, model packages",
    "status": "what there is: jobs, endpoints, pipelines, model packages",
    "logs": "what a job or an endpoint wrote",
    "report": "a training job's HTML report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """0: done, 1: the job failed, 2: it can't be done as asked, 130: stopped by Ctrl-C.

    Args:
        argv: the words after `kennel`; those of this process where none are given.

    Raises:
        SystemExit: argparse's, after --help or a flag that is wrong.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    said = "Train and serve image classifiers on SageMaker."
    parser = argparse.ArgumentParser(prog="kennel", description=said, formatter_class=_Wide)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in words if word in COMMANDS), "")
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what, allow_abbrev=False, formatter_class=_Wide)
        command.set_defaults(parser=command, words=words)
        if name == asked:  # the others may need packages that are not here
            importlib.import_module(f"kennel_launch.commands.{name}").add_arguments(command)
    if not words:
        parser.print_help()
        return 0
    options, unknown = parser.parse_known_args(words)
    if unknown:
        _refuse(commands.choices[options.command], unknown[0])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        return int(importlib.import_module(f"kennel_launch.commands.{options.command}").run(options))
    except UserError as error:
        print(f"kennel {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"kennel {options.command}: stopped", file=sys.stderr)
        return 130


class _Wide(argparse.HelpFormatter):
    """A flag or a command and what it is on one line, where the screen allows it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)
        self._action_max_length = 15  # Python 3.11 forgets how far a command's name is indented


def _refuse(command: argparse.ArgumentParser, word: str) -> NoReturn:
    """Ends with exit code 2; names the flag that was probably meant."""
    flags = [flag for action in command._actions for flag in action.option_strings]
    otherwise = f"kennel {command.prog.split()[-1]} --help lists the flags"
    hint = did_you_mean(word.partition("=")[0], flags, otherwise, cutoff=0.6)
    command.error(f"unknown argument {word}: {hint}")


if __name__ == "__main__":
    sys.exit(main())
