"""One hyperparameter of a search as an axis: where a value lies on it, its ticks, and what lying at an end means."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from kennel.hyperparameters import TABLE
from kennel_train.measure.formatting import figure, number
from kennel_train.report import plots

END = 0.05  # share of a range that is its end
APART = 0.17  # of an axis, between two ticks that are not its ends
LABELS = 40  # characters of a choice's ticks, beyond which some are left out


@dataclass(frozen=True)
class Axis:
    """From 0 to 1: a range of numbers, or a choice whose values stand evenly."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    values: tuple[Any, ...] = ()
    said: Callable[[Any], str] = figure
    cut: bool = False  # what is below `low` is drawn there

    def place(self, value: Any) -> float:
        """Where a value lies; nan for what is not on the axis, beyond 0 and 1 for what is outside of the range."""
        if self.values:
            return (self.values.index(value) + 0.5) / len(self.values) if value in self.values else math.nan
        given = number(value)
        if given is None or (self.log and given <= 0):
            return math.nan
        low, high, at = (math.log(n) if self.log else n for n in (self.low, self.high, given))
        return (at - low) / (high - low) if high != low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels: both ends, and round numbers between them."""
        if self.values:
            words = [self.said(value) for value in self.values]
            step = -(-sum(len(word) + 1 for word in words) // LABELS)
            return [(self.place(value), word) for value, word in zip(self.values, words, strict=True)][::step]
        if self.low == self.high:
            return [(0.5, self.said(self.low))]
        sign = "" if not self.cut else "< " if self.low < self.high else "> "
        found = [(0.0, sign + self.said(self.low)), (1.0, self.said(self.high))]
        for value in self._round():
            place = self.place(value)
            if 0 < place < 1 and all(abs(place - other) >= APART for other, _ in found):
                found.append((place, self.said(value)))
        return sorted(found)

    def _round(self) -> list[float]:
        if not self.log:
            round_ones = MaxNLocator(4, steps=plots.STEPS).tick_values(*sorted((self.low, self.high)))
            return [float(value) for value in round_ones]
        decades = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
        return [float(f"1e{decade}") for decade in decades]


def axis(name: str, tried: Mapping[str, Any], seen: Iterable[Any]) -> Axis:
    """A hyperparameter's axis, long enough for the values that trials had: the job's own may lie outside of a range."""
    if tried.get("values"):
        values = list(tried["values"])
        values += [value for value in dict.fromkeys(seen) if value not in values and value is not None]
        return Axis(name, values=tuple(values if None in map(number, values) else sorted(values)))
    numbers = [given for given in map(number, seen) if given is not None]
    log = bool(tried.get("log")) and tried["low"] > 0
    kept = [given for given in numbers if given > 0 or not log]
    return Axis(name, min([tried["low"], *kept]), max([tried["high"], *kept]), log)


def end(name: str, tried: Mapping[str, Any], value: Any) -> str:
    """`learning_rate 0.1 at the upper end of 0.001 to 0.1`; empty where a value has others on both sides of it."""
    given = number(value)
    if given is None:
        return ""
    if tried.get("values"):
        numbers = sorted(one for one in map(number, tried["values"]) if one is not None)
        if len(numbers) < max(3, len(tried["values"])) or numbers[0] < given < numbers[-1]:
            return ""
        low, high, below = numbers[0], numbers[-1], given <= numbers[0]
    else:
        low, high, place = tried["low"], tried["high"], axis(name, tried, ()).place(given)
        if END < place < 1 - END or math.isnan(place):
            return ""
        below = place < 0.5
    rule = TABLE.get(name)
    if rule and (low <= rule.low if below else high >= rule.high):
        return ""  # there is nothing beyond
    where = f"at the {'lower' if below else 'upper'} end of" if low <= given <= high else "outside of"
    return f"{name} {figure(given)} {where} {figure(low)} to {figure(high)}"
