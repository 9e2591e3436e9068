"""THE table of rules that judge a training, choosing among them, and asking them. What a rule does: `*_rules`.

AWS closed SageMaker Debugger and never showed its rules' code: these have its names, parameters and defaults.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kennel.errors import UserError
from kennel_train.debug.rules import loss_rules, profile_rules, tensor_rules
from kennel_train.debug.rules.findings import Fired
from kennel_train.debug.rules.parameters import Parameter, Value, parameters
from kennel_train.measure.history import StageHistory

_TENSORS = "https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html"
_PROFILE = "https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html"
_AROUND_SIGN = re.compile(r"\s*([:=,])\s*")
_BETWEEN = re.compile(r";|,(?![\w-]+=)")  # a comma before `name=` separates two parameters of one rule
_EXAMPLE = "all overfit:patience=3,ratio_threshold=0.5"


@dataclass(frozen=True)
class Rule:
    """One question about a series. `judge(series, *, ...)`'s keyword-only arguments are the rule's parameters."""

    name: str
    aws: str  # AWS's class
    of: Literal["tensors", "profile"]
    judge: Callable[..., Fired | None]
    source: str  # URL

    @property
    def parameters(self) -> dict[str, Value]:
        """Name -> default."""
        return {name: parameter.default for name, parameter in self.declared().items()}

    def declared(self) -> dict[str, Parameter]:
        """The parameters with their bounds."""
        return parameters(self.judge)

    @property
    def says(self) -> str:
        """One sentence."""
        return " ".join((self.judge.__doc__ or "").split("\n\n")[0].split())


@dataclass(frozen=True)
class Chosen:
    """A rule, and those of its parameters that are not the default."""

    rule: Rule
    parameters: dict[str, Value] = field(default_factory=dict)


_ROWS = (
    Rule("exploding_tensor", "ExplodingTensor", "tensors", tensor_rules.exploding_tensor, _TENSORS),
    Rule("vanishing_gradient", "VanishingGradient", "tensors", tensor_rules.vanishing_gradient, _TENSORS),
    Rule(
        "poor_weight_initialization",
        "PoorWeightInitialization",
        "tensors",
        tensor_rules.poor_weight_initialization,
        _TENSORS,
    ),
    Rule("loss_not_decreasing", "LossNotDecreasing", "tensors", loss_rules.loss_not_decreasing, _TENSORS),
    Rule("overfit", "Overfit", "tensors", loss_rules.overfit, _TENSORS),
    Rule("overtraining", "Overtraining", "tensors", loss_rules.overtraining, _TENSORS),
    Rule("class_imbalance", "ClassImbalance", "tensors", tensor_rules.class_imbalance, _TENSORS),
    Rule("dataloader", "Dataloader", "profile", profile_rules.dataloader, _PROFILE),
    Rule("batch_size", "BatchSize", "profile", profile_rules.batch_size, _PROFILE),
    Rule("low_gpu_utilization", "LowGPUUtilization", "profile", profile_rules.low_gpu_utilization, _PROFILE),
    Rule("gpu_memory_increase", "GPUMemoryIncrease", "profile", profile_rules.gpu_memory_increase, _PROFILE),
    Rule("stalled_training", "StalledTrainingRule", "profile", profile_rules.stalled_training, _TENSORS),
)
TABLE: dict[str, Rule] = {rule.name: rule for rule in _ROWS}


def chosen(text: str = "all") -> list[Chosen]:
    """The rules of a hyperparameter's text, in the table's order.

    `all`, `none` (or nothing), or words: `overfit dataloader:min_lost=20` are these two, `all overfit:patience=3` all,
    one with a parameter of its own. AWS's spelling, `VanishingGradient`, is as good. Blanks may stand around signs, and
    a comma or a semicolon between two rules.

    Raises:
        UserError: names every word that is no rule, no parameter or no value of it, in one sentence each.
    """
    words = _BETWEEN.sub(" ", _AROUND_SIGN.sub(r"\1", text)).split()
    named = [word for word in words if word.lower() not in ("all", "none")]
    if len(words) - len(named) > 1 or (named and "none" in map(str.lower, words)):
        raise UserError(f"rules={text!r}: `none` and `all` cannot be combined or repeated, as in {_EXAMPLE!r}")
    found: dict[str, Chosen] = {}
    problems: list[str] = []
    for word in named:
        try:
            one = _chosen(word)
            if one.rule.name in found:
                raise UserError(f"rules: {one.rule.name} is given twice: keep one")
            found[one.rule.name] = one
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    names = TABLE if "all" in map(str.lower, words) else found
    return [found.get(name, Chosen(rule)) for name, rule in TABLE.items() if name in names]


def judge(rules: Sequence[Chosen], series: StageHistory, of: set[str] | None = None) -> dict[str, Fired]:
    """What holds at the end of the series, by rule's name; the debugger keeps what held before.

    Args:
        of: kinds of rules to ask, of "tensors" and "profile"; all.
    """
    found = {}
    with np.errstate(all="ignore"):  # a series may hold nan: a comparison with it is false, which is what rules mean
        for one in rules:
            if of is None or one.rule.of in of:
                fired = one.rule.judge(series, **one.parameters)
                if fired:
                    found[one.rule.name] = fired
    return found


def markdown() -> str:
    """The table of docs/debugging.md; parameters in italics are not AWS's."""
    rows = ["| rule | AWS's name | parameters | what it says |", "|---|---|---|---|"]
    for rule in TABLE.values():
        said = [f"*`{p.shown()}`*" if p.ours else f"`{p.shown()}`" for p in rule.declared().values()]
        rows.append(f"| `{rule.name}` | [{rule.aws}]({rule.source}) | {', '.join(said)} | {rule.says} |")
    return "\n".join(rows) + "\n"


def _chosen(word: str) -> Chosen:
    """A rule, and what follows its colon.

    Raises:
        UserError: no such rule, parameter or value.
    """
    name, colon, rest = word.partition(":")
    known = {_key(spelling): rule for rule in _ROWS for spelling in (rule.name, rule.aws)}
    rule = known.get(_key(name))
    if rule is None and "=" in name:
        raise UserError(f"rules: {word!r} is no rule: write its parameters after a colon, as in {_EXAMPLE!r}")
    if rule is None:
        raise UserError(f"rules: unknown rule {name!r}: {_near(name, list(TABLE), known)}")
    declared, values = rule.declared(), dict[str, Value]()
    for setting in rest.split(",") if colon else ():
        key, sign, value = setting.partition("=")
        key = key.replace("-", "_")
        if not sign:
            raise UserError(f"rules: {word!r}: write a value for {key or 'a parameter'!r}, as in {_EXAMPLE!r}")
        if key not in declared:
            raise UserError(f"rules: {rule.name} has no parameter {key!r}: {_near(key, list(declared), {})}")
        if key in values:
            raise UserError(f"rules: {rule.name}:{key} is given twice: keep one")
        try:
            values[key] = declared[key].read(value)
        except UserError as error:
            raise UserError(f"rules: {rule.name}:{error}") from error
    return Chosen(rule, values)


def _key(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _near(name: str, names: list[str], spelled: dict[str, Rule]) -> str:
    """The hint about a name that is none; `spelled` are rules by both of their spellings."""
    keys = {_key(known): known for known in names} | {key: rule.name for key, rule in spelled.items()}
    near = difflib.get_close_matches(_key(name), keys, 1, cutoff=0.5)
    return f"did you mean {keys[near[0]]!r}?" if near else f"known: {', '.join(names)}"
