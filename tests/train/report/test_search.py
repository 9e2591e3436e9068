"""What a report says and shows of a search: findings, plots and table, with searches of every kind and size."""

import html
import json
import math
import random
import re
from typing import Any

import pytest

from kennel_train.report import page as report
from kennel_train.report.page import Report
from kennel_train.report.search import hyperparameter_axis, result, summary
from kennel_train.report.search import plots as search_plots

SPACE = {
    "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "batch_size": {"values": [32, 64, 128]},
}
WIDE = SPACE | {
    "epochs": {"low": 5, "high": 30, "log": False},
    "optimizer": {"values": ["sgd", "adamw"]},
    "trivial_augment": {"values": [False, True]},
    **{name: {"low": 1e-6, "high": 0.3, "log": True} for name in ("weight_decay", "label_smoothing", "gradient_clip")},
    **{name: {"low": 0.0, "high": 0.9, "log": False} for name in ("momentum", "ema_decay", "warmup_epochs")},
    **{name: {"low": 1, "high": 20, "log": False} for name in ("probe_epochs", "patience")},
    "schedule": {"values": ["cosine", "one-cycle"]},
    "class_weights": {"values": ["none", "balanced"]},
    "backbone_learning_rate_scale": {"low": 0.001, "high": 1.0, "log": True},
}


def drawn(tried: dict, generator: random.Random) -> Any:
    if "values" in tried:
        return generator.choice(tried["values"])
    if tried["log"]:
        return math.exp(generator.uniform(math.log(tried["low"]), math.log(tried["high"])))
    return generator.uniform(tried["low"], tried["high"])


def trial(number: int, value: float | None, state: str = "complete", epochs: int = 3, **row: Any) -> dict:
    """A trial as trials.json has it; its accuracy rises to `value` at the last epoch but one."""
    curve = []
    for epoch in range(1, epochs + 1):
        accuracy = None if value is None else value - 0.1 * abs(epochs - 1 - epoch) / epochs
        losses = {"train:loss": 1 / epoch, "validation:loss": 1.1 / epoch, "validation:accuracy": accuracy}
        curve.append({"epoch": epoch, "stage": "probe", **losses})
    best = None if value is None else max(1, epochs - 1)
    figures = {name: at for name, at in curve[best - 1].items() if ":" in name} if best else {}
    return {
        "number": number, "state": state, "hyperparameters": {"learning_rate": 0.01, "batch_size": 64}, "value": value,
        "epoch": best, "metrics": figures, "reason": "", "same_as": None, "seconds": 1.5, "curve": curve, **row,
    }  # fmt: skip


def search(trials: list[dict], space: dict = SPACE, **changes: Any) -> dict:
    known = [row for row in trials if row["state"] == "complete"]
    best = max(known, key=lambda row: row["value"])["number"] if known else None
    return {
        "objective": "validation:accuracy", "goal": "Maximize", "search": "random", "space": space, "trials": trials,
        "best": best, "importances": {"batch_size": 0.2, "learning_rate": 0.8}, "seconds": 75.0, "own": 0, **changes,
    }  # fmt: skip


def large(count: int, space: dict = WIDE) -> dict:
    """A search in which every tenth trial failed and every seventh was stopped early."""
    generator = random.Random(0)
    rows = []
    for number in range(count):
        state = "failed" if number % 10 == 9 else "pruned" if number % 7 == 6 else "complete"
        chosen = {name: drawn(tried, generator) for name, tried in space.items()}
        value = None if state == "failed" else 0.9 + 0.05 * generator.random()
        reason = "the loss is not finite at epoch 3" if state == "failed" else ""
        rows.append(trial(number, value, state, epochs=20, hyperparameters=chosen, reason=reason))
    return search(rows, space, importances=dict.fromkeys(space, 1 / len(space)))


def page(given: dict, photos: int | None = None) -> str:
    evaluation = {"validation": {"top1": 0.9, "top5": None, "photos": photos}} if photos else {}
    return report.as_html(
        Report(
            job="job-1", outcome="completed", device="CPU", class_names=("ants", "bees"), hyperparameters={}, epochs=[],
            best={}, evaluation=evaluation, temperature=1.0, int8={}, audit={}, phases=[], throughput={}, mistakes=[],
            versions={}, search=given,
        )
    )  # fmt: skip


def section(given: dict, photos: int | None = None) -> str:
    found = re.search(r'<section id="search">.*?</section>', page(given, photos), re.S)
    assert found
    return found.group()


def text(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<svg.*?</svg>|<[^>]*>", " ", markup, flags=re.S)).split())


def rows(markup: str) -> list[str]:
    """The tables of trials, a text for each row."""
    return [text(row) for row in re.findall(r"<tr(?: class=\"best\")?>\s*<td.*?</tr>", markup, re.S)]


def said(given: dict, photos: int | None = None) -> str:
    found = result.read(given, photos)
    assert found
    return " ".join(summary.findings(found))


def plots(given: dict) -> dict[str, str]:
    found = result.read(given)
    assert found
    return search_plots.plots_of(found)


def lines(svg: str, variable: str) -> int:
    """How many lines of one colour a plot has: one path holds them all, each from its own M."""
    return sum(path.count("M") for path in re.findall(rf'd="([^"]*)"[^>]*stroke: var\({variable}\)', svg))


EVERY = [
    trial(0, 0.80),
    trial(1, 0.90),
    trial(2, 0.70, "pruned", reason="below the median at epoch 3"),
    trial(3, None, "failed", reason="the loss is not finite"),
    trial(4, None, "running", epochs=0),
    trial(5, None, "same", epochs=0, same_as=1),
]


def test_a_job_without_a_search_has_no_word_of_it():
    without = page({})
    assert not re.search("search|trials?\\b|tone-", without, re.I)
    assert re.search("search", page(search(EVERY)))


def test_a_search_adds_to_the_page_and_changes_nothing_else():
    added = page(search(EVERY[:2]))
    added = re.sub(r'<section id="search">.*?</section>\s*', "", added, flags=re.S)
    tile = r'<div>\s*<div class="label">Best trial.*?</div>\s*</div>\s*'
    added = re.sub(rf'<a href="#search">.*?</a>|{tile}', "", added, flags=re.S)
    assert _words(added) == _words(page({}))


def _words(markup: str) -> str:
    return text(re.sub(r"<style>.*?</style>", "", markup, flags=re.S))


def test_every_state_is_shown_the_best_first_and_the_failed_last():
    shown = section(search(EVERY))
    assert [row.split()[0] for row in rows(shown)] == ["1", "5", "0", "2", "4", "3"]
    first, same, own, pruned, running, failed = rows(shown)
    assert first.startswith("1 90.0% best 0.01 64 2 0.5 0.55 1.5 s")
    assert same.startswith("5 90.0% same as 1 0.01 64")
    assert own.startswith("0 80.0% finished the job's own settings")
    assert pruned.startswith("2 70.0% stopped early below the median at epoch 3")
    assert running.startswith("4 – not finished")
    assert failed.startswith("3 – failed the loss is not finite")
    assert (
        "6 trials, chosen at random, in 1 min 15 s: 2 finished, 1 stopped early, 1 not finished, 1 failed, 1 the same"
        in (text(shown))
    )


def test_the_jobs_best_comes_first_even_where_a_trial_that_was_stopped_had_more():
    given = search([trial(0, 0.8), trial(1, 0.9, "pruned"), trial(2, 0.8)], best=2)
    assert [row.split()[0] for row in rows(section(given))] == ["2", "1", "0"]


def test_the_best_is_marked_in_the_tiles_the_table_and_both_plots():
    whole, shown, svgs = page(search(EVERY)), section(search(EVERY)), plots(search(EVERY))
    assert "Best trial 1 of 6, 90.0% validation accuracy" in text(whole)
    assert shown.count('<tr class="best">') == 1
    assert re.search(r'<tr class="best">\s*<td class="n">1</td>', shown)
    assert lines(svgs["across"], "--ink") == 1
    assert svgs["curves"].count("fill-opacity: 0; stroke: var(--ink)") == 1
    assert text(shown).count("best, trial 1") == 2
    unknown = plots(search(EVERY, best=None))
    assert lines(unknown["across"], "--ink") == 0
    assert "fill-opacity: 0; stroke" not in unknown["curves"]


def test_plots_have_a_line_for_each_result_a_dashed_one_for_each_failure_and_the_pages_colours_only():
    svgs = plots(search(EVERY))
    tones = sum(lines(svgs["across"], f"--tone-{tone}") for tone in range(5))
    assert tones == 3
    assert lines(svgs["across"], "--bad") == 1
    assert "stroke-dasharray" in svgs["across"]
    assert sum(lines(svgs["curves"], f"--tone-{tone}") for tone in range(5)) == 3
    for name in ("learning_rate", "batch_size", "validation accuracy", "0.001", "128"):
        assert f">{name}</text>" in svgs["across"]
    assert not re.search(r"#[0-9a-f]{6}\b", "".join(svgs.values())), "a colour that dark mode cannot change"
    assert "Not drawn: 2 without a result of their own." in text(section(search(EVERY)))


def test_the_gain_is_over_the_jobs_own_settings_and_over_the_median():
    given = search([trial(0, 0.90), trial(1, 0.954), trial(2, 0.92)])
    assert (
        "Trial 1 is the best: learning_rate 0.01 and batch_size 64 gave validation accuracy 95.4% at epoch 2, "
        "5.4 points above trial 0, the job's own settings, and 3.4 points above the median trial."
    ) in said(given)
    assert "less than 0.1 points above trial 0" in said(search([trial(0, 0.9), trial(1, 0.9002)]))
    assert "No trial was better than trial 0" in said(search([trial(0, 0.9), trial(1, 0.8)]))
    assert "own settings" not in said(search([trial(0, 0.9), trial(1, 0.8)], own=None)), "a grid need not have them"
    own_failed = said(search([trial(0, None, "failed"), trial(1, 0.9), trial(2, 0.8)]))
    assert "5.0 points above the median trial" in own_failed
    assert "trial 0" not in own_failed


def test_a_loss_is_best_where_it_is_lowest():
    rates = [0.4, 0.2, 0.3, 9.0]
    curves = [[{"epoch": 1, "validation:loss": 2 * rate}, {"epoch": 2, "validation:loss": rate}] for rate in rates]
    trials = [trial(n, rate, curve=curve, epoch=2) for n, (rate, curve) in enumerate(zip(rates, curves, strict=True))]
    given = search(trials, objective="validation:loss", goal="Minimize", best=1)
    assert [row.split()[0] for row in rows(section(given))] == ["1", "2", "0", "3"]
    assert "gave validation loss 0.2 at epoch 2, 0.2 below trial 0" in said(given)
    labels = re.findall(r">([^<]+)</text>", plots(given)["across"])
    assert labels[labels.index("validation loss") + 1] == "&gt; 0.4"
    assert labels[-1] == "0.2"


def test_how_many_trials_the_photos_cannot_tell_from_the_best():
    given = search([trial(0, 0.90), trial(1, 0.954), trial(2, 0.95), trial(3, 0.94)])
    assert "2 others came within 2.0 points of it, which is no more than 600 validation photos can tell" in said(
        given, 600
    )
    assert "came within 2.0 points" in text(section(given, 600))
    assert "came within" not in said(given, 600_000)
    assert "came within" not in said(given)


@pytest.mark.parametrize(
    ("name", "tried", "value", "expected"),
    [
        ("learning_rate", SPACE["learning_rate"], 0.1, "learning_rate 0.1 at the upper end of 0.001 to 0.1"),
        ("learning_rate", SPACE["learning_rate"], 0.0011, "learning_rate 0.0011 at the lower end of 0.001 to 0.1"),
        ("learning_rate", SPACE["learning_rate"], 0.0015, ""),  # near its end by numbers, not by its scale
        ("learning_rate", SPACE["learning_rate"], 0.2, "learning_rate 0.2 outside of 0.001 to 0.1"),
        ("learning_rate", SPACE["learning_rate"], None, ""),
        ("momentum", {"low": 0.5, "high": 0.999, "log": False}, 0.999, ""),  # the table has nothing beyond
        ("momentum", {"low": 0.5, "high": 0.999, "log": False}, 0.5, "momentum 0.5 at the lower end of 0.5 to 0.999"),
        ("batch_size", {"values": [128, 32, 64]}, 128, "batch_size 128 at the upper end of 32 to 128"),
        ("batch_size", {"values": [128, 32, 64]}, 64, ""),
        ("batch_size", {"values": [32, 64]}, 64, ""),  # every choice of two is an end
        ("optimizer", {"values": ["sgd", "adamw", "lion"]}, "lion", ""),
        ("trivial_augment", {"values": [False, True]}, True, ""),
    ],
)
def test_a_best_value_at_an_end_is_told(name, tried, value, expected):
    assert hyperparameter_axis.end(name, tried, value) == expected


def test_ends_are_told_where_they_mean_something():
    trials = [trial(n, 0.9 + n / 100, hyperparameters={"learning_rate": 0.02 * (n + 1)}) for n in range(5)]
    sentence = "The best trial lies at the edge of what was tried (learning_rate 0.1 at the upper end of 0.001 to 0.1)"
    assert sentence in said(search(trials))
    assert sentence in text(page(search(trials))).split("Search 5 trials")[0], "not among what to look at first"
    assert "edge" not in said(search(trials[1:])), "so few trials say nothing"
    assert "edge" not in said(search(trials, importances={"learning_rate": 0.05}))


def test_a_reason_is_text():
    hostile = '<script>alert(1)</script> "{{ 7*191 }}" $x_1$\n' + "long " * 100
    trials = [trial(0, 0.9), trial(1, None, "failed", reason=hostile, hyperparameters={"optimizer": "<b>$x$"})]
    given = search(trials, {"optimizer": {"values": ["sgd", "<b>$x$"]}})
    whole = page(given)
    assert "<script" not in whole
    assert "<b>$x$" not in whole
    assert "1337" not in whole
    assert '1 of 2 trials failed: <script>alert(1)</script> "{{ 7*191 }}" $x_1$ long' in text(whole)
    svg = plots(given)["across"]
    assert "$x$" not in svg, "a text that may be a user's is drawn"
    assert ">sgd</text>" in svg
    assert all(len(row) < 400 for row in rows(section(given)))


def test_a_thousand_trials_stay_small_and_say_what_they_leave_out():
    given = large(1000)
    shown = section(given)
    assert len(shown) < 250_000
    across = plots(given)["across"]
    assert sum(lines(across, f"--tone-{tone}") for tone in range(5)) == search_plots.LINES
    assert lines(across, "--bad") == search_plots.BROKEN
    assert not [path for path in re.findall(r' d="([^"]*)"', across) if re.search(r"\.\d{3}", path)]
    assert "The best 100 of 900 trials with a result are drawn. Of 100 failed trials 20 are drawn." in text(shown)
    assert len(rows(shown)) == report.TRIALS + report.SHOWN
    assert "The other 885 trials" in text(shown)
    assert "The best 200 of 900; report.json has them all." in text(shown)
    assert "The first 15 of 100; report.json has them all." in text(shown)
    for name in WIDE:
        assert f">{name}</text>" in across
    made = Report("j", "completed", "CPU", (), {}, [], {}, {}, 1.0, {}, {}, [], {}, [], {}, search=given)
    assert json.loads(report.as_json(made))["search"] == given


def test_all_trials_failed():
    trials = [trial(n, None, "failed", epochs=0, reason="out of memory" if n else "no disk") for n in range(3)]
    given = search(trials, importances={})
    whole, shown = page(given), section(given)
    assert "3 of 3 trials failed, 2 of them alike: out of memory." in text(whole)
    assert "No trial finished, so there is no best one." in text(shown)
    assert "Best trial – of 3, none finished" in text(whole)
    assert plots(given)["curves"] == ""
    assert lines(plots(given)["across"], "--bad") == 3
    assert ">validation accuracy</text>" not in plots(given)["across"], "an axis without a result"
    assert len(rows(shown)) == 3


def test_one_trial_only():
    given = search([trial(0, 0.9, epochs=1)])
    shown = text(section(given, 100))
    assert "1 trial, chosen at random, in 1 min 15 s: 1 finished." in shown
    assert "Only trial 0 has a result: learning_rate 0.01 and batch_size 64 gave validation accuracy 90.0%" in shown
    assert "median" not in shown
    assert "What made the difference" not in shown
    assert lines(plots(given)["across"], "--ink") == 1
    assert "<use" in plots(given)["curves"], "a curve of one epoch needs a dot"


def test_a_constant_objective_has_no_winner():
    given = search([trial(n, 0.9, hyperparameters={"learning_rate": 0.1, "batch_size": 32}) for n in range(9)])
    shown = text(section(given, 100))
    assert "All came out at 90.0%: within these ranges the settings made no difference." in shown
    for word in ("is the best", "edge", "worse to better", "What made the difference", "came within"):
        assert word not in shown
    across = plots(given)["across"]
    assert [lines(across, f"--tone-{tone}") for tone in range(5)] == [0, 0, 9, 0, 0]
    assert "nan" not in across


def test_the_better_a_trial_the_stronger_its_tone():
    given = search([trial(n, 0.5 + n / 100) for n in range(20)])
    assert [lines(plots(given)["across"], f"--tone-{tone}") for tone in range(5)] == [5, 5, 5, 3, 2]


def test_one_bad_trial_does_not_push_the_others_together():
    values = [0.10, 0.90, 0.91, 0.92, 0.93, 0.94]
    labels = re.findall(r">([^<]+)</text>", plots(search([trial(n, v) for n, v in enumerate(values)]))["across"])
    assert labels[labels.index("validation accuracy") + 1] == "&lt; 90.0%"


def test_the_jobs_own_settings_are_on_the_axes_wherever_they_are():
    own = {"learning_rate": 1.0, "batch_size": 48}
    other = {"learning_rate": 0.0001, "batch_size": 32}
    given = search([trial(0, 0.9, hyperparameters=own), trial(1, 0.8, hyperparameters=other)])
    labels = re.findall(r">([^<]+)</text>", plots(given)["across"])
    assert labels[: labels.index("validation accuracy")] == [
        "learning_rate", "1", "0.0001", "0.001", "0.01", "0.1", "1", "batch_size", "48", "32", "48", "64", "128",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("axis", "value", "place"),
    [
        (hyperparameter_axis.Axis("a", 0.001, 0.1, log=True), 0.01, 0.5),
        (hyperparameter_axis.Axis("a", 0.001, 0.1, log=True), 0.0, math.nan),
        (hyperparameter_axis.Axis("a", 0.0, 10.0), 2.5, 0.25),
        (hyperparameter_axis.Axis("a", 10.0, 0.0), 2.5, 0.75),
        (hyperparameter_axis.Axis("a", 3.0, 3.0), 3.0, 0.5),
        (hyperparameter_axis.Axis("a", 0.0, 1.0), None, math.nan),
        (hyperparameter_axis.Axis("a", values=("x", "y")), "y", 0.75),
        (hyperparameter_axis.Axis("a", values=("x", "y")), "z", math.nan),
    ],
)
def test_places_on_an_axis(axis, value, place):
    assert axis.place(value) == pytest.approx(place, nan_ok=True)


def test_importances_are_bars_the_largest_first():
    shown = section(search(EVERY))
    table = re.search(r'<table class="data importances">.*?</table>', shown, re.S)
    assert table
    assert text(table.group()) == "learning_rate 80.0% batch_size 20.0%"
    assert re.findall(r"width:([\d.]+)%", table.group()) == ["80.00", "20.00"]


def test_a_long_list_of_settings_is_cut_the_important_ones_kept():
    given = large(30) | {"importances": {"schedule": 0.9, "epochs": 0.1}}
    assert re.search(
        r"is the best: schedule \S+, epochs \S+, learning_rate \S+, batch_size \S+ and 12 more gave", said(given)
    )


def test_a_thinned_curve_keeps_its_best_epoch():
    curve = [{"epoch": n + 1, "validation:accuracy": 0.95 if n == 501 else 0.5} for n in range(1000)]
    found = result.read(search([trial(0, 0.95, curve=curve, epoch=502)]))
    assert found
    epochs, values = search_plots._curve(curve, found)
    assert len(epochs) <= search_plots.POINTS + 2
    assert dict(zip(epochs, values, strict=True))[502] == 0.95
    assert epochs[-1] == 1000
