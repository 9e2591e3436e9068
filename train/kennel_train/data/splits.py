"""The decoded photos of one job, split three ways and dealt to its ranks, and what the manifest says of them.

Each rank decodes and keeps its own share; what is known of all photos is gathered, so that every rank decides alike.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kennel.errors import UserError
from kennel.files import printable
from kennel.photos.photo_folders import split
from kennel.photos.preprocessing import Preprocessing
from kennel_train.context import Context
from kennel_train.contract.stop import grace
from kennel_train.data import decoding, randomness
from kennel_train.data.decoding import Bad, Decoded, PhotoRecord
from kennel_train.data.image_folder import Channels, Photo
from kennel_train.distributed.cluster import Cluster

T = TypeVar("T", PhotoRecord, Bad)


@dataclass(frozen=True)
class Split:
    """One split: this rank's photos decoded, and what is known of everyone's."""

    mine: Decoded
    index: NDArray[np.int64]  # of mine in `photos`
    photos: list[PhotoRecord]  # of all ranks, by path


@dataclass(frozen=True)
class Splits:
    """`parts` has train and validation, and test where such a channel was given."""

    parts: dict[str, Split]
    bad: list[Bad]  # unreadable photos, left out
    unread: int  # photos that a stopped job did not come to
    held_out: bool  # validation was taken out of train

    @classmethod
    def decode(
        cls,
        channels: Channels,
        sharded: frozenset[str],
        row: Preprocessing,
        context: Context,
        say: Callable[[str], None],
    ) -> "Splits":
        """Decode this rank's share of every channel; validation is taken out of train where no channel gave it.

        Args:
            sharded: splits whose photos differ from host to host.
            context: its `root` lies elsewhere on other hosts where channels stream. Each split of a job that was
                stopped has its own grace: one that a stop finds in an earlier split still needs photos.
            say: logs a line.

        Raises:
            UserError: too many unreadable photos, or none that could be left for validation.
        """
        hp, cluster, root = context.hp, context.cluster, context.root
        parts: dict[str, Split] = {}
        bad: list[Bad] = []
        total = unread = 0
        for name, photos in channels.splits.items():
            share = _share(photos, name in sharded, cluster, hp.seed)
            mine: Decoded = _nothing(row)
            wrong: list[Bad] = []
            if share:
                late = grace(context.stop)
                mine, wrong = decoding.decode(share, row, hp.on_bad_image, say, late, context.device.threads)
            theirs = cluster.gather((root, mine.photos, wrong, len(share)))
            readable = _named([(base, photos) for base, photos, _, _ in theirs], root)
            unreadable = _named([(base, photos) for base, _, photos, _ in theirs], root)
            parts[name] = _part(dataclasses.replace(mine, photos=readable[cluster.rank]), _all(readable))
            bad += _all(unreadable)
            for photo in _all(unreadable[1:]):  # rank 0 has logged its own already
                say(f"bad photo: {printable(photo.path)}: {photo.reason}")
            total += (asked := sum(count for *_, count in theirs))
            unread += asked - sum(map(len, readable)) - sum(map(len, unreadable))
        decoding.refuse_many(bad, total)
        if unread and any(len(part.photos) < 2 for name, part in parts.items() if name != "test"):
            raise UserError(
                f"the job was stopped while it decoded, {total - unread} of {total} photos were read, too few to learn "
                "from: allow a longer run time"
            )
        held_out = "validation" not in parts
        if held_out:
            parts = _hold_out(parts["train"], hp.validation_fraction) | {k: p for k, p in parts.items() if k == "test"}
        return cls(parts, bad, unread, held_out)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of every split's labels and file hashes."""
        rows = sorted(f"{name} {p.label} {p.digest}" for name, part in self.parts.items() for p in part.photos)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    @functools.cached_property
    def order(self) -> str:
        """sha256 of which content stands at which place: features are rows by place."""
        rows = [f"{name} {photo.digest}" for name, part in self.parts.items() for photo in part.photos]
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def provenance(self, root: Path) -> dict[str, object]:
        """What the model was made of: photos per split, a fingerprint of them all, what was left out and why."""
        return {
            "fingerprint": self.fingerprint,
            "photos": {name: len(part.photos) for name, part in self.parts.items()},
            "skipped": [{"photo": str(photo.path.relative_to(root)), "reason": photo.reason} for photo in self.bad],
            **({"unread": self.unread} if self.unread else {}),
        }


def _share(photos: list[Photo], sharded: bool, cluster: Cluster, seed: int) -> list[Photo]:
    """This rank's photos, shuffled: a job that is stopped early has then seen something of every class."""
    rank, world = (cluster.local, cluster.local_world) if sharded else (cluster.rank, cluster.world)
    mine = photos[rank::world]
    return [mine[at] for at in randomness.order(seed, 0, len(mine))]


def _all(rows: list[list[T]]) -> list[T]:
    return list(itertools.chain.from_iterable(rows))


def _nothing(row: Preprocessing) -> Decoded:
    return Decoded(np.empty((0, row.resize, row.resize, 3), np.uint8), np.empty(0, np.int64), [])


def _named(theirs: list[tuple[Path, list[T]]], root: Path) -> list[list[T]]:
    """Every rank's photos as if they lay below this host's `root`; two that would be one get another name."""
    seen: set[Path] = set()
    named: list[list[T]] = []
    for rank, (base, photos) in enumerate(theirs):
        named.append([])
        for photo in photos:
            path = root / photo.path.relative_to(base)
            if path in seen:  # hosts count the photos of a stream each for itself
                path = path.with_name(f"{path.stem}-{rank}{path.suffix}")
            seen.add(path)
            named[-1].append(dataclasses.replace(photo, path=path))
    return named


def _part(mine: Decoded, everyones: list[PhotoRecord]) -> Split:
    photos = sorted(everyones, key=lambda photo: str(photo.path))
    number = {photo.path: at for at, photo in enumerate(photos)}
    return Split(mine, np.array([number[photo.path] for photo in mine.photos], dtype=np.int64), photos)


def _hold_out(part: Split, fraction: float) -> dict[str, Split]:
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
