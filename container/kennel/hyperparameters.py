"""THE table of hyperparameters: name, type, default, bounds, choices, help and tuning range, each said once.

Parsed from the strings that SageMaker sends; nothing downstream checks again.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kennel.errors import UserError


@dataclass(frozen=True)
class Tuning:
    """A tuner's range: a continuous one (`low`..`high`, log-scaled or not) or a categorical one (`values`)."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rule:
    """What a value of one hyperparameter may be, for people and for the parser."""

    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    tuning: Tuning | None = None


def _row(default: Any, help: str, **rule: Any) -> Any:
    return field(default=default, metadata={"rule": Rule(help, **rule)})


@dataclass(frozen=True)
class Hyperparameters:
    """One training job's settings; construct with `parse` to have them checked."""

    backbone: str = _row("resnet50", "a torchvision or timm model name")
    pretrained: bool = _row(True, "start from pretrained weights; `false`: from random ones")
    strategy: str = _row(
        "probe",
        "`probe`: frozen backbone, features once, new head; `finetune`: every weight is trained",
        choices=("probe", "finetune"),
    )
    epochs: int = _row(20, "passes over the training photos", low=1, high=10_000)
    batch_size: int = _row(
        32, "photos per optimizer step", low=1, high=65_536, tuning=Tuning(values=(32, 64, 128, 256, 512))
    )
    learning_rate: float = _row(
        0.01, "peak of the cosine schedule", low=1e-8, high=10.0, tuning=Tuning(low=0.001, high=0.1, log=True)
    )
    momentum: float = _row(0.9, "of SGD with Nesterov's step", low=0.0, high=0.999)
    weight_decay: float = _row(1e-4, "L2 penalty on the trained weights", low=0.0, high=1.0)
    image_size: int = _row(224, "side of the square that the model sees, pixels", low=32, high=1024)
    validation_fraction: float = _row(
        0.2, "share of each class taken from `train` where no validation channel is given", low=0.01, high=0.5
    )
    on_bad_image: str = _row(
        "skip",
        "`skip`: leave unreadable photos out, fail above 1%; `fail`: at the first",
        choices=("skip", "fail"),
    )
    seed: int = _row(0, "of weights, order and augmentation", low=0, high=2**31 - 1)


TABLE: dict[str, Rule] = {f.name: f.metadata["rule"] for f in dataclasses.fields(Hyperparameters)}
TYPES: dict[str, type] = {name: type(getattr(Hyperparameters, name)) for name in TABLE}


def parse(raw: Mapping[str, Any]) -> Hyperparameters:
    """Hyperparameters from hyperparameters.json's values (strings on SageMaker, numbers are fine too).

    `batch-size` is `batch_size`; the platform's own keys (`sagemaker_*`, `_tuning_*`) are dropped.

    Raises:
        UserError: names every bad key with its value and bound, in one sentence each.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in raw.items():
        if is_platform_key(key):
            continue
        name = key.strip().replace("-", "_")
        try:
            if name not in TABLE:
                raise UserError(_unknown(key))
            if name in values:
                raise UserError(f"hyperparameter '{name}' is given twice, as {name} and as {key}: keep one")
            values[name] = _convert(name, value)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    return Hyperparameters(**values)


def load(path: Path) -> dict[str, Any]:
    """The raw table of a hyperparameters.json; an absent or empty file is an empty table.

    Raises:
        UserError: not JSON, or not an object.
    """
    try:
        text = path.read_text() if path.exists() else ""
        raw = json.loads(text) if text.strip() else {}
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): write an object like {_EXAMPLE}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} holds a {type(raw).__name__}: write an object like {_EXAMPLE}")
    return raw


_EXAMPLE = '{"epochs": "20"}'


def is_platform_key(key: str) -> bool:
    """Whether SageMaker or its SDK put the key there, not the user."""
    return key.startswith(("sagemaker_", "_tuning_"))


def unquote(value: Any) -> Any:
    """`"\\"128\\""` -> `128` as a string: framework estimators and the tuner send JSON inside the string."""
    while isinstance(value, str) and len(value.strip()) >= 2 and value.strip().startswith('"'):
        try:
            value = json.loads(value)
        except ValueError:
            break
    return value


def _convert(name: str, value: Any) -> Any:
    """The checked value of one hyperparameter."""
    rule, wanted = TABLE[name], TYPES[name]
    text = str(unquote(value)).strip()
    if wanted is bool:
        if text.lower() in ("true", "1"):
            return True
        if text.lower() in ("false", "0"):
            return False
        raise UserError(f"hyperparameter {name}={text!r}: write true or false")
    if wanted is str:
        if rule.choices and text not in rule.choices:
            near = difflib.get_close_matches(text, rule.choices, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(f"hyperparameter {name}={text!r}: write one of {', '.join(rule.choices)}{hint}")
        if not text:
            raise UserError(f"hyperparameter {name} is empty: leave it out for {getattr(Hyperparameters, name)!r}")
        return text
    return _number(name, text, rule, whole=wanted is int)


def _number(name: str, text: str, rule: Rule, *, whole: bool) -> float | int:
    kind = "a whole number" if whole else "a number"
    bound = f"between {_short(rule.low)} and {_short(rule.high)}"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (whole and number != int(number)) or not rule.low <= number <= rule.high:
        raise UserError(f"hyperparameter {name}={text!r}: write {kind} {bound}")
    return int(number) if whole else number


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key.strip().replace("-", "_"), TABLE, 1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(TABLE)}"
    return f"unknown hyperparameter {key!r}: {hint}"


def markdown() -> str:
    """The README's table."""
    rows = ["| name | type | default | allowed | tuned over | what it is |", "|---|---|---|---|---|---|"]
    for name, rule in TABLE.items():
        default = getattr(Hyperparameters, name)
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        allowed = ", ".join(rule.choices)
        if math.isfinite(rule.low):
            allowed = f"{_short(rule.low)} to {_short(rule.high)}"
        tuned = ""
        if rule.tuning:
            span = f"{rule.tuning.low:g} to {rule.tuning.high:g}{', log' if rule.tuning.log else ''}"
            tuned = ", ".join(map(str, rule.tuning.values)) or span
        rows.append(f"| `{name}` | {TYPES[name].__name__} | `{shown}` | {allowed} | {tuned} | {rule.help} |")
    return "\n".join(rows) + "\n"
