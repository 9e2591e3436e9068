"""What a report says and shows of rules and profile: findings, pictures, tables, of trainings of every kind."""

import html
import json
import re
from typing import Any

import numpy as np
import pytest

from kennel_train.measure.history import PARTS
from kennel_train.report import page as report
from kennel_train.report.debugging import curve_axes, heat_map, plots, result, summary, usage
from kennel_train.report.page import Report

from .html_page import Page

NAN, INF = float("nan"), float("inf")
RULES = ["vanishing_gradient", "exploding_tensor", "overfit", "dataloader", "low_gpu_utilization"]
HEAD = ["head.weight", "head.bias"]
NETWORK = [
    "backbone.conv1.weight",
    *(f"backbone.layer{stage}.{block}.{part}.weight" for stage in (1, 2, 3) for block in (0, 1) for part in "ab"),
    *HEAD,
]
HOSTILE = '<script>alert(1)</script> "{{ 7*191 }}" $x_1$'


def fired(rule: str, severity: str = "warning", **changes: Any) -> dict:
    clauses = {"what": f"the figure of {rule} is 61%", "fix": "lower learning_rate"}
    return {"rule": rule, "stage": "finetune", "epoch": 3, "step": 40, "severity": severity, **clauses, **changes}


def stage(layers: list[str] = NETWORK, steps: int = 40, **changes: Any) -> dict:
    """A stage in which all went well: a falling loss, and gradients that grow from the input to the output."""
    places = list(range(steps))
    evaluated = [
        {"step": step, "train_loss": 1 / (step + 2), "validation_loss": 2 / (step + 2), "error": 0.01, "seconds": 1.0}
        for step in places[7::8]
    ]
    norms = {
        layer: {"steps": places, "norm": [10 ** (at / len(layers) - 2)] * steps} for at, layer in enumerate(layers)
    }
    split = dict(zip(PARTS, (0.05, 0.01, 0.02, 0.015, 0.004, 0.001), strict=True))
    return {
        "stage": "finetune", "first": 0, "steps": steps, "steps_per_epoch": 8, "device": "cpu", "cores": 2,
        "loaders": 2, "loss": {"steps": places, "values": [1 / (step + 1) for step in places]}, "evaluated": evaluated,
        "gradients": norms, "weights": {layer: {"steps": places, "norm": [4.0] * steps} for layer in layers},
        "seconds": {part: share * steps for part, share in split.items()},
        "times": {"steps": places, **{part: [share] * steps for part, share in split.items()}},
        "slowest": [{"step": 9, "epoch": 2, "seconds": 0.85, "parts": {"data wait": 0.8, "forward": 0.05}}],
        **changes,
    }  # fmt: skip


def machine(samples: int = 60, gpus: int = 0, **changes: Any) -> dict:
    half = samples // 2
    return {
        "at": [float(at + 1) for at in range(samples)], "phase": ["read"] * half + ["finetune"] * (samples - half),
        "cpu": [90.0] * half + [30.0] * (samples - half), "memory": [1500.0] * samples, "read": [0.1] * samples,
        "written": [0.0] * samples, "received": [0.0] * samples, "sent": [0.0] * samples,
        "gpu": [[20.0 + 40 * gpu] * samples for gpu in range(gpus)],
        "gpu_memory": [[62.0] * samples for _ in range(gpus)], "interval": 1.0, **changes,
    }  # fmt: skip


def debug(**changes: Any) -> dict:
    values = {"rules": RULES, "findings": [], "stopped_by": "", "stages": [stage()], "machine": machine()}
    return {**values, "trace": "", "tensors": "", **changes}


def made(given: dict, **changes: Any) -> Report:
    return Report(
        job="job-1", outcome="completed", device="CPU", class_names=("ants", "bees"), hyperparameters={},
        best={}, evaluation={}, temperature=1.0, int8={}, phases=[], throughput={}, mistakes=[], versions={},
        debug=given, **({"epochs": [], "audit": {}} | changes),
    )  # fmt: skip


def page(given: dict, **changes: Any) -> str:
    return report.as_html(made(given, **changes))


def section(given: dict) -> str:
    found = re.search(r'<section id="debug">.*?</section>', page(given), re.S)
    assert found
    return found.group()


def text(markup: str) -> str:
    plain = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", " ", markup, flags=re.S)
    return " ".join(html.unescape(plain).split())


def look_at(given: dict, **changes: Any) -> list[str]:
    found = re.search(r'<section id="look">.*?</section>', page(given, **changes), re.S)
    return [text(row) for row in re.findall(r"<li>.*?</li>", found.group(), re.S)] if found else []


def read(**changes: Any) -> result.Debug:
    found = result.read(debug(**changes))
    assert found
    return found


def pictures(**changes: Any) -> plots.Pictures:
    """Of one stage."""
    return plots.pictures(read(stages=[stage(**changes)]))[0]


def runs(svg: str, variable: str) -> int:
    """How many strokes of one colour a map has: one path holds them all, each from its own M."""
    return sum(path.count("M") for path in re.findall(rf'd="([^"]*)"[^>]*stroke: var\({variable}\)', svg))


def labels(svg: str) -> list[str]:
    return [html.unescape(label) for label in re.findall(r">([^<]+)</text>", svg)]


def test_a_job_that_nothing_watched_has_no_word_of_it():
    without = page({})
    assert not re.search("debug|profile|--heat|--part|rules? (watch|fire)", without, re.I)
    assert 'href="#debug"' in page(debug())


def test_the_section_adds_to_the_page_and_changes_nothing_else():
    added = re.sub(r'<section id="debug">.*?</section>\s*|<a href="#debug">.*?</a>', "", page(debug()), flags=re.S)
    assert text(added) == text(page({}))


def test_findings_come_first_errors_before_warnings():
    given = debug(findings=[fired("overfit"), fired("exploding_tensor", "error", step=1234)])
    said = text(section(given))
    assert "5 rules watched this training, and 2 of them fired." in said
    assert (
        "error Exploding tensor since finetune, epoch 3, step 1,234 The figure of exploding_tensor is 61%. "
        "What to change: Lower learning_rate. warning Overfit since finetune, epoch 3, step 40"
    ) in said
    assert "The 3 rules that did not fire vanishing gradient dataloader low GPU utilization Loss, step by step" in said
    assert "stopped" not in said
    assert "The rule exploding tensor stopped it." in text(section(given | {"stopped_by": "exploding_tensor"}))


def test_silence_is_told_with_the_rules_that_watched():
    said = text(section(debug()))
    assert "5 rules watched this training, and none of them fired. The 5 rules that did not fire vanishing" in said
    assert "1 rule watched this training, and it never fired." in text(section(debug(rules=["overfit"])))
    assert "No rule watched this training." in text(section(debug(rules=[])))
    assert look_at(debug()) == []


def test_the_top_list_has_errors_first_and_warnings_last():
    audit = {"findings": [{"severity": "warning", "what": "two copies"}]}
    given = debug(findings=[fired("overfit"), fired("exploding_tensor", "error", epoch=None, stage="")])
    error, copies, warning = look_at(given, audit=audit)
    assert error == "The figure of exploding_tensor is 61% (since step 40). Lower learning_rate."
    assert "two copies" in copies
    assert warning == "The figure of overfit is 61% (since finetune, epoch 3, step 40). Lower learning_rate."


def test_many_warnings_do_not_bury_the_list():
    sentences = look_at(debug(findings=[fired("overfit", epoch=epoch) for epoch in range(9)]))
    assert len(sentences) == summary.FIRST + 1
    assert sentences[-1] == "Debugging found 6 more warnings; see there."


def test_a_wait_is_not_told_twice():
    epochs = [{"stage": name, "epoch": 1, "seconds": 9.0, "waited": 0.6} for name in ("probe", "finetune")]
    said = look_at(debug(findings=[fired("dataloader")]), epochs=epochs)
    assert [sentence.split(":")[0] for sentence in said if "waited" in sentence] == ["In probe"]
    assert len(look_at(debug(), epochs=epochs)) == 2
    whole = text(page(debug(findings=[fired("dataloader")]), epochs=epochs))
    assert "finetune: the device waited 60% of the time for photos" in whole, "it stays among the times"


def test_everything_of_a_user_is_text():
    names = [HOSTILE, "$x_1$.weight", *(f"<b>{at}</b>.weight" for at in range(6))]
    given = debug(
        rules=[HOSTILE, "overfit"],
        findings=[fired(HOSTILE, what=HOSTILE, fix=HOSTILE, stage=HOSTILE)],
        stages=[stage(names, stage=HOSTILE), stage(names[:2])],
        machine=machine(phase=[HOSTILE] * 60),
        stopped_by=HOSTILE, trace=HOSTILE, tensors=HOSTILE,
    )  # fmt: skip
    whole = page(given)
    assert "<script" not in whole
    assert "<b>0</b>" not in whole
    assert "1337" not in whole
    assert text(whole).count("<script>alert(1)</script>") > 5
    drawn = "".join(re.findall(r"<svg.*?</svg>", whole, re.S))
    assert "$" not in drawn
    assert "script" not in drawn


PIECES = {
    "two stages and GPUs": debug(stages=[stage(HEAD), stage()], machine=machine(700, 4, read=[50] * 700)),
    "nothing measured": {"rules": RULES},
    "empty": debug(stages=[], machine={}, rules=[]),
    "one step": debug(stages=[stage(steps=1), stage(HEAD, 1)], machine=machine(1)),
    "no number anywhere": debug(
        stages=[
            stage(
                loss={"steps": [0, 1], "values": [NAN, None]},
                gradients={layer: {"steps": [0, 1], "norm": [INF, None]} for layer in NETWORK},
                weights={layer: {"steps": [0, 1], "norm": [NAN, NAN]} for layer in HEAD},
                evaluated=[{"step": 1, "train_loss": None, "validation_loss": INF}],
                seconds={"forward": NAN, "data wait": INF},
                times={"steps": [0, 1], "forward": [NAN, None]},
                slowest=[{"step": None, "epoch": None, "seconds": NAN, "parts": None}, {"seconds": 1.0}],
            )
        ],
        machine=machine(3, 1, cpu=[NAN, None, INF], memory=[None] * 3, gpu=[[NAN] * 3]),
        findings=[{"rule": "overfit"}],
    ),
    "nulls and pieces": debug(
        stages=[{"stage": None, "loss": None, "evaluated": None, "gradients": None, "times": None}, {}],
        machine={"at": [1.0, None, 3.0], "cpu": [50.0, 60.0], "gpu": None}, findings=None,
    ),
    "all zero": debug(
        stages=[stage(
            loss={"steps": [0, 1], "values": [0.0, 0.0]},
            gradients={layer: {"steps": [0, 1], "norm": [0.0, 0.0]} for layer in NETWORK},
            weights={layer: {"steps": [0, 1], "norm": [0.0, 0.0]} for layer in NETWORK},
            times={"steps": [0, 1], "forward": [0.0, 0.0]}, seconds={"forward": 0.0},
        )]
    ),
    "huge": debug(stages=[stage(loss={"steps": [0, 1, 2], "values": [1.0, 1e38, 1.7e308]})]),
}  # fmt: skip


@pytest.mark.parametrize("case", PIECES)
def test_whatever_is_missing_the_page_is_whole_and_speaks_no_nan(case):
    whole = page(PIECES[case])
    parsed = Page(whole)
    assert parsed.open == []
    ids, references = parsed.values("id"), parsed.values("src", "href", "xlink:href")
    assert len(ids) == len(set(ids)), "an id stands twice"
    assert all(reference.startswith("#") for reference in references)
    assert {reference[1:] for reference in references} <= set(ids)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text(whole))
    drawn = "".join(re.findall(r"<svg.*?</svg>", whole, re.S))
    assert not re.search(r"\bnan\b|\binf\b|#[0-9a-f]{6}\b", drawn), "no place, or a colour that dark mode cannot change"
    assert set(json.loads(report.as_json(made(PIECES[case])))["debug"]) == set(PIECES[case])


def test_what_was_not_measured_is_not_there():
    assert "Nothing was measured." in text(section(PIECES["nothing measured"]))
    bare = text(section(debug(stages=[stage(gradients={}, weights={}, seconds={}, times={}, slowest=[])], machine={})))
    assert "Loss, step by step" in bare
    for words in ("Gradients", "time of a step", "busy", "Slowest", "Nothing was measured", "perfetto", "smdebug"):
        assert words not in bare
    whole = text(section(debug(trace="profile/trace-1.json.gz", tensors="output/tensors")))
    assert "is in profile/trace-1.json.gz" in whole
    assert "are in output/tensors" in whole


def test_the_loss_has_a_line_for_steps_two_for_evaluations_and_a_band_for_the_error():
    svg = pictures().loss
    assert svg.count("stroke: var(--train)") >= 2
    assert "stroke: var(--validation)" in svg
    assert "fill: var(--validation); fill-opacity: 0.18" in svg
    without = [row | {"error": 0} for row in stage()["evaluated"]]
    assert "fill-opacity: 0.18" not in pictures(evaluated=without).loss
    assert "--bad" not in svg


def test_a_loss_that_is_no_number_is_crossed_out():
    values = [1.0] * 10 + [NAN] * 5 + [1.0] * 5 + [INF]
    drawn = pictures(loss={"steps": list(range(21)), "values": values})
    assert len(re.findall(r"<use[^>]*--bad", drawn.loss)) == 2
    assert "not a finite number" in text(section(debug(stages=[stage(HEAD, loss={"steps": [0], "values": [NAN]})])))
    assert "not a finite number" not in text(section(debug()))


def test_few_parameters_are_lines_and_a_network_is_a_map_with_its_modules_names():
    probe, whole = pictures(layers=HEAD), pictures()
    assert probe.gradients
    assert probe.gradients.map is None
    assert probe.gradients.names == HEAD
    assert "head.weight head.bias" in text(section(debug(stages=[stage(HEAD)])))
    assert whole.gradients
    assert whole.gradients.map
    found = labels(whole.gradients.svg)
    assert set(found) >= {"layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "head"}
    assert not [name for name in found if "backbone" in name]


def test_a_map_grows_stronger_with_the_norm_from_the_input_down():
    svg = pictures().gradients.svg
    tones = [runs(svg, f"--heat-{tone}") for tone in range(7)]
    assert sum(tones) == len(NETWORK), "a row of one norm is one stroke"
    assert min(tones) >= 1
    heights = []
    for tone in range(7):
        (path,) = re.findall(rf'd="([^"]*)"[^>]*stroke: var\(--heat-{tone}\)', svg)
        heights.append(float(re.findall(r"M ?[\d.]+ ([\d.]+)", path)[0]))
    assert heights == sorted(heights), "the input's layers, whose norms are least, lie at the top"


def test_a_map_marks_what_is_no_number_and_where_a_gradient_is_gone():
    norms = stage()["gradients"]
    norms["backbone.layer1.0.a.weight"]["norm"] = [0.01] * 20 + [NAN] * 20
    norms["head.bias"]["norm"] = [0.0] * 40
    drawn = pictures(gradients=norms).gradients
    assert drawn.broken
    assert runs(drawn.svg, "--bad") == 1
    (path,) = re.findall(r'd="([^"]*)"[^>]*stroke: var\(--heat-0\)', drawn.svg)
    lowest = max(float(place) for place in re.findall(r"M ?[\d.]+ ([\d.]+)", path))
    rows = re.findall(r'd="([^"]*)"[^>]*stroke: var\(--heat-\d\)', drawn.svg)
    others = [float(place) for row in rows for place in re.findall(r"M ?[\d.]+ ([\d.]+)", row)]
    assert lowest == max(others), "the last row, all zero, has the first tone"
    assert "not finite" in text(section(debug(stages=[stage(gradients=norms)])))


def test_weights_are_shown_by_how_they_changed():
    still = pictures().weights.svg
    assert runs(still, "--shift-3") == len(NETWORK)
    weights = stage()["weights"]
    weights["head.weight"]["norm"] = [0.0] * 10 + [1.0] * 10 + [2.0] * 20
    weights["backbone.conv1.weight"]["norm"] = [1.0] * 20 + [0.5] * 20
    drawn = pictures(weights=weights).weights
    assert runs(drawn.svg, "--shift-6") == 1
    assert runs(drawn.svg, "--shift-0") == 1
    assert runs(drawn.svg, "--shift-3") == len(NETWORK), "what begins as zero has not changed yet"
    assert drawn.map.high == pytest.approx(2)
    assert drawn.map.low == pytest.approx(1 / 2)


def test_all_parameters_are_a_table_too():
    gradients = {"head.bias": {"steps": [0, 1, 2], "norm": [0.5, 0.125, INF]}}
    said = text(section(debug(stages=[stage(gradients=gradients, weights={})])))
    assert "head.bias 0.5 not finite 0.125 0.5 – –" in said


def test_a_large_network_and_a_long_training_stay_small():
    generator = np.random.default_rng(0)
    names = [f"backbone.blocks.{at // 90}.{at // 6}.{at % 6}.weight" for at in range(600)]
    noise = {name: {"steps": list(range(200)), "norm": np.exp(generator.normal(0, 3, 200)).tolist()} for name in names}
    given = debug(
        stages=[stage(steps=400, gradients=noise, weights=noise, evaluated=stage(steps=8000)["evaluated"])],
        machine=machine(600, 8),
    )
    shown = section(given)
    assert len(shown) < 450_000
    assert "a row is the mean of up to 7 layers" in text(shown)
    assert "All 600 parameters of finetune" in text(shown)
    assert "The first 200 of 600; report.json has them all." in text(shown)
    assert shown.count('<th scope="row">backbone') == summary.LAYERS
    assert not [path for path in re.findall(r' d="([^"]*)"', shown) if re.search(r"\.\d{3}", path)]


def test_a_step_is_split_in_the_order_in_which_it_runs():
    shown = section(debug())
    assert "finetune 100 ms a step, 40 steps, 8 an epoch data wait 50.0% 50 ms host to device 10.0% 10 ms" in text(
        shown
    )
    stack = re.search(r'<div class="stack".*?</div>', shown, re.S)
    assert stack
    assert re.findall(r"width:([\d.]+)%;--c:var\(--part-(\d)\)", stack.group()) == [
        ("50.00", "0"), ("10.00", "1"), ("20.00", "2"), ("15.00", "3"), ("4.00", "4"), ("1.00", "5"),
    ]  # fmt: skip
    parts = summary.parts(read(stages=[stage(seconds={"forward": 3.0, "new": 1.0})]).stages[0])
    assert [(part.name, part.share) for part in parts] == [("forward", 0.75), ("other", 0.25)]


def test_step_times_are_stacked_and_one_long_step_does_not_flatten_the_others():
    steps = list(range(40))
    even = pictures().times
    assert not even.cut
    for at in range(6):
        assert f"fill: var(--part-{at})" in even.svg
    times = {"steps": steps, "forward": [9.0] + [0.01] * 39}
    assert pictures(times=times).times.cut
    assert max(float(label.replace(",", "")) for label in labels(pictures(times=times).times.svg)[-4:]) < 1000
    assert "the longest steps are cut off" in text(section(debug(stages=[stage(times=times)])))


def test_slowest_steps_are_told_by_their_stages_median():
    probe = stage(HEAD, stage="probe", times={"steps": [0, 1, 2], "forward": [0.001] * 3})
    probe["slowest"] = [{"step": 0, "epoch": 1, "seconds": 0.02, "parts": {"forward": 0.02}}]
    shown = section(debug(stages=[stage(), probe]))
    table = re.search(r'<table class="data slow">.*?</table>', shown, re.S)
    assert table
    first, second = (text(row) for row in re.findall(r"<tr>\s*<td.*?</tr>", table.group(), re.S))
    assert first == "probe 0 1 20 ms 20 forward 100% the stage's first step, which also warms up"
    assert second == "finetune 9 2 850 ms 8.5 data wait 94%"
    many = [{"step": at, "seconds": 1.0 + at} for at in range(30)]
    rows = summary.slowest(read(stages=[stage(slowest=many)]))
    assert [row.step for row in rows] == list(range(29, 19, -1))


def test_the_machine_is_told_by_phase_and_disk_only_where_it_worked():
    said = text(section(debug(machine=machine(60, 1))))
    assert "The CPU cores were 60% busy on average and 90% at most. The GPU was 20% busy on average" in said
    assert "The job held at most 1.5 GB of memory." in said
    assert "read 30 s 90.0% 20.0% 1.5 GB finetune 30 s 30.0% 20.0% 1.5 GB" in said
    assert "in order: read, finetune." in said
    for words in ("Disk", "Network", "light bands"):
        assert words not in said
    assert "Disk, MB/s read written" in text(section(debug(machine=machine(written=[0.0] * 59 + [80.0]))))
    assert "GPU was" not in text(section(debug()))
    several = text(section(debug(machine=machine(60, 2))))
    assert "The GPUs were 20% and 60% busy on average." in several
    assert "light bands around them reach from the least to the most" in several


def test_phases_are_bands_with_names_where_there_is_room():
    phases = ["start"] + ["finetune"] * 58 + ["int8"]
    svg = re.search(
        r'aria-label="Processors over time">(<svg.*?</svg>)', section(debug(machine=machine(phase=phases))), re.S
    )
    assert svg
    assert {"start", "finetune", "int8"} & set(labels(svg.group(1))) == {"finetune"}
    assert "fill: var(--band)" in svg.group(1)
    bands = usage.bands(read(machine=machine(phase=["a"] * 10 + ["b"] * 10 + ["a"] * 40)).machine)
    assert bands == [("a", 0.0, 10.0), ("b", 10.0, 20.0), ("a", 20.0, 60.0)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-2.0, -0.5, [0.01, 0.02, 0.05, 0.1, 0.2]),
        (-3.1, 0.1, [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]),
        (-30, 38, [10.0**power for power in range(-30, 39, 12)]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round_and_few(low, high, expected):
    assert curve_axes.ticks(low, high) == pytest.approx(expected)


def test_steps_are_where_they_were_measured():
    late = {layer: {"steps": [1000, 1010, 1020], "norm": [0.1, 0.2, 0.3]} for layer in NETWORK}
    found = heat_map.draw(read(stages=[stage(gradients=late)]).stages[0].gradients, "late", relative=False)
    assert found
    assert "1,010" in labels(found.svg)
    assert "0" not in labels(found.svg)


@pytest.mark.parametrize(
    ("write", "value", "said"),
    [
        (summary.milliseconds, 0.0001234, "0.123 ms"),
        (summary.milliseconds, 0.085, "85 ms"),
        (summary.milliseconds, 0.9996, "1.0 s"),
        (summary.milliseconds, None, "–"),
        (summary.multiple, 8.04, "8.0"),
        (summary.multiple, 1234.5, "1,234"),
        (summary.multiple, None, "–"),
        (summary.small, 4567.0, "4,600"),
        (summary.small, 0.000012, "1.2e-05"),
        (usage.memory, 850.4, "850 MB"),
        (usage.memory, NAN, "–"),
        (summary.sentence, "a clause.", "A clause."),
        (summary.sentence, "", ""),
        (summary.sentence, "x" * 999, "X" + "x" * (summary.LENGTH - 2) + "…."),
    ],
)
def test_figures_and_clauses_read_as_people_write_them(write, value, said):
    assert write(value) == said
