"""`kennel delete`: an endpoint with all made for it, a pipeline, model packages, or all that is ours; asked first."""

import argparse
import time
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import s3, session
from kennel_launch.console import confirm, flags, terminal
from kennel_launch.console.steps import Show, Steps
from kennel_launch.hosting import components, leftovers, rollout, specs
from kennel_launch.hosting.leftovers import Leftover
from kennel_launch.local_mode import local_endpoint, local_job
from kennel_launch.models import registry_leftovers
from kennel_launch.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="", metavar="ENDPOINT")
    parser.add_argument(
        "--registry",
        default="",
        metavar="GROUP[/N]",
        help="kennel's versions of a group, and the group once empty",
    )
    parser.add_argument("--pipeline", default="", metavar="NAME", help="a pipeline; what it made stays")
    parser.add_argument("--all", action="store_true", help="every one of all these with the tag kennel=1")
    parser.add_argument(
        "--data", action="store_true", help="also what lies in S3 of it: model, report, photos asked about"
    )
    local_job.add_flags(parser)
    flags.add_doing(parser)
    kennel_settings.add_flags(parser, [*kennel_settings.OF_ACCESS, "bucket", "prefix"])


def run(options: argparse.Namespace) -> int:
    """0: all of it is gone.

    Raises:
        UserError: there is nothing to remove, or AWS refuses.
    """
    flags.refuse_without_local(options)
    if options.local:
        return delete_here(options)
    settings = kennel_settings.load(vars(options))
    check(options, settings)
    if options.dry_run:
        session.dry_run(settings)
    found, folders, stays = what(options, settings)
    if not found and not folders:
        name = options.name or options.registry or options.pipeline
        where = "tagged kennel=1" if options.all else f"of the name {name}"
        kept = f" ({'; '.join(stays)})" if stays else ""
        raise UserError(f"nothing {where} is in {session.region(settings)}{kept}: kennel status lists what there is")
    lines = [f"removes {item}" for item in found] + [f"removes all under {folder}" for folder in folders] + stays
    if not options.data:
        captured = leftovers.captured(found, settings)
        lines += [f"keeps what was captured, under {folder}: --data removes it" for folder in captured]
    confirm.ask(lines, options.yes or options.dry_run)
    for item in found:
        with session.translate_errors(str(item)):
            removed = _remove(item, settings)
        if not options.dry_run:
            print(f"removed {item}" if removed else f"{item} was gone already")
            if item.what == "inference component":  # the endpoint goes after it only
                components.wait_until_gone(item.call.name, settings)
    for folder in folders:
        with session.translate_errors(folder):
            count = s3.remove(session.client("s3", settings), *s3.split(folder))
        if not options.dry_run:
            print(f"removed {count} objects under {folder}")
    return 0


def what(options: argparse.Namespace, settings: Settings) -> tuple[list[Leftover], list[str], list[str]]:
    """(what is to be removed; S3 prefixes, whose objects are; lines: what stays).

    Raises:
        UserError: AWS refuses, or it is in use.
    """
    if options.pipeline:
        return registry_leftovers.of_pipeline(options.pipeline, settings), [], []
    if options.registry:
        found, stays = registry_leftovers.of_registry(options.registry, settings)
        folders = registry_leftovers.data(options.registry, found, settings) if options.data else []
        return found, folders, stays
    if options.all:
        more, stays = registry_leftovers.tagged(settings)
        return leftovers.tagged(settings) + more, [], stays
    found = leftovers.of_endpoint(options.name, settings)
    return found, leftovers.data(options.name, found, settings) if options.data else [], []


def delete_here(options: argparse.Namespace) -> int:
    """The endpoint of --local, of which a folder has one.

    Raises:
        UserError: nothing runs from there, or more is named.
    """
    if _named(options) or options.data or options.dry_run:
        raise UserError("--local stands alone, with --out: that folder's endpoint is the one that goes")
    return local_endpoint.delete(options.out)


def check(options: argparse.Namespace, settings: Settings) -> None:
    """
    Raises:
        UserError: nothing is named, or more than one thing.
    """
    if _named(options) != 1:
        raise UserError(
            "name an endpoint, or write --all for all that is tagged kennel=1, or one of --registry and --pipeline"
        )
    if options.all and options.data:
        raise UserError("--all leaves S3 as it is: name one endpoint to remove its data")
    if options.pipeline and options.data:
        raise UserError("--pipeline leaves S3 as it is: what its executions made is their jobs'")
    for name, kind in ((options.name, "endpoint"), (options.pipeline, "pipeline")):
        if name:
            specs.checked(name, kind)
    if options.data:
        kennel_settings.needed(settings, "bucket", "prefix")


def _named(options: argparse.Namespace) -> int:
    return sum(map(bool, (options.name, options.registry, options.pipeline, options.all)))


def _remove(item: Leftover, settings: Settings) -> bool:
    """Whether it was there. An endpoint that is just changing is waited for: until then SageMaker refuses."""
    client = session.client(item.call.service, settings)
    if item.what != "endpoint":
        return _once(client, item)
    steps = Steps(terminal.err())
    for pause in rollout.pauses():
        try:
            return _once(client, item)
        except client.exceptions.ClientError as error:
            if "in-progress" not in str(error):
                raise
        with steps.phase("endpoint", f"{item.call.name} is just changing, and goes as soon as it can") as show:
            _settle(client, item.call.name, show)
        time.sleep(pause)
    raise AssertionError("unreachable")


def _settle(client: Any, name: str, show: Show) -> None:
    for pause in rollout.pauses():
        found = session.describe(client, "describe_endpoint", EndpointName=name)
        if found is None or found["EndpointStatus"] not in rollout.CHANGING:
            return
        show(f"{name}: {found['EndpointStatus']}", 0)
        time.sleep(pause)


def _once(client: Any, item: Leftover) -> bool:
    return session.describe(client, item.call.operation, **item.call.request) is not None
