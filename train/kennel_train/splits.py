"""The decoded photos of one job, split three ways, and what the manifest says of them."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kennel.errors import UserError
from kennel.hyperparameters import Hyperparameters
from kennel.photos import split
from kennel.preprocessing import Preprocessing
from kennel_train import decoding
from kennel_train.data import Channels
from kennel_train.decoding import Bad, Decoded


@dataclass(frozen=True)
class Splits:
    train: Decoded
    validation: Decoded
    test: Decoded | None
    bad: list[Bad]  # unreadable photos, left out

    @classmethod
    def decode(
        cls, channels: Channels, row: Preprocessing, hp: Hyperparameters, say: Callable[[str], None]
    ) -> "Splits":
        """Decode every channel; validation is taken out of train where no channel gave it.

        Raises:
            UserError: too many unreadable photos, or a class that is left with none to train on.
        """
        given = {"train": channels.train, "validation": channels.validation, "test": channels.test}
        parts: dict[str, Decoded] = {}
        bad: list[Bad] = []
        for name, photos in given.items():
            if photos:
                parts[name], unreadable = decoding.decode(photos, row, hp.on_bad_image, say)
                bad += unreadable
        decoding.refuse_many(bad, sum(map(len, given.values())))
        if "validation" not in parts:
            parts["train"], parts["validation"] = _hold_out(parts["train"], hp.validation_fraction)
        for name in given:
            if name in parts:
                _say_counts(name, parts[name], channels.class_names, say)
        return cls(parts["train"], parts["validation"], parts.get("test"), bad)

    def provenance(self, root: Path) -> dict[str, object]:
        """What the model was made of: photos per split, a fingerprint of them all, what was left out and why."""
        parts = {"train": self.train, "validation": self.validation, **({"test": self.test} if self.test else {})}
        rows = sorted(
            f"{name} {label} {digest}"
            for name, part in parts.items()
            for label, digest in zip(part.labels.tolist(), part.digests, strict=True)
        )
        return {
            "fingerprint": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
            "photos": {name: len(part.labels) for name, part in parts.items()},
            "skipped": [{"photo": str(photo.path.relative_to(root)), "reason": photo.reason} for photo in self.bad],
        }


def _hold_out(decoded: Decoded, fraction: float) -> tuple[Decoded, Decoded]:
    """(train, validation), stratified, by each file's hash: the same photos wherever the folder lies."""
    classes: dict[int, dict[Path, str]] = {}
    for path, label, digest in zip(decoded.paths, decoded.labels.tolist(), decoded.digests, strict=True):
        classes.setdefault(label, {})[path] = digest
    held = {path for hashed in classes.values() for path in split(hashed, fraction)[1]}
    if not held:
        raise UserError("every class has one photo only, none is left for validation: add photos or a channel 'val'")
    index = range(len(decoded.paths))
    kept = decoded.take([i for i in index if decoded.paths[i] not in held])
    return kept, decoded.take([i for i in index if decoded.paths[i] in held])


def _say_counts(name: str, part: Decoded, class_names: tuple[str, ...], say: Callable[[str], None]) -> None:
    counts = Counter(part.labels.tolist())
    shown = ", ".join(f"{c} {counts[label]}" for label, c in enumerate(class_names))
    say(f"{name}: {len(part.labels)} photos ({shown if len(shown) < 500 else f'{len(counts)} classes'})")
    empty = [c for label, c in enumerate(class_names) if not counts[label]]
    if name == "train" and empty:
        raise UserError(f"no photo of class {empty[0]!r} is left to train on: add photos or remove the folder")
