"""What is wrong with a data set, before the first step: counts and findings, a table for the log, a refusal.

Opens no photo and writes no file; what counts as a fault is faults'.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.errors import UserError
from kennel_train.data import audit_checks
from kennel_train.data.audit_checks import DataFinding, RecordsBySplit, Severity, Where
from kennel_train.data.decoding import Bad, PhotoRecord

SPLITS = ("train", "validation", "test")
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SHOWN = 10  # classes in the table: all, or the smallest and the largest half of this


@dataclass(frozen=True)
class Audit:
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]  # split -> readable photos of each class
    findings: tuple[DataFinding, ...]  # errors first

    def as_json(self) -> dict[str, Any]:
        """Plain JSON: counts per split and class, and every finding."""
        counts = {split: dict(zip(self.class_names, row, strict=True)) for split, row in self.counts.items()}
        return {"counts": counts, "findings": [dataclasses.asdict(finding) for finding in self.findings]}

    def table(self) -> list[str]:
        """At most 40 log lines: photos per class and split, then the findings."""
        rows = [(name, [str(row[at]) for row in self.counts.values()]) for at, name in enumerate(self.class_names)]
        if len(rows) > SHOWN:
            rows.sort(key=lambda row: [int(cell) for cell in row[1]])
            rows[SHOWN // 2 : -SHOWN // 2] = [(f"({len(rows) - SHOWN} classes between)", [])]
        totals = [str(sum(row)) for row in self.counts.values()]
        rows = [("class", list(self.counts)), *rows, ("all", totals)]
        width = min(max(len(name) for name, _ in rows), 40)
        said = audit_checks.plural(len(self.findings), "finding") if self.findings else "no findings"
        lines = [f"data audit: {len(self.class_names)} classes, {said}"]
        lines += [f"{name[:width]:{width}}" + "".join(f"{cell:>12}" for cell in cells) for name, cells in rows]
        for finding in self.findings:
            lines.append(f"{finding.severity}: {finding.what}: {finding.fix}")
            lines.append(f"  {', '.join(finding.examples)}{', ...' if finding.count > len(finding.examples) else ''}")
        return lines

    def refuse(self) -> None:
        """Fail a job that could only end in a model, or a figure, that is wrong.

        Raises:
            UserError: names every error with examples and how to fix it.
        """
        errors = [finding.sentence for finding in self.findings if finding.severity == "error"]
        if errors:
            raise UserError("; ".join(errors))


def audit(
    splits: RecordsBySplit,
    bad: Sequence[Bad],
    left_out: Sequence[Path],
    class_names: tuple[str, ...],
    root: Path,
    image_size: int,
    allow_missing_classes: bool,
    held_out: bool = False,
) -> Audit:
    """Everything worth saying of the photos of one job.

    Args:
        splits: the readable photos of "train", "validation" and "test"; a split that was not given is absent or empty.
        bad: unreadable photos.
        left_out: files that are no photos.
        root: the folder of the channels, for short paths.
        image_size: side of the square that the model sees, pixels.
        allow_missing_classes: a class without validation photos is no error.
        held_out: validation was cut out of the training channel, the user did not choose it.
    """
    given = {split: splits.get(split, ()) for split in SPLITS if split == "train" or splits.get(split)}
    counts = {split: _counts(photos, len(class_names)) for split, photos in given.items()}
    where = Where(root)
    cut = [*given["train"], *given.get("validation", ())]
    channels = [cut, given.get("test", ())] if held_out else list(given.values())
    findings = [
        *audit_checks.missing(counts, class_names, allow_missing_classes, held_out),
        *audit_checks.shared(given, where, held_out),
        *audit_checks.torn(channels, class_names, where),
        *audit_checks.copies(given, where),
        *audit_checks.unreadable(bad, where),
        *audit_checks.sizes(counts["train"], class_names),
        *audit_checks.tiny(given, image_size, where),
        *audit_checks.drawings(given, where),
        *audit_checks.other_files(left_out, where),
    ]
    return Audit(class_names, counts, tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))))


def _counts(photos: Sequence[PhotoRecord], classes: int) -> tuple[int, ...]:
    found = Counter(photo.label for photo in photos)
    return tuple(found[label] for label in range(classes))
