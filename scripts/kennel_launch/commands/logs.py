"""`kennel logs NAME [--follow]`: what a job or an endpoint wrote to CloudWatch, and how a followed job ends."""

import argparse
import sys

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import inventory, log_stream
from kennel_launch.aws.inventory import TUNING


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of a training or transform job, or an endpoint")
    parser.add_argument("--follow", action="store_true", help="until the job ends, or Ctrl-C")
    kennel_settings.add_flags(parser, kennel_settings.OF_ACCESS)


def run(options: argparse.Namespace) -> int:
    """Prints the log; with --follow, 1 where the job failed.

    Raises:
        UserError: nothing of that name, or AWS refuses.
    """
    settings = kennel_settings.load(vars(options))
    found = inventory.find(options.name, settings)
    if found.kind is TUNING:
        raise UserError(f"{found.name} is a tuning job, its training jobs have the logs: kennel status {found.name}")
    if options.follow:
        return log_stream.follow(found, settings)
    log = log_stream.Log(found, settings)
    for line in log.new():
        print(line)
    if not log.found:
        print(f"kennel logs: {found.name} has written nothing yet ({found.status})", file=sys.stderr)
    return 0
