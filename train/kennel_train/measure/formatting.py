"""How a report writes figures for people (shares, seconds, numbers; a dash for what is not known) and for programs."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

UNKNOWN = "–"


def number(value: Any) -> float | None:
    """A finite float, or None for whatever else a table may hold."""
    return float(value) if isinstance(value, int | float | np.number) and math.isfinite(value) else None


def percent(share: Any) -> str:
    """`0.954` -> `95.4%`; `100%` is said of all only, not of 2,999 in 3,000."""
    given = number(share)
    if given is None:
        return UNKNOWN
    said = f"{100 * given:.1f}%"
    if said != "100.0%":
        return said
    return "100%" if given >= 1 else ">99.9%"


def duration(seconds: Any) -> str:
    """`0.2 s`, `12 s`, `3 min 05 s`, `1 h 07 min`."""
    given = number(seconds)
    if given is None:
        return UNKNOWN
    if given < 9.95:
        return f"{given:.1f} s"
    whole = round(given)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{round(given / 60) // 60} h {round(given / 60) % 60:02} min"


def figure(value: Any) -> str:
    """A number with four digits or thousands' commas; words as they are; true and false as JSON has them."""
    if isinstance(value, bool):
        return str(value).lower()
    given = number(value)
    if given is None:
        return UNKNOWN if value is None or isinstance(value, float) else str(value)
    return f"{given:,.0f}" if abs(given) >= 1000 or given == int(given) else f"{given:.4g}"


def plain(value: Any) -> Any:
    """JSON's own types; None for what is no finite number, since JSON has no NaN."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
