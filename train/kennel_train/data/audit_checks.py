"""Each kind of fault that a set of labelled photos can have: one function a kind, which yields what it found.

Judges what decoding learned of each photo; what becomes of a finding is audit's.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Literal

from kennel.files import printable
from kennel_train.data.decoding import Bad, PhotoRecord

IMBALANCE = 10  # largest class over smallest: beyond it, of two classes, always answering the larger scores over 0.9
FEW = 5  # photos of a class: the least of which a fifth, the default validation, is one whole photo
TINY = 2  # times a photo is enlarged: beyond it three of four pixels that the model sees are invented
EXAMPLES = 5  # of each finding: enough to see a pattern, few enough for a log line

Severity = Literal["error", "warning", "note"]
RecordsBySplit = Mapping[str, Sequence[PhotoRecord]]  # split -> its readable photos


@dataclass(frozen=True)
class DataFinding:
    """One kind of fault: what it is, how to fix it, how often it was found and where, relative to the channels."""

    severity: Severity
    what: str
    fix: str
    count: int
    examples: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """With three examples, so that several findings fit a failure reason."""
        return f"{self.what} ({', '.join(self.examples[:3])}): {self.fix}"


@dataclass(frozen=True)
class Where:
    """Paths as a user reads them."""

    root: Path

    def one(self, path: Path) -> str:
        return printable(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def __call__(self, paths: Iterable[Path]) -> tuple[str, ...]:
        return tuple(self.one(path) for path in islice(paths, EXAMPLES))


def plural(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else noun + ('es' if noun.endswith('s') else 's')}"


def missing(
    counts: Mapping[str, tuple[int, ...]], class_names: tuple[str, ...], allowed: bool, held_out: bool
) -> Iterable[DataFinding]:
    """Classes that a split has no readable photo of."""
    severity: dict[str, Severity] = {
        "train": "error",
        "validation": "warning" if allowed else "error",
        "test": "warning",
    }
    for split, row in counts.items():
        names = [
            name
            for name, here, train in zip(class_names, row, counts["train"], strict=True)
            if not here and (train or split == "train")  # one that train lacks as well is said once
        ]
        if not names:
            continue
        fix = f"add photos of each to {split}"
        if split == "validation":
            fix = "add photos of each to train" if held_out else fix
            fix += ", or set allow_missing_classes=true" if not allowed else ", its accuracy is not measured"
        what = f"{plural(len(names), 'class')} without a readable photo in {split}"
        yield DataFinding(severity[split], what, fix, len(names), tuple(names[:EXAMPLES]))


def shared(splits: RecordsBySplit, where: Where, held_out: bool) -> Iterable[DataFinding]:
    """The same photo in two splits, by its pixels: equal files decode to equal pixels, other headers or formats too."""
    for one, other in combinations(splits, 2):
        first: dict[str, Path] = {photo.pixels: photo.path for photo in reversed(splits[one])}
        pairs = [(first[photo.pixels], photo.path) for photo in splits[other] if photo.pixels in first]
        if not pairs:
            continue
        # Validation photos that were cut out of train are train's photos to a user who gave a channel `test`.
        severity: Severity = "error"
        if {one, other} == {"train", "validation"} and held_out:
            severity, fix = "warning", "keep one copy of each in train, or give a channel 'validation'"
        elif "train" in (one, other) or held_out:
            fix = f"remove each from one of the two, the accuracy on {other} would be too good"
        else:
            severity, fix = (
                "warning",
                "remove each from one of the two, validation chooses the epoch that test measures",
            )
        what = f"{plural(len(pairs), 'photo')} of {other} {'is' if len(pairs) == 1 else 'are'} in {one} too"
        shown = tuple(f"{where.one(a)} = {where.one(b)}" for a, b in pairs[:EXAMPLES])
        yield DataFinding(severity, what, fix, len(pairs), shown)


def copies(splits: RecordsBySplit, where: Where) -> Iterable[DataFinding]:
    """The same photo more than once in one class of one split."""
    found: list[str] = []
    for photos in splits.values():
        first: dict[tuple[str, int], PhotoRecord] = {}
        for photo in photos:
            kept = first.setdefault((photo.pixels, photo.label), photo)
            if kept is not photo:
                found.append(f"{where.one(photo.path)} = {where.one(kept.path)}")
    if found:
        what = f"{len(found)} {'copy' if len(found) == 1 else 'copies'} of a photo in the same class"
        yield DataFinding(
            "warning", what, "remove them, a copy counts its photo twice", len(found), tuple(found[:EXAMPLES])
        )


def torn(
    channels: Iterable[Sequence[PhotoRecord]], class_names: tuple[str, ...], where: Where
) -> Iterable[DataFinding]:
    """The same photo under two classes of one channel: whatever the model answers, one of them calls it wrong."""
    found: list[str] = []
    for photos in channels:
        same: dict[str, dict[int, Path]] = defaultdict(dict)
        for photo in photos:
            same[photo.pixels].setdefault(photo.label, photo.path)
        for labels in same.values():
            if len(labels) > 1:
                found.append(" = ".join(f"{where.one(labels[at])} ({class_names[at]})" for at in sorted(labels)))
    if found:
        what = f"{plural(len(found), 'photo')} with more than one class name"
        yield DataFinding("warning", what, "keep each in the class that it shows", len(found), tuple(found[:EXAMPLES]))


def unreadable(bad: Sequence[Bad], where: Where) -> Iterable[DataFinding]:
    if bad:
        shown = tuple(f"{where.one(photo.path)}: {photo.reason[:120]}" for photo in bad[:EXAMPLES])
        what = f"{plural(len(bad), 'photo')} unreadable and left out"
        yield DataFinding("warning", what, "replace or remove them", len(bad), shown)


def sizes(train: tuple[int, ...], class_names: tuple[str, ...]) -> Iterable[DataFinding]:
    """Classes that are small, beside others or by themselves."""
    order = sorted((number, name) for number, name in zip(train, class_names, strict=True) if number)
    if not order:
        return
    (least, small), (most, large) = order[0], order[-1]
    if most > IMBALANCE * least:
        what = f"class {large!r} has {most / least:.0f} times as many training photos as class {small!r}"
        fix = "add photos of the small classes, or set class_weights=balanced"
        shown = (f"{large}: {most}", f"{small}: {least}")
        yield DataFinding("warning", what, fix, sum(most > IMBALANCE * number for number, _ in order), shown)
    few = [f"{name}: {number}" for number, name in order if number < FEW]
    if few:
        what = f"{plural(len(few), 'class')} with fewer than {FEW} training photos"
        yield DataFinding("warning", what, "add photos of each", len(few), tuple(few[:EXAMPLES]))


def tiny(splits: RecordsBySplit, image_size: int, where: Where) -> Iterable[DataFinding]:
    tiny = [
        photo for photos in splits.values() for photo in photos if min(photo.width, photo.height) * TINY < image_size
    ]
    if tiny:
        shown = tuple(f"{where.one(photo.path)} ({photo.width}x{photo.height})" for photo in tiny[:EXAMPLES])
        what = f"{plural(len(tiny), 'tiny photo')}, enlarged more than {TINY} times to image_size={image_size}"
        yield DataFinding("warning", what, "give larger photos, or lower image_size", len(tiny), shown)


def drawings(splits: RecordsBySplit, where: Where) -> Iterable[DataFinding]:
    """A few GIFs among photos: often what a site showed in place of a picture that it no longer had."""
    every = [photo.path for photos in splits.values() for photo in photos]
    odd = [path for path in every if path.suffix.lower() == ".gif"]
    if odd and len(odd) * FEW < len(every):
        what = f"{plural(len(odd), 'GIF')} among {len(every)} photos"
        yield DataFinding("note", what, "look whether they are placeholders or drawings", len(odd), where(odd))


def other_files(left_out: Sequence[Path], where: Where) -> Iterable[DataFinding]:
    if left_out:
        what = f"{plural(len(left_out), 'file')} beside the photos left out"
        fix = "neither by their names nor by their first bytes are they photos"
        yield DataFinding("note", what, fix, len(left_out), where(left_out))
