"""A batch transform's answers: its .out files as one table, predictions.csv, and what they say in all."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kennel import files
from kennel.errors import UserError
from kennel_launch.aws import s3
from kennel_launch.console.steps import Steps
from kennel_launch.machine.http_probe import Guess, guesses

if TYPE_CHECKING:
    from rich.table import Table

OUT = ".out"  # what SageMaker adds to a photo's name
CSV = "predictions.csv"


@dataclass(frozen=True)
class PhotoPrediction:
    """What was said of a photo: its classes, the best first, or why there are none."""

    photo: str
    guesses: list[Guess] = field(default_factory=list)
    error: str = ""


def fetch(client: Any, address: str, steps: Steps) -> list[PhotoPrediction]:
    """The answers under an output address, by the photos' names; several files at once, in S3's order.

    Args:
        client: S3's.

    Raises:
        UserError: one is no answer of kennel's.
    """
    bucket, prefix = s3.split(address)

    def one(key: str) -> list[PhotoPrediction]:
        text = client.get_object(Bucket=bucket, Key=key)["Body"].read().decode(errors="replace")
        return read(text, key.removeprefix(prefix).removesuffix(OUT), f"s3://{bucket}/{key}")

    keys = [key for key in s3.keys(client, bucket, prefix) if key.endswith(OUT)]
    found: list[PhotoPrediction] = []
    with steps.phase("answers", address, len(keys)) as show, ThreadPoolExecutor(s3.PARALLEL) as pool:
        try:
            for done, predictions in enumerate(pool.map(one, keys), 1):
                found += predictions
                show(keys[done - 1].removeprefix(prefix), done)
        except BaseException:  # Ctrl-C, too
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def read(text: str, photo: str, address: str) -> list[PhotoPrediction]:
    """Of JSON, or of JSON Lines: a line for each photo, which then are called `list.jsonl:1` and so on.

    Raises:
        UserError: it is no answer of kennel's.
    """
    lines = [line for line in text.splitlines() if line.strip()] or [text]
    if len(lines) > 1 and not _is_json(lines[0]):  # one answer over several lines
        lines = [text]
    names = [photo] if len(lines) == 1 else [f"{photo}:{number}" for number in range(1, len(lines) + 1)]
    return [_prediction(line, name, address) for line, name in zip(lines, names, strict=True)]


def write(predictions: Sequence[PhotoPrediction], path: Path) -> None:
    """A row a photo: photo, label_1, probability_1, label_2, ..., and error where a photo has one."""
    places = max((len(prediction.guesses) for prediction in predictions), default=0)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    failed = any(prediction.error for prediction in predictions)
    names = [f"{name}_{i}" for i in range(1, places + 1) for name in ("label", "probability")]
    rows.writerow(["photo", *names, *(["error"] if failed else [])])
    for prediction in predictions:
        cells = [cell for guess in prediction.guesses for cell in (guess.label, guess.probability)]
        rows.writerow(
            [prediction.photo, *cells, *[""] * (2 * places - len(cells)), *([prediction.error] if failed else [])]
        )
    files.put(path, text.getvalue())


def summary(predictions: Iterable[PhotoPrediction]) -> "Table":
    """A row a class, the most frequent first: how many photos it was the best for, and how sure."""
    from rich.markup import escape
    from rich.table import Table

    sure: dict[str, list[float]] = defaultdict(list)
    for prediction in predictions:
        if prediction.guesses:
            sure[prediction.guesses[0].label].append(prediction.guesses[0].probability)
    table = Table("class", "photos", "mean probability", "least")
    for label, shares in sorted(sure.items(), key=lambda row: (-len(row[1]), row[0])):
        table.add_row(escape(label), str(len(shares)), f"{sum(shares) / len(shares):.3f}", f"{min(shares):.3f}")
    return table


def _prediction(text: str, photo: str, address: str) -> PhotoPrediction:
    """Of one JSON object: predictions, or an `error` in their place where one photo of many was refused."""
    try:
        answer = json.loads(text)
        if "predictions" not in answer and "error" in answer:
            return PhotoPrediction(photo, error=" ".join(str(answer["error"]).split()) or "no reason is given")
        return PhotoPrediction(photo, guesses(answer))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{address} holds no predictions ({text[:120]!r}): see how its model answers") from error


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
