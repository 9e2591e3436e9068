"""A batch transform's answers: its .out files as one table, predictions.csv, and what they say in all."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kennel import files
from kennel.errors import UserError
from kennel_launch import s3
from kennel_launch.endpoint import Guess

if TYPE_CHECKING:
    from rich.table import Table

OUT = ".out"  # what SageMaker adds to a photo's name
CSV = "predictions.csv"


@dataclass(frozen=True)
class Prediction:
    photo: str
    guesses: list[Guess]


def fetch(client: Any, address: str) -> list[Prediction]:
    """The answers under an output address, by the photos' names.

    Args:
        client: S3's.

    Raises:
        UserError: one is no answer of kennel's.
    """
    bucket, prefix = s3.split(address)
    found = []
    for key in s3.keys(client, bucket, prefix):
        if key.endswith(OUT):
            text = client.get_object(Bucket=bucket, Key=key)["Body"].read().decode(errors="replace")
            found.append(Prediction(key.removeprefix(prefix).removesuffix(OUT), _guesses(text, f"s3://{bucket}/{key}")))
    return found


def write(predictions: Sequence[Prediction], path: Path) -> None:
    """A row a photo: photo, label_1, probability_1, label_2, ..."""
    places = max((len(prediction.guesses) for prediction in predictions), default=0)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["photo", *(f"{name}_{i}" for i in range(1, places + 1) for name in ("label", "probability"))])
    for prediction in predictions:
        cells = [cell for guess in prediction.guesses for cell in (guess.label, guess.probability)]
        rows.writerow([prediction.photo, *cells, *[""] * (2 * places - len(cells))])
    files.put(path, text.getvalue())


def summary(predictions: Iterable[Prediction]) -> "Table":
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


def _guesses(text: str, address: str) -> list[Guess]:
    """Of JSON or of JSON Lines with the one line that a photo has."""
    try:
        return [Guess(str(row["label"]), float(row["probability"])) for row in json.loads(text)["predictions"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{address} holds no predictions ({text[:120]!r}): see how its model answers") from error
