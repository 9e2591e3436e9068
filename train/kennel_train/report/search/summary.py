"""What a report says of a search first: sentences drawn from its trials. Knows no HTML and no plot."""

import statistics
from collections import Counter
from collections.abc import Iterator

from kennel_train.measure.formatting import duration, figure, number
from kennel_train.report import overview
from kennel_train.report.search import hyperparameter_axis
from kennel_train.report.search.result import SearchResult, TrialResult

ENOUGH = 5  # trials with a result from which on it means something that the best lies at the end of a range
IDLE = 0.1  # importance below which it is chance that the best lies at the end of a range
NAMED = 4  # hyperparameters of a trial in a sentence
ENDED = {"complete": "finished", "pruned": "stopped early", "running": "not finished", "failed": "failed"}
_CHOSEN = {"random": "chosen at random", "grid": "from a grid", "tpe": "chosen by TPE"}


def findings(search: SearchResult) -> Iterator[str]:
    """The section's first sentences: what was tried, what was best and by how much, and what to try next."""
    yield _tried(search)
    best = search.best
    if best is None or best.value is None:
        yield "No trial finished, so there is no best one."
        return
    if len(search.finished) > 1 and search.flat:
        yield f"All came out at {search.said(best.value)}: within these ranges the settings made no difference."
        return
    yield _best(search, best, best.value)
    yield from _close(search, best.value)
    yield from ends(search)


def look_at(search: SearchResult | None) -> Iterator[str]:
    """What of a search deserves a look above everything else in the report."""
    if search is None:
        return
    failed = [trial.reason for trial in search.trials if trial.state == "failed"]
    if failed:
        reason, times = Counter(failed).most_common(1)[0]
        often = f", {times} of them alike" if 1 < times < len(failed) else ""
        why = reason.rstrip(".") or "no reason was given"
        yield f"{len(failed):,} of {_plural(len(search.trials), 'trial')} failed{often}: {why}."
    yield from ends(search)


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"


def _tried(search: SearchResult) -> str:
    counts = Counter(trial.state for trial in search.trials)
    parts = [f"{counts[state]:,} {words}" for state, words in ENDED.items() if counts[state]]
    if counts["same"]:
        parts.append(f"{counts['same']:,} the same as another")
    how = _CHOSEN.get(str(search.row.get("search")), "")
    took = f"in {duration(search.row['seconds'])}" if number(search.row.get("seconds")) is not None else ""
    said = ", ".join(filter(None, [_plural(len(search.trials), "trial"), how, took]))
    return f"{said}: {', '.join(parts)}." if parts else f"{said}."


def settings(search: SearchResult, trial: TrialResult, limit: int = NAMED) -> str:
    """`learning_rate 0.03 and batch_size 64`, the important ones first."""
    ranked = dict.fromkeys([name for name, _ in search.importances if name in trial.settings])
    said = [f"{name} {figure(trial.settings[name])}" for name in ranked | dict.fromkeys(trial.settings)]
    more = [f"{len(said) - limit} more"] if len(said) > limit + 1 else []
    shown = (said[:limit] if more else said) + more
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def _best(search: SearchResult, best: TrialResult, value: float) -> str:
    epoch = number(best.row.get("epoch"))
    what = f"{search.words} {search.said(value)}" + (f" at epoch {epoch:.0f}" if epoch else "")
    others, known = [], search.finished
    if len(known) < 2:
        return f"Only trial {best.number} has a result: {settings(search, best)} gave {what}."
    own = search.own if search.own in known else None
    if own and own.value is not None and own is not best:
        others.append(f"{_gap(search, value, own.value)} trial {own.number}, the job's own settings")
    middle = statistics.median(trial.value for trial in known if trial.value is not None)
    others.append(f"{_gap(search, value, middle)} the median trial")
    said = f"{settings(search, best)} gave {what}, {', and '.join(others)}."
    if best is own:
        return f"No trial was better than trial {best.number}, the job's own settings: {said}"
    return f"Trial {best.number} is the best: {said}"


def _gap(search: SearchResult, value: float, other: float) -> str:
    if value == other:
        return "no better than"
    gap, way = abs(value - other), "above" if value > other else "below"
    if not search.is_share:
        return f"{figure(gap)} {way}"
    return f"{100 * gap:.1f} points {way}" if gap >= 0.0005 else f"less than 0.1 points {way}"


def _close(search: SearchResult, value: float) -> Iterator[str]:
    """How many trials the validation photos can hardly tell from the best."""
    if not (search.is_share and search.photos):
        return
    low, _ = overview.interval(value, search.photos)
    close = sum(trial.value is not None and trial.value >= low for trial in search.finished) - 1  # but for itself
    if close > 0:
        yield (
            f"{_plural(close, 'other')} came within {100 * (value - low):.1f} points of it, which is no more than "
            f"{_plural(search.photos, 'validation photo')} can tell apart."
        )


def ends(search: SearchResult) -> Iterator[str]:
    """Which hyperparameters' best values lie at an end of what was tried, if any, and what to do."""
    if search.best is None or len(search.finished) < ENOUGH or search.flat:
        return
    shares, values = dict(search.importances), search.best.settings
    weighty = {name: tried for name, tried in search.space.items() if shares.get(name, 1.0) >= IDLE}
    found = [said for name, tried in weighty.items() if (said := hyperparameter_axis.end(name, tried, values[name]))]
    if found:
        yield f"The best trial lies at the edge of what was tried ({'; '.join(found)}): search further there."
