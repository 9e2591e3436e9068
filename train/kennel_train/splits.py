"""The decoded photos of one job, split three ways and dealt to its ranks, and what the manifest says of them.

Each rank decodes and keeps its own share; what is known of all photos is gathered, so that every rank decides alike.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kennel.errors import UserError
from kennel.hyperparameters import Hyperparameters
from kennel.photos import split
from kennel.preprocessing import Preprocessing
from kennel_train import crops, decoding
from kennel_train.cluster import Cluster
from kennel_train.data import Channels, Photo
from kennel_train.decoding import Bad, Decoded, Readable


@dataclass(frozen=True)
class Part:
    """One split: this rank's photos decoded, and what is known of everyone's."""

    mine: Decoded
    ids: NDArray[np.int64]  # mine among `photos`
    photos: list[Readable]  # of all ranks, by path


@dataclass(frozen=True)
class Splits:
    """`parts` has train and validation, and test where such a channel was given."""

    parts: dict[str, Part]
    bad: list[Bad]  # unreadable photos, left out
    unread: int  # photos that a stopped job did not come to
    held_out: bool  # validation was taken out of train

    @classmethod
    def decode(
        cls,
        channels: Channels,
        sharded: frozenset[str],
        row: Preprocessing,
        hp: Hyperparameters,
        cluster: Cluster,
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> "Splits":
        """Decode this rank's share of every channel; validation is taken out of train where no channel gave it.

        Args:
            sharded: splits whose photos differ from host to host.

        Raises:
            UserError: too many unreadable photos, or none that could be left for validation.
        """
        parts: dict[str, Part] = {}
        bad: list[Bad] = []
        total = unread = 0
        for name, photos in channels.splits.items():
            share = _share(photos, name in sharded, cluster, hp.seed)
            mine, wrong = decoding.decode(share, row, hp.on_bad_image, say, stop)
            theirs = cluster.gather((mine.photos, wrong, len(share)))
            parts[name] = _part(mine, [photo for row_ in theirs for photo in row_[0]])
            bad += [photo for row_ in theirs for photo in row_[1]]
            total += (asked := sum(row_[2] for row_ in theirs))
            unread += asked - sum(len(row_[0]) + len(row_[1]) for row_ in theirs)
        decoding.refuse_many(bad, total)
        held_out = "validation" not in parts
        if held_out:
            parts = _hold_out(parts["train"], hp.validation_fraction) | {k: p for k, p in parts.items() if k == "test"}
        return cls(parts, bad, unread, held_out)

    def fingerprint(self) -> str:
        """sha256 of every split's labels and file hashes."""
        rows = sorted(f"{name} {p.label} {p.digest}" for name, part in self.parts.items() for p in part.photos)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def provenance(self, root: Path) -> dict[str, object]:
        """What the model was made of: photos per split, a fingerprint of them all, what was left out and why."""
        return {
            "fingerprint": self.fingerprint(),
            "photos": {name: len(part.photos) for name, part in self.parts.items()},
            "skipped": [{"photo": str(photo.path.relative_to(root)), "reason": photo.reason} for photo in self.bad],
            **({"unread": self.unread} if self.unread else {}),
        }


def _share(photos: list[Photo], sharded: bool, cluster: Cluster, seed: int) -> list[Photo]:
    """This rank's photos, shuffled: a job that is stopped early has then seen something of every class."""
    rank, world = (cluster.local, cluster.local_world) if sharded else (cluster.rank, cluster.world)
    mine = photos[rank::world]
    return [mine[at] for at in crops.order(seed, 0, len(mine))]


def _part(mine: Decoded, everyones: list[Readable]) -> Part:
    photos = sorted(everyones, key=lambda photo: str(photo.path))
    number = {photo.path: at for at, photo in enumerate(photos)}
    return Part(mine, np.array([number[photo.path] for photo in mine.photos], dtype=np.int64), photos)


def _hold_out(part: Part, fraction: float) -> dict[str, Part]:
    """Train and validation, stratified, by each file's hash: the same photos wherever the folder lies."""
    classes: dict[int, dict[Path, str]] = {}
    for photo in part.photos:
        classes.setdefault(photo.label, {})[photo.path] = photo.digest
    held = {path for hashed in classes.values() for path in split(hashed, fraction)[1]}
    if not held:
        raise UserError("every class has one photo only, none is left for validation: add photos or a channel 'val'")
    made = {}
    for name, wanted in (("train", False), ("validation", True)):
        own = [at for at, photo in enumerate(part.mine.photos) if (photo.path in held) == wanted]
        made[name] = _part(part.mine.take(own), [photo for photo in part.photos if (photo.path in held) == wanted])
    return made
