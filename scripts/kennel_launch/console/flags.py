"""Flags of a training job: one for each row of the hyperparameter table, and SageMaker's own. Starts nothing."""

import argparse
import math
from collections.abc import Collection, Mapping
from typing import Any

from kennel import hyperparameters
from kennel.errors import UserError
from kennel.hyperparameters import OF_TRACKING, TABLE, TYPES, Hyperparameters, text
from kennel_launch import settings

LONGEST_RUN = 28 * 24 * 3600  # seconds; https://docs.aws.amazon.com/general/latest/gr/sagemaker.html
MOST_RETRIES = 30  # botocore's service model, MaximumRetryAttempts
LONGEST_WARM = 21_600  # seconds; botocore's service model, KeepAlivePeriodInSeconds
_MODES = ("File", "FastFile", "Pipe")
SWITCHED = ("true", "false")  # of --pretrained, which by anything else names a channel's place
_DEST = "hp."  # so that the hyperparameter `profile` is not the AWS profile
_LIST = "--help-hyperparameters"
_OF_LOCAL = ("out", "port", "gpus", "fresh")  # flags that --local alone heeds


class _List(argparse.Action):
    """Prints the hyperparameters and ends, as --help does with the other flags."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        print(listing(self.const), end="")
        parser.exit()


def add_hyperparameters(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """`--epochs 5` for every row; --help has one line for them all, since they would fill two screens.

    Args:
        without: those that have a flag of their own, beside `pretrained` and those that are settings, too.
    """
    names = [name for name in TABLE if name not in (*without, "pretrained", *OF_TRACKING)]
    for name in names:
        switch = {"nargs": "?", "const": "true"} if TYPES[name] is bool else {}
        parser.add_argument(flag(name), dest=_DEST + name, default="", help=argparse.SUPPRESS, **switch)  # type: ignore[arg-type]
    summary = "each is a flag, as --learning-rate 0.003"
    parser.add_argument(_LIST, action=_List, nargs=0, const=names, default=argparse.SUPPRESS, help=summary)


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def hyperparameters_of(options: argparse.Namespace) -> dict[str, str]:
    """What was given by flags, as written."""
    values = vars(options)
    given = {name: value for name in TABLE if (value := values.get(_DEST + name, ""))}
    return given | ({"pretrained": options.pretrained} if options.pretrained in SWITCHED else {})


def listing(names: Collection[str]) -> str:
    """One paragraph for each hyperparameter: flag, default, what is allowed, what it is."""
    rows = []
    for name in names:
        rule = TABLE[name]
        allowed = ", ".join(rule.choices)
        if TYPES[name] is bool:
            allowed = "true, false"
        elif math.isfinite(rule.low):
            allowed = f"{rule.low:g} to {rule.high:g}"
        default = text(getattr(Hyperparameters, name)) or "none"
        said = rule.help.replace("`", "")
        rows.append(f"  {flag(name)}  (default {default}{'; ' if allowed else ''}{allowed})\n      {said}\n")
    return "".join(rows)


def changed(given: Mapping[str, Any]) -> str:
    """`epochs=5 batch_size=64`: those that differ from their default.

    Raises:
        UserError: one that is none, or a value that it can't have.
    """
    parsed = hyperparameters.parse(given)
    rows = {name: getattr(parsed, name) for name in TABLE}
    words = [f"{name}={text(value)}" for name, value in rows.items() if value != getattr(Hyperparameters, name)]
    return " ".join(words) or "all as by default"


def add_training(parser: argparse.ArgumentParser, *, folded: str = "") -> None:
    """What SageMaker itself can be asked for a training job.

    Args:
        folded: the command whose --help explains them, where this one's has no room.
    """
    group = parser.add_argument_group("each training job" + (f" ({folded} --help)" if folded else ""))
    before = len(parser._actions)
    _add_training(group)
    if folded:
        actions = parser._actions[before:]
        group.description = " ".join(action.option_strings[0] for action in actions)
        for action in actions:
            action.help = argparse.SUPPRESS


def _add_training(group: Any) -> None:
    group.add_argument("--spot", action="store_true", help="on spare machines; goes on from its checkpoints")
    group.add_argument("--checkpoints", metavar="S3-URI", default="", help="keep them there, or go on from there")
    group.add_argument("--max-run", type=int, default=24 * 3600, metavar="SECONDS", help="of training (86400)")
    group.add_argument("--max-wait", type=int, metavar="SECONDS", help="with --spot, waiting and training (twice that)")
    group.add_argument("--keep-alive", type=int, default=0, metavar="SECONDS", help="keep its machines warm after it")
    group.add_argument("--retries", type=int, default=0, metavar="N", help="after an internal error of SageMaker's")
    group.add_argument("--input-mode", choices=_MODES, default="File", metavar="MODE", help=" or ".join(_MODES))
    group.add_argument("--volume-size", type=int, default=30, metavar="GB", help="disk of each machine (30)")
    group.add_argument("--network-isolation", action="store_true", help="no call out; needs --pretrained weights")
    group.add_argument("--encrypt-traffic", action="store_true", help="between the machines of one job")
    group.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the container; repeat")


def refuse_elsewhere(options: argparse.Namespace, known: Collection[str]) -> None:
    """Refuses flags that --local would ignore: those that are set, and not to their default.

    Args:
        known: the options that --local knows, beside hyperparameters.

    Raises:
        UserError: names all the others.
    """
    found = [
        action.option_strings[0]
        for action in options.parser._actions
        if action.option_strings and action.dest not in known and not action.dest.startswith(_DEST)
        if getattr(options, action.dest, action.default) != action.default
    ]
    if found:
        that, them = ("that", "one of them") if len(found) == 1 else ("those", "them, or --local,")
        raise UserError(f"{', '.join(found)} and --local: only SageMaker has {that}, leave {them} out")


def refuse_without_local(options: argparse.Namespace) -> None:
    """Refuses, without --local, flags that only --local heeds.

    Raises:
        UserError: names them.
    """
    if options.local:
        return
    found = [
        action.option_strings[0]
        for action in options.parser._actions
        if action.dest in _OF_LOCAL and getattr(options, action.dest) != action.default
    ]
    if found:
        them = "it" if len(found) == 1 else "them"
        raise UserError(f"{', '.join(found)} without --local: add --local, or leave {them} out")


def add_doing(parser: argparse.ArgumentParser, *, wait: str = "") -> None:
    """--dry-run, --yes and, where something is waited for, --wait."""
    if wait:
        parser.add_argument("--wait", action="store_true", help=wait)
    parser.add_argument("--dry-run", action="store_true", help="print the exact API request, send nothing")
    parser.add_argument("--yes", action="store_true", help="do it without asking")


def checked_training(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_training` by the names of jobs.Training.

    Raises:
        UserError: SageMaker would refuse it.
    """
    if not 1 <= options.max_run <= LONGEST_RUN:
        raise UserError(f"--max-run {options.max_run}: write between 1 and {LONGEST_RUN} seconds (28 days)")
    if options.max_wait is not None and not options.spot:
        raise UserError("--max-wait is how long spare machines are waited for: add --spot")
    if options.max_wait is not None and options.max_wait < options.max_run:
        raise UserError(f"--max-wait {options.max_wait}: it holds --max-run, {options.max_run} seconds: write more")
    if options.keep_alive and options.spot:  # https://docs.aws.amazon.com/sagemaker/latest/dg/train-warm-pools.html
        raise UserError("--keep-alive and --spot: SageMaker keeps no spare machines warm: leave one of them out")
    if not 0 <= options.keep_alive <= LONGEST_WARM:
        raise UserError(f"--keep-alive {options.keep_alive}: write up to {LONGEST_WARM} seconds")
    if not 0 <= options.retries <= MOST_RETRIES:
        raise UserError(f"--retries {options.retries}: write up to {MOST_RETRIES}")
    if options.checkpoints and not options.checkpoints.startswith("s3://"):
        raise UserError(f"--checkpoints {options.checkpoints}: write where in S3, s3://bucket/prefix")
    names = ("spot", "checkpoints", "max_run", "max_wait", "keep_alive", "retries", "input_mode", "volume_size")
    arguments = {name: getattr(options, name) for name in (*names, "network_isolation", "encrypt_traffic")}
    if options.spot:
        arguments["max_wait"] = options.max_wait or 2 * options.max_run
    return arguments | {"environment": environment(options.env)}


def environment(words: Collection[str], flag: str = "--env") -> dict[str, str]:
    """`NAME=VALUE` words of a flag as a table.

    Raises:
        UserError: a word of another form.
    """
    pairs = [word.partition("=") for word in words]
    for name, sign, _ in pairs:
        if not sign or not name.isidentifier():
            raise UserError(f"{flag} {name}{sign}: write NAME=VALUE, a name of letters, digits and _")
    return {name: value for name, _, value in pairs}


def add_serving_instance_type(parser: argparse.ArgumentParser) -> None:
    """`--instance-type` of what serves; the setting of that name is the one that trains."""
    row = settings.ROWS["endpoint_instance_type"]
    words = ("--instance-type", settings.flag("endpoint_instance_type"))
    parser.add_argument(*words, dest="endpoint_instance_type", metavar="TYPE", help=f"that serves ({row.default})")
