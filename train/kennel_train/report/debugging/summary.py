"""What a report says of the rules' findings and the profile: sentences, shares and rows. Knows no HTML and no plot."""

from collections.abc import Iterator
from dataclasses import dataclass

from kennel_train.measure.formatting import duration, figure
from kennel_train.measure.history import PARTS
from kennel_train.report.debugging.result import Debug, FindingRow, Line, Slow, Stage

FIRST = 3  # findings of one severity among what to look at first
LENGTH = 320  # characters of a clause in the page; report.json has it all
SLOWEST = 10  # steps in the table
LAYERS = 200  # rows of the table of layers; report.json has them all
MEANING = {
    "data wait": "until the next batch was there",
    "host to device": "copying it to the GPU",
    "forward": "the network and its loss",
    "backward": "the gradients",
    "optimizer": "changing the weights",
    "other": "everything else between two steps",
}


@dataclass(frozen=True)
class Part:
    """A part of a stage's steps: its place in `PARTS`, share of the time 0–1, seconds a step (None: not known)."""

    at: int
    name: str
    share: float
    seconds: float | None


@dataclass(frozen=True)
class Layer:
    """A parameter's norms; None where they were not measured, inf or nan where they were no numbers."""

    name: str
    gradient: tuple[float, float] | None  # first and last
    range: tuple[float, float] | None  # of the gradient's finite norms
    weight: tuple[float, float] | None  # first and last


def verdict(debug: Debug) -> Iterator[str]:
    """The section's first sentences: how many rules watched, how many fired, and what came of it."""
    watched, fired = len(debug.rules), len({found.rule for found in debug.findings})
    rules = f"{watched} rule{'s' * (watched != 1)}"
    if not watched and not fired:
        yield "No rule watched this training."
    elif not fired:
        yield f"{rules} watched this training, and {'none of them' if watched > 1 else 'it never'} fired."
    elif watched < fired:
        yield f"{fired} rule{'s' * (fired != 1)} fired."
    else:
        yield f"{rules} watched this training, and {f'{fired} of them' if watched > 1 else 'it'} fired."
    if debug.stopped_by:
        yield f"The rule {words(debug.stopped_by)} stopped it."


def silent(debug: Debug) -> list[str]:
    """The rules that watched and did not fire, for people."""
    fired = {found.rule for found in debug.findings}
    return [words(name) for name in debug.rules if name not in fired]


def words(rule: str) -> str:
    """`low_gpu_utilization` for people."""
    return rule.replace("_", " ").replace("gpu", "GPU")


def sentence(clause: str) -> str:
    """A clause as a sentence, cut where it is long."""
    said = clause if len(clause) <= LENGTH else clause[: LENGTH - 1] + "…"
    return f"{said[:1].upper()}{said[1:].rstrip('.')}." if said else ""


def since(found: FindingRow) -> str:
    """`since finetune, epoch 3, step 40`, as far as it is known."""
    epoch = f"epoch {found.epoch:,}" if found.epoch is not None else ""
    step = f"step {found.step:,}" if found.step is not None else ""
    known = ", ".join(filter(None, (found.stage, epoch, step)))
    return f"since {known}" if known else ""


def look_at(debug: Debug | None, severity: str) -> Iterator[str]:
    """What of the findings deserves a look above everything else in the report; a sentence or two each."""
    found = [one for one in debug.findings if one.severity == severity] if debug else []
    for one in found[:FIRST]:
        when = f" ({since(one)})" if since(one) else ""
        yield f"{sentence(one.what)[:-1] or words(one.rule)}{when}. {sentence(one.fix)}".rstrip()
    if len(found) > FIRST:
        yield f"Debugging found {len(found) - FIRST} more {severity}{'s' * (len(found) > FIRST + 1)}; see there."


def starved(debug: Debug | None) -> set[str]:
    """The stages of which a finding already says that the device waited for photos."""
    return {found.stage for found in debug.findings if found.rule == "dataloader"} if debug else set()


def parts(stage: Stage) -> list[Part]:
    """What a step's time went to, in the order of a step; what is no known part counts as other."""
    total = sum(stage.seconds.values())
    known = {part: stage.seconds.get(part, 0.0) for part in PARTS}
    known["other"] += sum(seconds for part, seconds in stage.seconds.items() if part not in PARTS)
    return [
        Part(at, part, known[part] / total, known[part] / stage.steps if stage.steps else None)
        for at, part in enumerate(PARTS)
        if known[part] > 0
    ]


def pace(stage: Stage) -> str:
    """`12.3 ms a step, 160 steps, 8 an epoch`."""
    said = [milliseconds(sum(stage.seconds.values()) / stage.steps) + " a step"] if stage.steps else []
    said += [f"{stage.steps:,} step{'s' * (stage.steps != 1)}"] if stage.steps else []
    said += [f"{stage.per_epoch:,} an epoch"] if stage.per_epoch else []
    return ", ".join(said)


def milliseconds(seconds: float | None) -> str:
    """`0.12 ms`, `85 ms`, `1.3 s`."""
    if seconds is None:
        return "–"
    return f"{figure(float(f'{1000 * seconds:.3g}'))} ms" if seconds < 0.9995 else duration(seconds)


def multiple(times: float | None) -> str:
    """`1.3`, `85`: how many times the median."""
    return "–" if times is None else f"{times:.1f}" if times < 9.95 else f"{times:,.0f}"


def small(value: float, *, times: bool = False) -> str:
    """An end of a scale, in two digits; `times`: a ratio, of which ×1.01 and ×1.02 must differ."""
    if times:
        return f"×{value:.3g}"
    return figure(float(f"{value:.2g}")) if 0.001 <= value < 1e6 else f"{value:.2g}"


def slowest(debug: Debug) -> list[Slow]:
    """The slowest steps of all stages, those furthest beyond their stage's median first."""
    found = [slow for stage in debug.stages for slow in stage.slowest]
    return sorted(found, key=lambda slow: (-(slow.times or 0.0), -slow.seconds))[:SLOWEST]


def spent(slow: Slow) -> str:
    """`data wait 81%, forward 12%`: what a tenth of the step or more went to."""
    total = sum(seconds for _, seconds in slow.parts)
    return ", ".join(f"{part} {seconds / total:.0%}" for part, seconds in slow.parts if seconds >= total / 10)


def layers(stage: Stage) -> list[Layer]:
    """All parameters' norms, from input to output."""
    names = dict.fromkeys([*stage.gradients, *stage.weights])
    empty = Line()
    return [_layer(name, stage.gradients.get(name, empty), stage.weights.get(name, empty)) for name in names]


def _layer(name: str, gradient: Line, weight: Line) -> Layer:
    known = gradient.finite[~gradient.broken]
    span = (float(known.min()), float(known.max())) if len(known) else None
    return Layer(name, _ends(gradient), span, _ends(weight))


def _ends(line: Line) -> tuple[float, float] | None:
    return (float(line.values[0]), float(line.values[-1])) if len(line) else None
