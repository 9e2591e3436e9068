"""The report's two files: complete, self-contained, harmless with hostile names, readable where tables are empty."""

import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kennel_train.measure import formatting
from kennel_train.model.evaluation import evaluate
from kennel_train.report import overview
from kennel_train.report import page as report
from kennel_train.report.page import Mistake, Report

from .html_page import Page

NAN = float("nan")
HOSTILE = (
    "<script>alert(1)</script>",
    '" onload="x',
    "</title><img src=http://x/y>",
    "{{ 7*191 }}",
    "北京烤鸭 عربى 🐕",
    "n" * 90,
)
SECTIONS = {"headline", "learning", "confusion", "classes", "mistakes", "calibration", "audit", "time", "settings"}


def judged(names: tuple[str, ...], photos: int, seed: int = 0) -> dict:
    """A split as training judges it, mostly right."""
    generator = np.random.default_rng(seed)
    labels = np.arange(photos) % len(names)
    logits = generator.normal(0, 1, (photos, len(names))).astype(np.float32)
    logits[np.arange(photos), labels] += 2
    found = evaluate(logits, labels, names, temperature=1.3)
    return {**found.as_json(), "confusion": found.confusion}


def made(names: tuple[str, ...] = ("ants", "bees"), **changes) -> Report:
    row = {"seconds": 2.0, "photos_per_second": 500.0, "learning_rate": 0.01, "train:loss": 0.5, "validation:loss": 0.4}
    epochs = [
        {**row, "stage": "probe", "epoch": 1, "waited": 0.0, "validation:accuracy": 0.7},
        {**row, "stage": "probe", "epoch": 2, "waited": 0.0, "validation:accuracy": 0.8},
        {**row, "stage": "finetune", "epoch": 3, "waited": 0.5, "validation:accuracy": 0.9},
        {**row, "stage": "finetune", "epoch": 4, "waited": 0.1, "validation:accuracy": NAN, "train:loss": None},
    ]
    finding = {"severity": "warning", "what": f"copies in {names[0]}", "fix": "remove them", "count": 3}
    values = {
        "job": "job-1",
        "outcome": "completed",
        "device": "CPU, 2 threads",
        "class_names": names,
        "hyperparameters": {"batch_size": 32, "pretrained": True},
        "epochs": epochs,
        "best": {"stage": "finetune", "epoch": 3},
        "evaluation": {"validation": judged(names, 60)},
        "temperature": 1.5,
        "int8": {"kept": False, "reason": "it loses 3 points"},
        "audit": {
            "counts": {"train": dict.fromkeys(names, 9), "validation": dict.fromkeys(names, 0)},
            "findings": [{**finding, "examples": [f"train/{names[0]}/{names[-1]}.jpg"]}],
        },
        "phases": [("start", 3.0), ("finetune", 75.0)],
        "throughput": {"decoded photos/s": 812.4, "broken": NAN},
        "mistakes": [
            Mistake(f"{names[0]}/{i}.jpg", names[0], names[1], 0.99 - i / 100, np.full((40, 30, 3), 9 * i, np.uint8))
            for i in range(3)
        ],
        "versions": {"torch": "2.10.0"},
    }
    return Report(**(values | changes))


def written(folder: Path, given: Report) -> tuple[Page, dict]:
    report.write(folder, given)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]

    def refuse(constant: str) -> None:
        raise AssertionError(f"JSON has no {constant}")

    return Page((folder / "report.html").read_text(encoding="utf-8")), json.loads(
        (folder / "report.json").read_text(), parse_constant=refuse
    )


def many(count: int) -> tuple[str, ...]:
    return tuple(f"{i:03}.breed" for i in range(count))


def trial(number: int, state: str = "complete", value: float | None = 0.8, **row) -> dict:
    curve = [{"epoch": 1, "stage": "probe", "train:loss": 0.5, "validation:loss": 0.4, "validation:accuracy": value}]
    chosen = {"learning_rate": 0.01 * (number + 1), "optimizer": HOSTILE[number % 6]}
    return {
        "number": number, "state": state, "hyperparameters": chosen, "value": value, "epoch": value and 1,
        "metrics": {"train:loss": 0.5, "validation:accuracy": value}, "reason": "", "same_as": None, "seconds": 1.5,
        "curve": curve if value else [], **row,
    }  # fmt: skip


SEARCH = {
    "objective": "validation:accuracy", "goal": "Maximize", "search": "tpe", "best": 1, "seconds": 9.5,
    "space": {"learning_rate": {"low": 0.01, "high": 0.1, "log": True}, "optimizer": {"values": list(HOSTILE)}},
    "trials": [
        trial(0, value=0.7), trial(1), trial(2, "pruned", None), trial(3, "failed", None, reason=HOSTILE[0]),
        trial(4, "running", None), trial(5, "same", None, same_as=1), *(trial(6 + i, value=NAN) for i in range(20)),
    ],
    "importances": {"learning_rate": 0.7, "optimizer": NAN},
}  # fmt: skip

CASES = {
    "two classes": made(),
    "a test split": made(evaluation={split: judged(("ants", "bees"), 30) for split in ("validation", "test")}),
    "hostile names": made(HOSTILE, job=HOSTILE[0], outcome=f"stopped early: {HOSTILE[2]}", device=HOSTILE[1]),
    "133 classes": made(many(133), evaluation={"validation": judged(many(133), 800)}),
    "1000 classes": made(many(1000), evaluation={"validation": judged(many(1000), 3000)}),
    "classes without photos": made(many(20), evaluation={"validation": judged(many(20), 7)}),
    "one epoch": made(epochs=made().epochs[:1], best={"stage": "probe", "epoch": 1}),
    "10,000 epochs": made(epochs=made().epochs[:1] * 10_000),
    "epochs without figures": made(epochs=[{"stage": "probe", "epoch": 1}], best={}),
    "a confusion matrix that was not kept": made(evaluation={"validation": judged(many(8), 40) | {"confusion": None}}),
    "int8 kept": made(int8={"kept": True, "fp32_accuracy": 0.95, "int8_accuracy": 0.94, "agreement": 1, "photos": 9}),
    "a search, with hostile values": made(search=SEARCH),
    "a search without trials": made(search=SEARCH | {"trials": [], "best": None, "importances": {}}),
    "nothing": made(
        outcome="stopped early: before the first epoch", epochs=[], best={}, evaluation={}, int8={}, audit={},
        phases=[], throughput={}, mistakes=[], versions={}, hyperparameters={},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_page_is_whole_self_contained_and_harmless(case, tmp_path):
    given = CASES[case]
    page, _ = written(tmp_path / "data", given)
    assert page.open == []
    ids = page.values("id")
    assert set(ids) >= SECTIONS
    assert len(ids) == len(set(ids)), "an id stands twice"
    # Nothing is fetched and nothing runs.
    assert not set(page.tags) & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    references = page.values("src", "href", "xlink:href", "srcset", "action", "data")
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for value in references)
    assert {value[1:] for value in references if value.startswith("#")} <= set(ids)
    style = "".join(page.texts) + "".join(page.values("style", "clip-path"))
    assert set(re.findall(r"url\(([^)]*)\)", style)) <= {f"#{name}" for name in ids}
    assert "@import" not in style
    assert page.tags.count("img") == len(given.mistakes)
    # A user's names are text, and all of them are there.
    for name in given.class_names[:10] if given.evaluation else ():
        assert name in "".join(page.texts)
    assert "1337" not in page.text
    assert given.job in page.text
    assert given.outcome in page.text
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", page.text)


@pytest.mark.parametrize("case", CASES)
def test_json_holds_everything_but_pixels(case, tmp_path):
    given = CASES[case]
    _, rows = written(tmp_path, given)
    assert set(rows) == {field.name for field in dataclasses.fields(Report)}
    assert rows["class_names"] == list(given.class_names)
    assert rows["phases"] == [list(phase) for phase in given.phases]
    assert len(rows["epochs"]) == len(given.epochs)
    assert [set(row) for row in rows["mistakes"]] == [{"photo", "truth", "predicted", "probability"}] * len(
        given.mistakes
    )
    for split, row in given.evaluation.items():
        matrix, back = overview.matrix(row), rows["evaluation"][split]
        assert back["classes"] == row["classes"]
        if len(matrix) <= report.DENSE:
            assert np.array_equal(overview.matrix(back), matrix)
        else:
            restored = np.zeros_like(matrix)
            for truth, predicted, photos in back["confusion_cells"]:
                restored[truth, predicted] = photos
            assert np.array_equal(restored, matrix)


def test_no_number_becomes_null(tmp_path):
    _, rows = written(
        tmp_path, made(temperature=np.float32(np.inf), hyperparameters={"path": Path("a"), "n": np.int64(3)})
    )
    assert rows["epochs"][3]["validation:accuracy"] is None
    assert rows["throughput"]["broken"] is None
    assert rows["temperature"] is None
    assert rows["hyperparameters"] == {"path": "a", "n": 3}


def test_json_has_the_search(tmp_path):
    _, rows = written(tmp_path, made(search=SEARCH))
    assert rows["search"]["trials"][:6] == SEARCH["trials"][:6]
    assert rows["search"]["trials"][6]["value"] is None
    assert written(tmp_path, made())[1]["search"] == {}


def test_the_page_answers_first(tmp_path):
    evaluation = judged(("ants", "bees"), 60)
    top1 = f"{100 * evaluation['top1']:.1f}%"
    page, _ = written(tmp_path, made(evaluation={"validation": evaluation}))
    head = page.text[: page.text.index("Learning curves Loss")]
    for words in (f"Accuracy on validation {top1}", "of 60 photos wrong", "Best epoch 3 of 4, finetune"):
        assert words in head
    assert "Total time 1 min 18 s of it finetune 1 min 15 s" in head
    assert "dropped it loses 3 points" in head
    assert "The data audit has 1 warning: copies in ants." in head
    assert "finetune: the device waited 30% of the time for photos: reading them was the limit" in head
    assert "probe: the device waited 0% of the time for photos; it was itself the limit" in page.text
    assert "Its logits are now divided by a temperature of 1.5" in page.text
    assert "new ones may fare a little worse" in page.text


def test_test_goes_before_validation(tmp_path):
    evaluation = {"validation": judged(("ants", "bees"), 40), "test": judged(("ants", "bees"), 30, seed=1)}
    page, _ = written(tmp_path, made(evaluation=evaluation))
    assert f"Accuracy on test {100 * evaluation['test']['top1']:.1f}%" in page.text
    assert f"Accuracy on validation {100 * evaluation['validation']['top1']:.1f}%" in page.text
    assert "new ones may fare" not in page.text


def test_both_curves_ring_the_best_epoch_and_part_the_stages(tmp_path):
    report.write(tmp_path, made())
    html = (tmp_path / "report.html").read_text()
    plots = re.findall(r"<svg viewBox.*?</svg>", html, re.S)
    assert len(plots) == 2
    for plot in plots:
        assert plot.count("fill-opacity: 0; stroke: var(--ink)") == 1
        assert ">probe</text>" in plot
        assert ">finetune</text>" in plot
        assert not re.search(r"#[0-9a-f]{6}\b", plot), "a colour that dark mode cannot change"
    assert "var(--train)" in plots[0]
    assert "var(--train)" not in plots[1]


def test_most_confused_pairs_and_weakest_class_come_first():
    names = ("a", "b", "c")
    confusion = [[5, 3, 2], [0, 10, 0], [0, 7, 3]]
    shares = [{"photos": 10, "precision": 0.5, "recall": recall} for recall in (0.5, 1.0, 0.3)]
    row = {"classes": dict(zip(names, shares, strict=True)), "confusion": confusion}
    pairs = overview.confused(names, overview.matrix(row), 2)
    assert [(pair.truth, pair.predicted, pair.photos, pair.share) for pair in pairs] == [
        ("c", "b", 7, 0.7),
        ("a", "b", 3, 0.3),
    ]
    ranked = overview.classes(row)
    assert [(entry.name, entry.number, [pair.predicted for pair in entry.taken_for]) for entry in ranked] == [
        ("c", 3, ["b"]),
        ("a", 1, ["b", "c"]),
        ("b", 2, []),
    ]
    cells = overview.cells(overview.matrix(row), 1)
    assert [(cell.truth, cell.predicted) for cell in cells] == [(0, 0), (1, 1), (2, 2), (2, 1)]


@pytest.mark.parametrize(
    ("write", "value", "said"),
    [
        (formatting.percent, 0.9544, "95.4%"),
        (formatting.percent, 1, "100%"),
        (formatting.percent, 2999 / 3000, ">99.9%"),
        (formatting.percent, NAN, "–"),
        (formatting.percent, None, "–"),
        (formatting.duration, 0.04, "0.0 s"),
        (formatting.duration, 9.96, "10 s"),
        (formatting.duration, 59.7, "1 min 00 s"),
        (formatting.duration, 3599.7, "1 h 00 min"),
        (formatting.duration, 7199, "2 h 00 min"),
        (formatting.duration, None, "–"),
        (formatting.figure, 12345.6, "12,346"),
        (formatting.figure, np.float32(0.5), "0.5"),
        (formatting.figure, 0.000123456, "0.0001235"),
        (formatting.figure, True, "true"),
        (formatting.figure, "probe", "probe"),
        (formatting.figure, None, "–"),
    ],
)
def test_figures_read_as_people_write_them(write, value, said):
    assert write(value) == said


@pytest.mark.parametrize(
    ("share", "photos", "low", "high"),
    [(0.95, 100, 0.8882, 0.9785), (0.5, 10, 0.2366, 0.7634), (1.0, 20, 0.8389, 1.0), (0.0, 20, 0.0, 0.1611)],
)  # statsmodels' proportion_confint(method="wilson")
def test_interval_is_wilsons(share, photos, low, high):
    assert overview.interval(share, photos) == pytest.approx((low, high), abs=1e-4)


def test_file_names_that_are_no_utf8_are_kept(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    mistake = dataclasses.replace(made().mistakes[0], photo=name)
    page, rows = written(tmp_path, made(mistakes=[mistake]))
    assert rows["mistakes"][0]["photo"] == name
    assert r"caf\udce9.jpg" in page.text


def test_a_failed_write_leaves_the_earlier_report_and_no_partial(tmp_path):
    report.write(tmp_path, made())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # fails in the middle of a file, as a full disk does
    try:
        with pytest.raises(OSError, match="too large"):
            report.write(tmp_path, made(job="job-2"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_read_only_home_neither_warns_nor_fails(tmp_path):
    code = "import sys; from kennel_train.report import page; assert 'matplotlib.pyplot' not in sys.modules"
    environ = os.environ | {"MPLCONFIGDIR": "/proc/nowhere", "HOME": "/proc/nowhere"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
