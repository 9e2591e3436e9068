"""`kennel upload FOLDER`: a folder of photos to S3, only what changed; deletes nothing without --delete."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from kennel_launch import settings as kennel_settings
from kennel_launch.aws import s3_upload, session, sync
from kennel_launch.console import confirm, flags

_NEEDED = ("bucket", "prefix", "kms_key", *kennel_settings.OF_ACCESS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="of photos, <class>/*.jpg or train/<class>/*.jpg")
    parser.add_argument("--name", default="", help="of the data set (default: the folder's)")
    parser.add_argument("--channel", default="", help="a folder below that name, as train or validation")
    parser.add_argument("--delete", action="store_true", help="remove from S3 what is no longer in the folder")
    flags.add_doing(parser)
    kennel_settings.add_flags(parser, _NEEDED)


def run(options: argparse.Namespace) -> int:
    """Uploads; the last line, on stdout, is the S3 URI.

    Raises:
        UserError: no such folder or bucket, or AWS refuses.
    """
    settings = kennel_settings.load(vars(options))
    if options.dry_run:
        session.dry_run(settings)
    made = sync.plan(options.folder, settings, options.name, options.channel)
    if options.delete and made.gone and not options.dry_run:
        lines = [str(made), f"delete {len(made.gone)} files there: {_some(made.gone)}"]
        confirm.ask(lines, options.yes)
    sent = s3_upload.send(made, settings, delete=options.delete)
    if not options.dry_run:
        print(sent, file=sys.stderr)
        print(made.uri)
    return 0


def _some(words: Iterable[str]) -> str:
    given = list(words)
    return ", ".join(given[:3]) + (f" and {len(given) - 3} more" if len(given) > 3 else "")
