"""`kennel invoke`: asks an endpoint about a photo, a folder or an S3 prefix; answers as a table or JSON Lines."""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.console import flags, terminal
from kennel_launch.console.steps import Steps
from kennel_launch.hosting import endpoint_info, specs
from kennel_launch.inference import invocation, load_report, photo_sources
from kennel_launch.inference.invocation import Question
from kennel_launch.inference.photo_sources import Photo
from kennel_launch.local_mode import local_job, runtime_client
from kennel_launch.machine.http_probe import Guess, RefusedPhotoError
from kennel_launch.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

_IN_FLIGHT = 8  # requests at once; botocore keeps ten connections


@dataclass(frozen=True)
class Answer:
    """What was said of a photo: its classes, or why there are none."""

    photo: Photo
    guesses: list[Guess] = field(default_factory=list)
    error: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "kennel invoke {ENDPOINT | --local} PHOTO|FOLDER|s3://... [flags]"
    if "--local" not in (parser.get_default("words") or ()):  # argparse knows no argument that another one replaces
        parser.add_argument("name", metavar="ENDPOINT")
    parser.add_argument("photos", nargs="+", metavar="PHOTO|FOLDER|s3://...")
    local_job.add_flags(parser)
    parser.add_argument("--top-k", type=int, default=5, metavar="N", help="classes for each photo (%(default)s)")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each photo")
    parser.add_argument("--target-model", default="", metavar="FILE", help="of a multi-model endpoint: JOB.tar.gz")
    load_report.add_arguments(parser)
    kennel_settings.add_flags(parser, [*kennel_settings.OF_ACCESS, "bucket", "prefix", "kms_key"])


def run(options: argparse.Namespace) -> int:
    """0: every photo has an answer; 1: some were refused, which are listed, or --load found nothing that is in time.

    Raises:
        UserError: no such endpoint, no photos, or AWS refuses the request itself.
    """
    if options.top_k < 1:
        raise UserError(f"--top-k {options.top_k}: write a whole number from 1")
    load_report.check(options)
    settings = kennel_settings.load(vars(options))
    steps = Steps(terminal.err())

    def note(text: str) -> None:
        say(steps.console, text)

    flags.refuse_without_local(options)
    if options.local:
        question = runtime_client.question(options, note)
        photos = find(options.photos, settings)
    else:
        endpoint = endpoint_info.needed(options.name, settings)
        check_target(endpoint, options.target_model)
        photos = find(options.photos, settings)
        if endpoint.mode == specs.ASYNC and any(photo.path for photo in photos):
            kennel_settings.needed(settings, "bucket")  # the photos go there first
        question = invocation.question(endpoint, settings, options.top_k, options.target_model, note)
    if options.load:
        return load_report.run(photos, question, options, steps)
    answers = ask(photos, question, steps)
    if options.json:
        for answer in answers:
            print(json_line(answer))
    else:
        show(answers, terminal.out())
    refused = [answer for answer in answers if answer.error]
    for answer in refused:
        print(f"refused: {answer.photo.name} ({answer.error})", file=sys.stderr)
    if refused:
        print(f"kennel invoke: {len(refused)} of {len(answers)} photos have no answer", file=sys.stderr)
    return 1 if refused else 0


def find(places: Sequence[str], settings: Settings) -> list[Photo]:
    """The photos of all places; by their whole names, where there are several.

    Raises:
        UserError: as asked.find.
    """
    found = [photo for place in places for photo in photo_sources.find(place, settings)]
    return found if len(places) == 1 else [replace(photo, name=str(photo.path or photo.address)) for photo in found]


def check_target(endpoint: endpoint_info.EndpointInfo, target: str) -> None:
    """Which model of a multi-model endpoint; of others there is one.

    Raises:
        UserError: it must be named, or must not.
    """
    if (endpoint.mode == specs.MULTI_MODEL) == bool(target):
        return
    if target:
        raise UserError(f"endpoint {endpoint.name} has one model: leave --target-model out")
    raise UserError(f"endpoint {endpoint.name} has many models: add --target-model FILE, a file in {endpoint.data}")


def ask(photos: Sequence[Photo], question: Question, steps: Steps) -> list[Answer]:
    """The answers in the photos' order, several requests in flight.

    Raises:
        UserError: AWS refuses the request itself; those that wait are not sent any more.
    """
    workers = min(_IN_FLIGHT, question.endpoint.concurrency or _IN_FLIGHT)
    what = photos[0].name if len(photos) == 1 else f"{len(photos)} photos"
    with steps.phase("invoke", what, len(photos)) as show_, ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(_answer, photo, question): photo for photo in photos}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                show_(futures[future].name, done)
        except BaseException:  # Ctrl-C, too
            question.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _answer(photo: Photo, question: Question) -> Answer:
    try:
        return Answer(photo, invocation.classify(photo, question))
    except RefusedPhotoError as error:
        return Answer(photo, error=str(error))


def json_line(answer: Answer) -> str:
    """`{"photo": ..., "predictions": [{"label": ..., "probability": ...}]}`, or `error` in their place."""
    row: dict[str, object] = {"photo": answer.photo.name}
    if answer.error:
        row["error"] = answer.error
    else:
        row["predictions"] = [{"label": guess.label, "probability": guess.probability} for guess in answer.guesses]
    return json.dumps(row)


def show(answers: Sequence[Answer], console: "Console") -> None:
    """A row for each photo; for one photo alone a row for each class."""
    from rich.markup import escape
    from rich.table import Table

    good = [answer for answer in answers if answer.guesses]
    if len(answers) == 1:
        table = Table("photo", "class", "probability")
        for guess in good[0].guesses if good else []:
            table.add_row(escape(answers[0].photo.name), escape(guess.label), f"{guess.probability:.4f}")
    else:
        table = Table("photo", "class", "probability", "or")
        for answer in good:
            best, *others = answer.guesses
            more = ", ".join(f"{guess.label} {guess.probability:.2f}" for guess in others)
            table.add_row(escape(answer.photo.name), escape(best.label), f"{best.probability:.4f}", escape(more))
    if good:
        console.print(table)


def say(console: "Console", text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
