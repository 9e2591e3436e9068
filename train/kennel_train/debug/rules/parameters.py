"""What a rule's parameter may be, and reading one that a user wrote. Which rules there are: `table`.

A rule declares its parameters as keyword-only arguments; the annotation carries the bounds: `*, patience: Count = 2`.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from kennel.errors import UserError

Value = float | int | bool | str


@dataclass(frozen=True)
class Bounds:
    """Both ends are allowed; `choices` are for words."""

    low: float = 0.0
    high: float = math.inf
    choices: tuple[str, ...] = ()


OURS = "not AWS's"  # an annotation: Kennel has added the parameter
Percent = Annotated[float, Bounds(high=100.0)]
Amount = Annotated[float, Bounds()]
Count = Annotated[int, Bounds(low=1)]
Whole = Annotated[int, Bounds()]


@dataclass(frozen=True)
class Parameter:
    """One parameter of one rule; a value has the type of `default`."""

    name: str
    default: Value
    bounds: Bounds
    ours: bool

    def read(self, text: str) -> Value:
        """The value of a text.

        Raises:
            UserError: it is none, with what it may be; the caller says of which rule.
        """
        if isinstance(self.default, bool):
            if text.lower() in ("true", "1", "false", "0"):
                return text.lower() in ("true", "1")
            raise UserError(f"{self.name}={text!r}: write true or false")
        if isinstance(self.default, str):
            found = next((word for word in self.bounds.choices if word.lower() == text.lower()), None)
            if found is None:
                words = ", ".join(word for word in self.bounds.choices if word)
                raise UserError(f"{self.name}={text!r}: write one of {words}, or leave it out")
            return found
        return self._number(text)

    def shown(self) -> str:
        """`patience=1`, as a user would write it."""
        return f"{self.name}={shown(self.default)}"

    def _number(self, text: str) -> float | int:
        whole = isinstance(self.default, int)
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        low, high = self.bounds.low, self.bounds.high
        if not math.isfinite(number) or (whole and number != int(number)) or not low <= number <= high:
            span = f"between {low:g} and {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            raise UserError(f"{self.name}={text!r}: write a {'whole ' if whole else ''}number {span}")
        return int(number) if whole else number


def shown(value: Value) -> str:
    """A value as `Parameter.read` takes it."""
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else value
    return f"{value:g}"


def parameters(judge: Callable[..., Any]) -> dict[str, Parameter]:
    """The keyword-only arguments of a rule's function, in order."""
    found = {}
    for name, argument in inspect.signature(judge).parameters.items():
        if argument.kind is argument.KEYWORD_ONLY:
            said = get_args(argument.annotation)
            bounds = next((note for note in said if isinstance(note, Bounds)), Bounds())
            found[name] = Parameter(name, argument.default, bounds, OURS in said)
    return found
