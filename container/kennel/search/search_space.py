"""What the trials of a search differ in: from the hyperparameter table, or as a user writes it. No search algorithm.

`learning_rate=0.001..0.1` is a range, `batch_size=32,64` a choice, a name alone is the table's own range of it.
Blanks may stand around each sign, and a comma or a semicolon between two settings.
"""

import math
import re
from typing import Any

from kennel.errors import UserError
from kennel.hyperparameters import TABLE, TYPES, Tuning, convert, unknown

_EXAMPLE = "learning_rate=0.001..0.1 batch_size=32,64,128"
_FORM = "write a range as in learning_rate=0.001..0.1, a choice as in batch_size=32,64, and a blank between two"
_AROUND_SIGN = re.compile(r"\s*(\.\.|=|,)\s*")
_NAME = re.compile(r"[A-Za-z]\w*")  # of a hyperparameter, its hyphens replaced
# What ends a setting where another follows: a comma is also what separates a choice's values.
_KNOWN = "|".join(TABLE).replace("_", "[_-]")
_BETWEEN = re.compile(rf";|,(?=[A-Za-z][\w-]*=)|,(?=(?:{_KNOWN})(?![^\s,;=]))")


def space(text: str) -> dict[str, Tuning]:
    """Hyperparameter -> what it is searched over; without a text, what the table says.

    Raises:
        UserError: a word that is no range of a hyperparameter in which trials may differ.
    """
    if not text.strip():
        return {name: rule.tuning for name, rule in TABLE.items() if rule.tuning}
    found: dict[str, Tuning] = {}
    written: dict[str, str] = {}
    for word in _BETWEEN.sub(" ", _AROUND_SIGN.sub(r"\1", text)).split():
        key, sign, given = word.partition("=")
        name = key.replace("-", "_")
        if not _NAME.fullmatch(name):
            raise UserError(f"search_space: {word[:80]!r} is no hyperparameter's range or choice: {_FORM}")
        if name not in TABLE:
            raise UserError(f"search_space: {unknown(key)}")
        if not TABLE[name].per_trial:
            known = ", ".join(key for key, rule in TABLE.items() if rule.per_trial)
            raise UserError(f"search_space: {name} is the same for all trials: search over any of {known}")
        if name in found:
            raise UserError(f"search_space: {name} is given twice, as {written[name]} and as {key}: keep one")
        written[name], found[name] = key, _tuning(name, given if sign else None)
    if not found:
        raise UserError(f"search_space: {text[:80]!r} names nothing: {_FORM}")
    return found


def _tuning(name: str, given: str | None) -> Tuning:
    if given is None:
        own = TABLE[name].tuning
        if own is None:
            raise UserError(f"search_space: {name} has no range of its own: write one, as in {_EXAMPLE!r}")
        return own
    low, dots, high = given.partition("..")
    numbers = TYPES[name] in (int, float)
    if numbers and not all(map(_is_number, (low, high) if dots else given.split(","))):
        raise UserError(f"search_space: {name}={given[:80]} is no range and no choice of numbers: {_FORM}")
    if dots:
        if not numbers:
            raise UserError(f"search_space: {name}={given} is a range of words: write a choice, {name}=one,other")
        tuning = Tuning(convert(name, low), convert(name, high))
        if not tuning.low < tuning.high:
            raise UserError(f"search_space: {name}={given} is empty: write the lower end first, {_EXAMPLE!r}")
        return tuning
    values = tuple(convert(name, value) for value in given.split(","))
    if len(set(values)) < 2 or len(set(values)) < len(values):
        raise UserError(f"search_space: {name}={given} is no choice: write two values or more, all different")
    return Tuning(values=values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def grid(space: dict[str, Tuning], trials: int) -> dict[str, list[Any]]:
    """Values for each hyperparameter, whose product has about `trials` points: choices whole, ranges spread evenly."""
    choices = math.prod(len(tuning.values) for tuning in space.values() if tuning.values)
    ranges = sum(not tuning.values for tuning in space.values())
    points = max(1, math.floor((trials / choices) ** (1 / ranges) + 1e-9)) if ranges else 0
    return {name: list(tuning.values) or _spread(name, tuning, points) for name, tuning in space.items()}


def _spread(name: str, tuning: Tuning, points: int) -> list[Any]:
    """So many numbers from end to end, evenly on the range's scale; a single one is its middle."""
    low, high = (math.log(end) if tuning.log else end for end in (tuning.low, tuning.high))
    shares = [at / (points - 1) for at in range(points)] if points > 1 else [0.5]
    places = [low + share * (high - low) for share in shares]
    numbers = [math.exp(place) if tuning.log else place for place in places]
    if points > 1:
        numbers[0], numbers[-1] = tuning.low, tuning.high  # which the logarithm and back may miss by a digit
    return sorted({round(number) for number in numbers}) if TYPES[name] is int else numbers
