"""One training job in the SDK's local mode: run in a process of its own, its files taken out, all else removed."""

import argparse
import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

from kennel import files
from kennel.errors import UserError
from kennel_launch.aws import sdk
from kennel_launch.aws.sdk import LocalRun, Training
from kennel_launch.local_mode import local_docker
from kennel_launch.machine import archive, processes, signals
from kennel_launch.settings import Settings

OUT = Path("build/sdk-local")
MODEL, OUTPUT, RECORD = "model.tar.gz", "output.tar.gz", "job.json"
_FAILURE, _REPORT = "failure", f"data/{archive.REPORT}"  # in OUTPUT, which in local mode holds all of /opt/ml/output


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--local and --out."""
    parser.add_argument("--local", action="store_true", help="here, by the SDK's local mode, without AWS")
    text = "of --local, for its files (%(default)s)"
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help=text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The same, and for our own use --sdk-run."""
    add_flags(parser)
    parser.add_argument("--sdk-run", default="", help=argparse.SUPPRESS)


def nowhere(settings: Settings) -> Settings:
    """With a region, which the SDK requires and sends no request to, and no profile."""
    return replace(settings, region="us-east-1", profile="")


def run(settings: Settings, training: Training, out: Path) -> int:
    """0, and the model's path on stdout; 1: the job failed; 2: the SDK could not start it, and has said why.

    Output and report in `out` are those of the last job that ran, the model is that of the last one that made one.

    Raises:
        UserError: it can't be started.
    """
    local_docker.check_image(settings.image)
    folder = scratch(out, training.name)
    command, environment = local_docker.again(training.name, folder, settings.image)
    try:
        with processes.started(processes.Command(command, environment, grace=0)) as process:
            code = process.wait()
        if code == 0 or local_docker.started(training.name):
            return _ended(settings, training, out, code)
        if code == sdk.FAILED:
            raise UserError("docker compose could not start the job: its last lines above say why")
        return code
    finally:
        with signals.deaf():
            local_docker.clear(training.name, folder, settings.image)


def work(settings: Settings, training: Training, out: Path) -> int:
    """What that process does.

    Raises:
        UserError: the SDK can't do it here.
    """
    return sdk.train_locally(settings, training, local(out, training.name))


def folder_of(out: Path, name: str) -> Path:
    """A run's own, which the SDK may fill."""
    return out / "scratch" / name


def scratch(out: Path, name: str) -> Path:
    """Makes that folder, which is new.

    Raises:
        UserError: it can't be made.
    """
    folder = folder_of(out, name)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): name another --out") from error
    return folder


def image_of(out: Path) -> str:
    """The image of the job whose files are there; empty: there is no such job."""
    try:
        return str(json.loads((out / RECORD).read_text())["image"])
    except (OSError, ValueError, KeyError):
        return ""


def local(out: Path, name: str) -> LocalRun:
    """A run, as the SDK's module wants it."""
    return LocalRun(folder_of(out, name).resolve(), local_docker.label(name))


def _ended(settings: Settings, training: Training, out: Path, code: int) -> int:
    """Takes the files of a job that has run, and says how it ended."""
    made = local(out, training.name).output
    why = _failure(made, training.name, code)
    for name in (OUTPUT, archive.REPORT):
        (out / name).unlink(missing_ok=True)
    page = _text(made / OUTPUT, _REPORT)
    if page:
        files.put(out / archive.REPORT, page)
        print(f"report: {out / archive.REPORT}", file=sys.stderr)
    if (made / OUTPUT).exists():
        (made / OUTPUT).replace(out / OUTPUT)
    if why:
        kept = f" ({out / MODEL} is an earlier job's)" if (out / MODEL).exists() else ""
        print(f"kennel train: the job failed: {why}{kept}", file=sys.stderr)
        return 1
    (made / MODEL).replace(out / MODEL)
    files.put(out / RECORD, json.dumps({"name": training.name, "image": settings.image}))
    print(out / MODEL)
    return 0


def _failure(made: Path, name: str, code: int) -> str:
    """Why the job failed; empty: it did not. docker compose may end with 0 where the container failed."""
    if said := _text(made / OUTPUT, _FAILURE).strip():
        return said.splitlines()[0]
    if not code and _holds_files(made / MODEL):
        return ""
    return local_docker.ended(name) or ("its files could not be taken out" if code else "it made no model")


def _holds_files(path: Path) -> bool:
    """The SDK packs an empty folder, too."""
    try:
        with tarfile.open(path) as members:
            return any(member.isfile() for member in members)
    except (OSError, tarfile.TarError):
        return False


def _text(path: Path, member: str) -> str:
    """A file of the archive; empty: it has none, or there is no archive."""
    try:
        with path.open("rb") as file:
            return archive.member(file, str(path), member).decode(errors="replace")
    except (OSError, UserError):
        return ""
