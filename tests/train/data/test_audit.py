"""What the audit finds in folders of photos, decoded as a job decodes them; what it refuses, prints and writes."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kennel.errors import UserError
from kennel.files import file_hash
from kennel.photos import decoder, photo_folders, preprocessing
from kennel.photos.preprocessing import Preprocessing
from kennel_train.data import audit as audits
from kennel_train.data.audit import Audit
from kennel_train.data.decoding import Bad, PhotoRecord

ROW = Preprocessing(image_size=64, resize=73, interpolation="bicubic")
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "hymenoptera"


def read(path: Path, label: int) -> PhotoRecord | Bad:
    """One photo as a job reads it."""
    try:
        square = preprocessing.square(decoder.decode(path, ROW), ROW, ROW.resize)
    except UserError as error:
        return Bad(path, str(error))
    with Image.open(path) as image:
        width, height = image.size
    pixels = hashlib.blake2b(np.ascontiguousarray(square), digest_size=16).hexdigest()
    return PhotoRecord(path, label, file_hash(path), pixels, width, height)


def look(root: Path, *, image_size: int = 64, allow: bool = False, fraction: int | None = None) -> Audit:
    """The audit of the channels under `root`; `fraction`: one photo of so many is cut from train for validation."""
    classes = photo_folders.class_folders(root / "train")
    splits: dict[str, list[PhotoRecord]] = {}
    bad: list[Bad] = []
    left_out: list[Path] = []
    for split, names in photo_folders.SPLITS.items():
        for label, name in enumerate(classes):
            folder = next((root / n / name for n in names if (root / n / name).is_dir()), None)
            known = photo_folders.photos(folder) if folder else []
            left_out += sorted(set(folder.iterdir()) - set(known)) if folder else []
            for result in [read(path, label) for path in known]:
                bad += [result] if isinstance(result, Bad) else []
                splits.setdefault(split, []).extend([result] if isinstance(result, PhotoRecord) else [])
    if fraction:
        splits["validation"] = splits["train"][::fraction]
        splits["train"] = [photo for at, photo in enumerate(splits["train"]) if at % fraction]
    held_out = fraction is not None
    return audits.audit(splits, bad, left_out, tuple(classes), root, image_size, allow, held_out=held_out)


def found(report: Audit, severity: str) -> list[str]:
    return [finding.sentence for finding in report.findings if finding.severity == severity]


@pytest.fixture
def clean(job) -> Path:
    """Six photos of two classes in train, three in validation and in test; nothing wrong with them."""
    job.photos("train", {"red": 6, "green": 6})
    for channel in ("validation", "test"):
        job.photos(channel, {"red": 3, "green": 3})
    return job.data


def as_png(path: Path, target: Path) -> None:
    """The same pixels in another format: no byte of the two files agrees."""
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(path).save(target)


def test_a_clean_data_set_is_counted_and_nothing_more(clean):
    report = look(clean)
    assert report.findings == ()
    assert report.counts == {"train": (6, 6), "validation": (3, 3), "test": (3, 3)}
    report.refuse()
    assert report.table() == [
        "data audit: 2 classes, no findings",
        "class       train  validation        test",
        "green           6           3           3",
        "red             6           3           3",
        "all            12           6           6",
    ]


@pytest.mark.parametrize("channel", ["validation", "test"])
@pytest.mark.parametrize("copy", ["bytes", "pixels"])
def test_a_photo_of_train_in_another_split_is_refused_with_both_paths(clean, channel, copy):
    source = clean / "train" / "red" / "2.jpg"
    if copy == "bytes":
        target = clean / channel / "red" / "copied.jpg"
        target.write_bytes(source.read_bytes())
    else:
        target = clean / channel / "red" / "copied.png"
        as_png(source, target)
    report = look(clean)
    with pytest.raises(UserError) as refused:
        report.refuse()
    assert str(refused.value) == (
        f"1 photo of {channel} is in train too (train/red/2.jpg = {channel}/red/{target.name}): "
        f"remove each from one of the two, the accuracy on {channel} would be too good"
    )
    assert any(line.startswith("error: 1 photo of") for line in report.table())


def test_validation_and_test_that_overlap_warn(clean):
    as_png(clean / "validation" / "green" / "0.jpg", clean / "test" / "green" / "again.png")
    report = look(clean)
    (said,) = found(report, "warning")
    assert said.startswith("1 photo of test is in validation too (validation/green/0.jpg = test/green/again.png)")
    report.refuse()


def test_a_copy_across_a_cut_that_the_user_did_not_make_warns(job):
    job.photos("train", {"red": 6, "green": 6})
    as_png(job.data / "train" / "red" / "0.jpg", job.data / "train" / "red" / "00.png")  # the third of its class
    report = look(job.data, fraction=6)
    (said,) = [said for said in found(report, "warning") if "too (" in said]
    assert said.startswith("1 photo of validation is in train too (train/red/00.png = train/red/0.jpg): keep one copy")
    report.refuse()


def test_a_test_channel_that_holds_photos_of_train_is_refused_wherever_the_cut_put_them(job):
    job.photos("train", {"red": 6, "green": 6})
    (job.data / "test" / "green").mkdir(parents=True)
    for name in ("0.jpg", "1.jpg"):  # one of them is cut out for validation, one is not
        (job.data / "test" / "green" / name).write_bytes((job.data / "train" / "green" / name).read_bytes())
    assert [said[:36] for said in found(look(job.data, fraction=6), "error")] == [
        "1 photo of test is in train too (tra",
        "1 photo of test is in validation too",
    ]


def test_one_photo_under_two_class_names_names_both(clean):
    as_png(clean / "train" / "red" / "1.jpg", clean / "train" / "green" / "odd.png")
    (said,) = found(look(clean), "warning")
    assert said == (
        "1 photo with more than one class name (train/green/odd.png (green) = train/red/1.jpg (red)): "
        "keep each in the class that it shows"
    )


def test_two_class_names_are_seen_across_a_cut_too(job):
    job.photos("train", {"red": 6, "green": 6})
    as_png(job.data / "train" / "green" / "0.jpg", job.data / "train" / "red" / "odd.png")  # 0.jpg is cut, odd is not
    warnings = found(look(job.data, fraction=7), "warning")
    assert any("(train/green/0.jpg (green) = train/red/odd.png (red))" in warning for warning in warnings)


def test_copies_inside_a_class_warn_once_for_each(clean):
    source = clean / "test" / "red" / "0.jpg"
    for number in range(7):
        (clean / "test" / "red" / f"copy{number}.jpg").write_bytes(source.read_bytes())
    (finding,) = look(clean).findings
    assert (finding.severity, finding.what, finding.count) == ("warning", "7 copies of a photo in the same class", 7)
    assert len(finding.examples) == 5
    assert finding.examples[0] == "test/red/copy0.jpg = test/red/0.jpg"


def test_unreadable_photos_are_named_with_their_reason_and_other_files_counted(clean):
    truncated = clean / "train" / "red" / "5.jpg"
    truncated.write_bytes(truncated.read_bytes()[:400])
    (clean / "test" / "green" / "notes.txt").write_bytes(b"GIF89 is a format")
    report = look(clean)
    (said,) = found(report, "warning")
    assert said.startswith("1 photo unreadable and left out (train/red/5.jpg: not a readable photo")
    (said,) = found(report, "note")
    assert said.startswith("1 file beside the photos left out (test/green/notes.txt): neither")


@pytest.mark.parametrize(
    ("channel", "allow", "severity", "fix"),
    [
        ("validation", False, "error", "add photos of each to validation, or set allow_missing_classes=true"),
        ("validation", True, "warning", "add photos of each to validation, its accuracy is not measured"),
        ("test", False, "warning", "add photos of each to test"),
    ],
)
def test_a_class_without_photos_on_one_side(clean, channel, allow, severity, fix):
    for path in (clean / channel / "red").iterdir():
        path.unlink()
    assert found(look(clean, allow=allow), severity) == [f"1 class without a readable photo in {channel} (red): {fix}"]


def test_a_class_of_which_nothing_can_be_read_is_refused(clean):
    for path in (clean / "train" / "green").iterdir():
        path.write_bytes(b"junk")
    for path in (clean / "validation" / "green").iterdir():
        path.unlink()  # lacking there too, which is not worth a second sentence
    with pytest.raises(UserError) as refused:
        look(clean).refuse()
    assert str(refused.value) == "1 class without a readable photo in train (green): add photos of each to train"


@pytest.mark.parametrize(("large", "small"), [(11, 1), (10, 1), (11, 2)])
def test_imbalance_and_few_photos_warn(job, large, small):
    job.photos("train", {"red": large, "green": small})
    job.photos("val", {"red": 1, "green": 1})
    warnings = found(look(job.data), "warning")
    assert f"1 class with fewer than 5 training photos (green: {small}): add photos of each" in warnings
    unequal = (
        "class 'red' has 11 times as many training photos as class 'green' (red: 11, green: 1): "
        "add photos of the small classes, or set class_weights=balanced"
    )
    assert (unequal in warnings, len(warnings)) == ((True, 2) if (large, small) == (11, 1) else (False, 1))


def test_tiny_photos_warn_by_their_short_side(clean):
    report = look(clean, image_size=141)  # photos are 90 x 70
    (finding,) = report.findings
    assert (finding.severity, finding.count) == ("warning", 24)
    assert finding.examples[0].startswith("train/green/0.jpg (90x70)")
    assert look(clean, image_size=140).findings == ()


def test_the_table_stays_short_and_shows_the_extremes_of_133_classes(tmp_path):
    """Every kind of finding at once."""
    names = tuple(f"class {number:03}" for number in range(133))
    train = [
        PhotoRecord(tmp_path / f"train/{label}/{i}.jpg", label, "", f"{label}.{i % 40}", 20, 20)
        for label in range(1, 133)
        for i in range(label)
    ]
    torn = PhotoRecord(tmp_path / "train/9/torn.jpg", 9, "", "1.0", 20, 20)
    moved = [
        PhotoRecord(Path("/elsewhere") / photo.path.name, photo.label, "", photo.pixels, 20, 20) for photo in train
    ]
    bad = [Bad(tmp_path / "x.jpg", "torn " * 100)]
    splits = {"train": [*train, torn], "validation": moved[5:900], "test": moved[9:500]}
    report = audits.audit(splits, bad, [tmp_path / "notes.txt"], names, tmp_path, 64, False)
    lines = report.table()
    assert len(lines) <= 40
    assert [line.split()[:2] for line in lines[2:13]] == [
        *(["class", f"{number:03}"] for number in range(5)),
        ["(123", "classes"],
        *(["class", f"{number}"] for number in range(128, 133)),
    ]
    assert {len(line) for line in [lines[1], *lines[2:7], *lines[8:14]]} == {len(lines[1])}, "not aligned"
    assert len({finding.what.lstrip("0123456789") for finding in report.findings}) == 13
    assert [finding.severity for finding in report.findings] == ["error"] * 4 + ["warning"] * 8 + ["note"]
    assert "/elsewhere/" in report.table()[lines.index(next(line for line in lines if "of validation" in line)) + 1]


def test_the_json_holds_counts_and_findings_and_nothing_else(clean):
    as_png(clean / "train" / "red" / "1.jpg", clean / "validation" / "red" / "same.png")
    written = json.loads(json.dumps(look(clean).as_json()))
    assert written["counts"]["validation"] == {"green": 3, "red": 4}
    (finding,) = written["findings"]
    assert set(finding) == {"severity", "what", "fix", "count", "examples"}
    assert finding["examples"] == ["train/red/1.jpg = validation/red/same.png"]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no photos at {SHARED}")
def test_hymenoptera_is_clean_but_for_its_placeholder(tmp_path):
    (tmp_path / "train").symlink_to(SHARED / "train")
    (tmp_path / "val").symlink_to(SHARED / "val")
    report = look(tmp_path, image_size=224)
    assert report.counts["train"] == (124, 121)
    assert report.counts["validation"] == (70, 83)
    (said,) = found(report, "note")
    assert "train/ants/imageNotFound.gif" in said
    report.refuse()
