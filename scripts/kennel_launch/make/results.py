"""What the endpoint said of the photos that training never saw: the table, the accuracy, result.json."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kennel_launch.machine.http_probe import Guess
from kennel_launch.machine.opt_ml import Photo

ROWS = 20
TOP = 3


@dataclass(frozen=True)
class DemoPrediction:
    photo: Photo
    top: list[Guess]

    @property
    def right(self) -> bool:
        return self.top[0].label == self.photo.truth


@dataclass
class Results:
    """Answers, and the photos that the endpoint would not take, with its reason."""

    predictions: list[DemoPrediction] = field(default_factory=list)
    refused: list[tuple[Photo, str]] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        return sum(prediction.right for prediction in self.predictions) / max(1, len(self.predictions))


def show(results: Results, console: Console, file: Path) -> None:
    """The table, wrong ones first, then `test accuracy: 0.NNN` on a line of its own."""
    seen: Counter[tuple[bool, str]] = Counter()
    places = []
    for prediction in results.predictions:
        seen[prediction.right, prediction.photo.truth] += 1
        places.append((prediction.right, seen[prediction.right, prediction.photo.truth]))  # the classes take turns
    order = [results.predictions[i] for i in sorted(range(len(places)), key=places.__getitem__)]
    table = Table("", "photo", "truth", *(f"{place}." for place in range(1, TOP + 1)))
    for prediction in order[:ROWS]:
        top = [f"{guess.label} {guess.probability:.2f}" for guess in prediction.top[:TOP]]
        cells = ["" if prediction.right else "✗", prediction.photo.path.name, prediction.photo.truth, *top]
        table.add_row(*cells, style=None if prediction.right else "red")
    console.print(table)
    if len(order) > ROWS:
        console.print(f"{len(order) - ROWS} more photos are in {file}", markup=False, highlight=False, soft_wrap=True)
    for photo, reason in results.refused:
        console.print(f"left out: {photo.path} ({reason})", markup=False, highlight=False, soft_wrap=True)
    console.print(f"test accuracy: {results.accuracy:.3f}", markup=False, highlight=False)


def write(results: Results, seconds: Mapping[str, float], file: Path) -> None:
    """result.json: `test_accuracy`, `seconds` by phase, `predictions`, `refused`."""
    content: dict[str, Any] = {
        "test_accuracy": round(results.accuracy, 4),
        "seconds": dict(seconds),
        "predictions": [
            {
                "photo": str(prediction.photo.path),
                "truth": prediction.photo.truth,
                "top": [{"label": guess.label, "probability": guess.probability} for guess in prediction.top[:TOP]],
            }
            for prediction in results.predictions
        ],
        "refused": [{"photo": str(photo.path), "reason": reason} for photo, reason in results.refused],
    }
    file.write_text(json.dumps(content, indent=2) + "\n")
