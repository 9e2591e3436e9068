"""What the commands take from the environment, from kennel.toml and from the settings' flags.

Nothing else in this package reads the environment.
"""

import argparse
import dataclasses
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kennel.errors import UserError, did_you_mean
from kennel.hyperparameters import OF_TRACKING

FILE = "kennel.toml"  # in the working folder
TAG = {"kennel": "1"}  # on all that is created, so that it is found again
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; old ones have capitals and _
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}|arn:aws[a-z-]*:s3[a-z0-9-]*:[^\s]+")
_PLATFORM = ("SAGEMAKER_", "SM_", "TRAINING_JOB_", "AWS_EXECUTION_ENV")


def _metadata(help: str, metavar: str, flag: str = "") -> dict[str, str]:
    return {"help": help, "metavar": metavar, "flag": flag}


def _row(default: Any, *texts: str, **more: str) -> Any:
    return field(default=default, metadata=_metadata(*texts, **more))


@dataclass(frozen=True)
class Settings:
    """Who pays where and for what; construct with `load`, which has it checked."""

    role: str = _row("", "the role that SageMaker works under", "ARN")
    region: str = _row("", "default: that of AWS's configuration", "REGION")
    bucket: str = _row("", "where photos, models and reports lie", "NAME")
    prefix: str = _row("kennel", "of all that lies there", "PATH")
    image: str = _row("", "in ECR, as kennel push says it", "URI")
    instance_type: str = _row("ml.g5.xlarge", "that trains", "TYPE")
    instance_count: int = _row(1, "machines of one training job", "N")
    endpoint_instance_type: str = _row("ml.c7i.large", "that serves", "TYPE")
    tags: dict[str, str] = field(default_factory=dict, metadata=_metadata("on all that is created", "NAME=VALUE,..."))
    subnets: tuple[str, ...] = _row((), "of a VPC, for what runs inside it", "ID,...")
    security_groups: tuple[str, ...] = _row((), "of your VPC", "ID,...")
    kms_key: str = _row("", "that encrypts volumes and output", "KEY")
    mlflow: str = _row("", "an MLflow server that jobs log to", "URI|ARN")
    mlflow_experiment: str = _row("", "the experiment there (kennel)", "NAME")
    profile: str = _row("", "of AWS's own configuration", "NAME", flag="--aws-profile")  # --profile measures steps


ROWS: dict[str, dataclasses.Field[Any]] = {row.name: row for row in dataclasses.fields(Settings)}
TYPES: dict[str, type] = {name: type(getattr(Settings(), name)) for name in ROWS}
PAUSE = "KENNEL_PAUSE"  # seconds at most between two questions to AWS
OF_A_JOB = tuple(name for name in ROWS if name != "endpoint_instance_type")
# Of what serves: without those of training, and without one that has a shorter flag.
OF_AN_ENDPOINT = tuple(
    name for name in ROWS if name not in ("instance_type", "instance_count", "endpoint_instance_type", *OF_TRACKING)
)
OF_ACCESS = ("region", "profile")  # what a command needs that creates nothing


def add_flags(parser: argparse.ArgumentParser, names: Iterable[str] = tuple(ROWS), *, folded: str = "") -> None:
    """One flag for each setting of that name; all that are left out are None.

    Args:
        folded: the command whose --help explains them, where this one's has no room.
    """
    names = list(names)
    source = f"{folded} --help" if folded else f"or {variable('<NAME>')} in the environment, or a line of {FILE}"
    group = parser.add_argument_group(f"settings ({source})", " ".join(map(flag, names)) if folded else None)
    for name in names:
        row = ROWS[name].metadata
        default = _shown(ROWS[name])
        said = row["help"] + (f" ({default})" if default else "")
        group.add_argument(flag(name), dest=name, metavar=row["metavar"], help=argparse.SUPPRESS if folded else said)


def flag(name: str) -> str:
    """`--instance-type`."""
    return str(ROWS[name].metadata["flag"]) or f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """`KENNEL_INSTANCE_TYPE`."""
    return f"KENNEL_{name.upper()}"


def load(flags: Mapping[str, Any]) -> Settings:
    """Each setting from its flag, else the environment, else kennel.toml, else its default.

    Args:
        flags: a command's options by name; those that are no settings are passed over, as are None and "".

    Raises:
        UserError: a setting that is none, or a value that it can't have; says where it was read.
    """
    values: dict[str, Any] = {}
    in_file = _file(Path(FILE))
    for name in ROWS:
        sources = ((flag(name), flags.get(name)), (variable(name), os.environ.get(variable(name))))
        for where, value in (*sources, (f"{name} in {FILE}", in_file.get(name))):
            if value not in (None, ""):
                values[name] = _value(name, value, where)
                break
    return Settings(**values)


def needed(settings: Settings, *names: str) -> None:
    """Refuses where one of these settings is missing.

    Raises:
        UserError: names the first of them.
    """
    for name in names:
        if not getattr(settings, name):
            raise UserError(
                f"the {name.replace('_', ' ')} is missing ({ROWS[name].metadata['help']}): "
                f"write {flag(name)} {ROWS[name].metadata['metavar']}, or {name} = ... in {FILE}"
            )


def tracking(settings: Settings) -> dict[str, str]:
    """The hyperparameters by which a job logs to MLflow, where the settings name a server."""
    return {name: value for name in OF_TRACKING if settings.mlflow and (value := getattr(settings, name))}


def tags(settings: Settings) -> list[dict[str, str]]:
    """Ours and the user's, as AWS's requests have them; `load` has seen to it that none is given twice."""
    return [{"Key": key, "Value": value} for key, value in (settings.tags | TAG).items()]


def pause(usual: float) -> float:
    """Seconds between two questions to AWS: the usual ones, or less by `KENNEL_PAUSE`.

    Raises:
        UserError: it is set to something else than a number.
    """
    longest = os.environ.get(PAUSE) or str(usual)
    if not re.fullmatch(r"\d+(\.\d+)?", longest):
        raise UserError(f"{PAUSE}={longest!r}: write seconds, as 0.5, or leave it out")
    return min(usual, float(longest))


def docker() -> str:
    """The docker client: `DOCKER`, as in the Makefile."""
    return os.environ.get("DOCKER") or "docker"


def child(**extra: str) -> dict[str, str]:
    """The environment of a job or an endpoint that is started here: the caller's own, less what SageMaker left in it.

    A notebook on SageMaker sets variables that its containers would take for their own job's.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith(_PLATFORM)} | extra


def _file(path: Path) -> dict[str, Any]:
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): write lines like region = 'eu-west-1'") from error
    for key in rows:
        if key not in ROWS:
            hint = did_you_mean(key, ROWS, f"known: {', '.join(ROWS)}")
            raise UserError(f"{path}: unknown setting {key!r}: {hint}")
    return rows


def _value(name: str, value: Any, where: str) -> Any:
    wanted = TYPES[name]
    if wanted is dict:
        return _tags(value, where)
    if wanted is tuple:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
            raise UserError(f"{where}={value!r}: write {ROWS[name].metadata['metavar']}")
        return tuple(word.strip() for word in words)
    if wanted is int:
        if isinstance(value, bool) or not str(value).isdecimal() or int(value) < 1:
            raise UserError(f"{where}={value!r}: write a whole number from 1")
        return int(value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}={value!r}: write one word, {ROWS[name].metadata['metavar']}")
    if name == "prefix" and not value.strip(" /"):
        raise UserError(f"{where}={value!r}: write a folder's name, as kennel or team/kennel")
    if name == "bucket" and not _BUCKET.fullmatch(value.strip()):
        raise UserError(f"{where}={value!r}: write the bucket's name alone, without s3:// and without a folder")
    return value.strip(" /") if name == "prefix" else value.strip()


def _tags(value: Any, where: str) -> dict[str, str]:
    if isinstance(value, str):
        pairs = [word.partition("=") for word in value.split(",")]
        value = {key.strip(): text.strip() for key, sign, text in pairs if sign and key.strip()}
        value = value if len(value) == len(pairs) else None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise UserError(f"{where}: write tags as NAME=VALUE,NAME=VALUE, each name once")
    for key, text in value.items():
        if TAG.get(key, text) != text:
            raise UserError(f"{where}: {key}={text} is the tag by which Kennel finds what it made: choose another name")
        # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Tag.html
        if not 1 <= len(key) <= 128 or len(text) > 256 or key.lower().startswith("aws:"):
            raise UserError(f"{where}: {key[:40]}={text[:40]}: AWS takes names to 128 letters, not aws:, values to 256")
    return dict(value)


def _shown(row: dataclasses.Field[Any]) -> str:
    return "" if row.default in ("", (), dataclasses.MISSING) else str(row.default)
