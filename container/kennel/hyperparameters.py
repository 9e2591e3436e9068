"""THE table of hyperparameters: name, type, default, bounds, choices, help and tuning range, each said once.

Parsed from the strings that SageMaker sends; nothing downstream checks again.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kennel import mlflow_uri
from kennel.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Tuning:
    """A tuner's range: numbers from `low` to `high`, or a choice of `values`."""

    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()

    @property
    def log(self) -> bool:
        """Whether numbers are searched on a logarithmic scale: those over a factor of ten or more."""
        return self.low > 0 and self.high >= 10 * self.low


@dataclass(frozen=True)
class Rule:
    """What a value of one hyperparameter may be, for people and for the parser."""

    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    tuning: Tuning | None = None  # what a search covers by default
    per_trial: bool = False  # the trials of one search may differ in it
    check: Callable[[str], None] | None = None  # of a text, raises UserError
    or_zero: bool = False  # 0 is allowed below `low`, and means what `help` says


def _row(default: Any, help: str, **rule: Any) -> Any:
    return field(default=default, metadata={"rule": Rule(help, **rule)})


@dataclass(frozen=True)
class Hyperparameters:
    """One training job's settings; construct with `parse` to have them checked."""

    backbone: str = _row("resnet50", "a torchvision or timm model name")
    pretrained: bool = _row(True, "start from pretrained weights; `false`: from random ones")
    strategy: str = _row(
        "auto",
        "`probe`: frozen backbone, features once, new head; `finetune`: every weight; `probe-then-finetune`: both in "
        "turn; `auto`: `probe-then-finetune` on a GPU, `probe` on a CPU",
        choices=("auto", "probe", "finetune", "probe-then-finetune"),
    )
    solver: str = _row(
        "auto",
        "of a probe's head: `lbfgs` solves it to its optimum, with an L2 chosen by cross-validation; `sgd` trains it "
        "epoch by epoch; `auto`: `lbfgs` for the strategy `probe`, unless a hyperparameter of SGD's is given or "
        "searched",
        choices=("auto", "lbfgs", "sgd"),
        per_trial=True,
    )
    l2: float = _row(
        0.0,
        "of `lbfgs`: half of it times the squared weights is added to the loss, on features scaled to a mean square of "
        "1; 0: chosen by cross-validation",
        low=0.0,
        high=1e4,
        per_trial=True,
    )
    final: str = _row(
        "all",
        "`all`: where validation was cut from `train`, a probe's head learns from both in the end, and what is "
        "reported of validation stays that of the head before; `train`: it does not",
        choices=("all", "train"),
    )
    epochs: int = _row(20, "passes over the training photos", low=1, high=10_000, per_trial=True)
    probe_epochs: int = _row(
        20, "epochs of the head before `probe-then-finetune` goes on", low=1, high=10_000, per_trial=True
    )
    batch_size: int = _row(
        32,
        "photos per optimizer step, over all GPUs; memory does not limit it",
        low=1,
        high=65_536,
        tuning=Tuning(values=(32, 64, 128, 256, 512)),
        per_trial=True,
    )
    learning_rate: float = _row(
        0.01,
        "of the head, the schedule's peak",
        low=1e-8,
        high=10.0,
        tuning=Tuning(low=0.001, high=0.1),
        per_trial=True,
    )
    backbone_learning_rate_scale: float = _row(
        0.1,
        "the backbone's learning rate as a share of `learning_rate`, in `finetune`",
        low=0.0,
        high=10.0,
        per_trial=True,
    )
    optimizer: str = _row("sgd", "`sgd` with Nesterov's momentum, or `adamw`", choices=("sgd", "adamw"), per_trial=True)
    momentum: float = _row(0.9, "of SGD", low=0.0, high=0.999, per_trial=True)
    weight_decay: float = _row(
        1e-4, "on weights, not on biases and normalization layers", low=0.0, high=1.0, per_trial=True
    )
    schedule: str = _row(
        "cosine",
        "the learning rate falls by half a `cosine`, or rises and falls as `one-cycle`",
        choices=("cosine", "one-cycle"),
        per_trial=True,
    )
    warmup_epochs: float = _row(
        0.0, "epochs in which a `cosine` schedule rises first", low=0.0, high=1000.0, per_trial=True
    )
    label_smoothing: float = _row(
        0.0, "share of each label that is spread over all classes", low=0.0, high=0.9, per_trial=True
    )
    class_weights: str = _row(
        "none",
        "`balanced`: the loss is weighted by inverse class frequency",
        choices=("none", "balanced"),
        per_trial=True,
    )
    trivial_augment: bool = _row(
        False, "one random TrivialAugment operation on each photo, in `finetune`", per_trial=True
    )
    gradient_clip: float = _row(0.0, "largest norm of all gradients; 0: unlimited", low=0.0, high=1e6, per_trial=True)
    ema_decay: float = _row(
        0.0,
        "EMA decay of the weights, whose average becomes the model, 0.99 or so; 0: off",
        low=0.0,
        high=0.99999,
        per_trial=True,
    )
    patience: int = _row(0, "early stopping: epochs without a better one; 0: never", low=0, high=10_000, per_trial=True)
    checkpoint_minutes: float = _row(5.0, "minutes between checkpoints inside a long epoch", low=0.01, high=1440.0)
    int8: bool = _row(True, "add an int8 model for CPU endpoints where it is as good as the fp32 one")
    white_level: float = _row(
        0.0,
        "what white is in photos of more than 8 bits; 0: the largest value of their type, 65535 or 1.0",
        low=0,
        high=4294967295,
    )
    image_size: int = _row(
        0, "side of the square that the model sees, pixels; 0: the backbone's own", low=32, high=1024, or_zero=True
    )
    validation_fraction: float = _row(
        0.2, "share of each class taken from `train` where no validation channel is given", low=0.01, high=0.5
    )
    on_bad_image: str = _row(
        "skip",
        "`skip`: leave unreadable photos out, fail above 1%; `fail`: at the first",
        choices=("skip", "fail"),
    )
    allow_missing_classes: bool = _row(False, "go on where a class of `train` has no photo in the validation channel")
    seed: int = _row(0, "of weights, order and augmentation", low=0, high=2**31 - 1)
    trials: int = _row(1, "settings that one job tries, to keep the best by validation accuracy", low=1, high=1000)
    search: str = _row(
        "random",
        "how a trial's settings are chosen: at `random`, from a `grid`, or by `tpe`, which learns from earlier trials",
        choices=("random", "grid", "tpe"),
    )
    search_space: str = _row(
        "", 'what trials differ in, `learning_rate=0.001..0.1 batch_size=32,64`; default: what is "tuned over" here'
    )
    time_budget: float = _row(
        0.0, "minutes after which a search ends with the best that it has; 0: unlimited", low=0.0, high=100_000.0
    )
    rules: str = _row(
        "all",
        "the rules that watch the training: `all`, `none`, or by name, with changed parameters: "
        "`exploding_tensor overfit:patience=3`",
    )
    on_rule: str = _row(
        "warn",
        "a rule that fires is named in the log and the report; `stop`: it ends the training, too",
        choices=("warn", "stop"),
    )
    profile: bool = _row(True, "measure what each step's time goes to, and the machine once a second")
    profile_steps: str = _row("", "steps to record with torch.profiler, `20-24`, for Perfetto or chrome://tracing")
    debug: bool = _row(False, "save tensors with smdebug even where the job has no DebugHookConfig")
    debug_strict: bool = _row(False, "an error in smdebug fails the job, instead of a warning and no more tensors")
    mlflow: str = _row(
        "",
        "an MLflow tracking server, by its URI or, of SageMaker's, by its ARN; default: `MLFLOW_TRACKING_URI` of the "
        "environment, else none",
        check=mlflow_uri.check,
    )
    mlflow_experiment: str = _row(
        "", "the experiment there; default: `MLFLOW_EXPERIMENT_NAME` of the environment, else `kennel`"
    )


TABLE: dict[str, Rule] = {f.name: f.metadata["rule"] for f in dataclasses.fields(Hyperparameters)}
OF_A_SEARCH = ("trials", "search", "search_space", "time_budget")  # a single trial knows nothing of them
OF_SGD = (
    "epochs",
    "probe_epochs",
    "batch_size",
    "learning_rate",
    "optimizer",
    "momentum",
    "weight_decay",
    "schedule",
    "warmup_epochs",
    "gradient_clip",
    "ema_decay",
    "patience",
)  # L-BFGS has no use for them
OF_TRACKING = ("mlflow", "mlflow_experiment")
OF_WATCHING = (
    "rules",
    "on_rule",
    "profile",
    "profile_steps",
    "debug",
    "debug_strict",
    *OF_TRACKING,
)  # change no weight
TYPES: dict[str, type] = {name: type(getattr(Hyperparameters, name)) for name in TABLE}


def parse(raw: Mapping[str, Any]) -> Hyperparameters:
    """Hyperparameters from hyperparameters.json's values (strings on SageMaker, numbers are fine too).

    `batch-size` is `batch_size`; the platform's own keys (`sagemaker_*`, `_tuning_*`) are dropped.

    Raises:
        UserError: names every bad key with its value and bound, in one sentence each.
    """
    values: dict[str, Any] = {}
    written: dict[str, str] = {}
    problems: list[str] = []
    for key, value in raw.items():
        if is_platform_key(key):
            continue
        name = _name(key)
        try:
            if name not in TABLE:
                raise UserError(unknown(key))
            if name in written:
                raise UserError(f"hyperparameter '{name}' is given twice, as {written[name]} and as {key}: keep one")
            written[name] = key
            values[name] = convert(name, value)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    return Hyperparameters(**values)


def given(raw: Mapping[str, Any]) -> set[str]:
    """The names that hyperparameters.json sets; all others have their default."""
    return {_name(key) for key in raw if not is_platform_key(key)}


def load(path: Path) -> dict[str, Any]:
    """The raw table of a hyperparameters.json; an absent or empty file is an empty table.

    Raises:
        UserError: not JSON, or not an object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig") if path.exists() else ""  # some editors put a mark first
        raw = json.loads(text) if text.strip() else {}
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): write an object like {_EXAMPLE}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} holds a {type(raw).__name__}: write an object like {_EXAMPLE}")
    return raw


_EXAMPLE = '{"epochs": "20"}'
_LONGEST_SHOWN = 80  # characters of a value in a message, of which a job's failure has 1,024
_COMMA = re.compile(r"[+-]?\d*,\d+")  # 0,01: how much of the world writes a decimal


def is_platform_key(key: str) -> bool:
    """Whether SageMaker or its SDK put the key there, not the user."""
    return key.startswith(("sagemaker_", "_tuning_"))


def _name(key: str) -> str:
    return key.strip().replace("-", "_")


def unquote(value: Any) -> Any:
    """`"\\"128\\""` -> `128` as a string: framework estimators and the tuner send JSON inside the string."""
    while isinstance(value, str) and len(value.strip()) >= 2 and value.strip().startswith('"'):
        try:
            value = json.loads(value)
        except ValueError:
            break
    return value


def convert(name: str, value: Any) -> Any:
    """The checked value of one hyperparameter.

    Raises:
        UserError: it is none, with its bound.
    """
    rule, wanted = TABLE[name], TYPES[name]
    text = str(unquote(value)).strip()
    if wanted is bool:
        if text.lower() in ("true", "1"):
            return True
        if text.lower() in ("false", "0"):
            return False
        raise UserError(f"hyperparameter {name}={_shown(text)}: write true or false")
    if wanted is str:
        if rule.choices:
            return _choice(name, text, rule.choices)
        if not text and getattr(Hyperparameters, name):
            raise UserError(f"hyperparameter {name} is empty: leave it out for {getattr(Hyperparameters, name)!r}")
        if rule.check:
            rule.check(text)
        return text
    return _number(name, text, rule, whole=wanted is int)


def text(value: Any) -> str:
    """A value as `convert` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choice(name: str, text: str, choices: tuple[str, ...]) -> str:
    """The choice that a word is, in capitals or not: `AdamW` is adamw."""
    if text.lower() in choices:
        return text.lower()
    hint = did_you_mean(text.lower(), choices, cutoff=0.6)
    raise UserError(
        f"hyperparameter {name}={_shown(text)}: write one of {', '.join(choices)}{f' ({hint})' if hint else ''}"
    )


def _shown(text: str) -> str:
    """A value as a message quotes it: one line, and a long one only by its beginning."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


def _number(name: str, text: str, rule: Rule, *, whole: bool) -> float | int:
    kind = "a whole number" if whole else "a number"
    bound = f"between {_short(rule.low)} and {_short(rule.high)}{', or 0' if rule.or_zero else ''}"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    inside = rule.low <= number <= rule.high or (rule.or_zero and number == 0)
    if not math.isfinite(number) or (whole and number != int(number)) or not inside:
        point = ", with a point and no comma" if _COMMA.fullmatch(text) and not whole else ""
        raise UserError(f"hyperparameter {name}={_shown(text)}: write {kind} {bound}{point}")
    return int(number) if whole else number


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


def unknown(key: str) -> str:
    """The sentence about a name that is not in the table."""
    hint = did_you_mean(_name(key).lower(), TABLE, f"known: {', '.join(TABLE)}")
    return f"unknown hyperparameter {_shown(key)}: {hint}"


def markdown() -> str:
    """The table of docs/training.md."""
    rows = ["| name | type | default | allowed | tuned over | what it is |", "|---|---|---|---|---|---|"]
    for name, rule in TABLE.items():
        default = getattr(Hyperparameters, name)
        shown = text(default)
        allowed = ", ".join(rule.choices)
        if math.isfinite(rule.low):
            allowed = f"{'0, ' if rule.or_zero else ''}{_short(rule.low)} to {_short(rule.high)}"
        tuned = ""
        if rule.tuning:
            span = f"{rule.tuning.low:g} to {rule.tuning.high:g}{', log' if rule.tuning.log else ''}"
            tuned = ", ".join(map(str, rule.tuning.values)) or span
        rows.append(f"| `{name}` | {TYPES[name].__name__} | `{shown}` | {allowed} | {tuned} | {rule.help} |")
    return "\n".join(rows) + "\n"
