"""`kennel report NAME`: a training job's HTML report, out of its output.tar.gz in S3."""

import argparse
import webbrowser
from pathlib import Path

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import inventory, job_output
from kennel_launch.aws.inventory import TRAINING, TUNING, Resource
from kennel_launch.machine import archive
from kennel_launch.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of a training job, or of a tuning job: its best job's")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where it is written (NAME.html)")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    kennel_settings.add_flags(parser, kennel_settings.OF_ACCESS)


def run(options: argparse.Namespace) -> int:
    """Writes the report; its path is the last line, on stdout.

    Raises:
        UserError: no such job, it has not ended, or no report is in its output.
    """
    settings = kennel_settings.load(vars(options))
    job = _job(options.name, settings)
    out = options.out or Path(f"{job.name}.html")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(fetch(job, settings))
    print(out)
    if options.open and not webbrowser.open(out.resolve().as_uri()):
        raise UserError(f"no browser can be opened here: open {out} yourself")
    return 0


def fetch(job: Resource, settings: Settings) -> bytes:
    """The report.

    Raises:
        UserError: there is no output, no report in it, or AWS refuses.
    """
    found = job_output.read(job, (archive.REPORT,), settings)
    if archive.REPORT not in found:
        raise UserError(f"{job_output.address(job)} holds no {archive.REPORT}: was the job one of this image?")
    return found[archive.REPORT]


def _job(name: str, settings: Settings) -> Resource:
    found = inventory.find(name, settings, (TRAINING, TUNING))
    if found.kind is TRAINING:
        return found
    return inventory.find(inventory.best_training_job(found)["TrainingJobName"], settings, (TRAINING,))
