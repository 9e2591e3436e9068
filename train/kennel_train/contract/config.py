"""The files of input/config as our own training reads them: parsed once in a process, and by nothing else.

What belongs to smdebug and the profiler is read by `debug.hook_config`, the hosts by `distributed.launcher`; all of
them through `kennel.config`, so that an absent, an empty and a null file mean the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kennel import config, hyperparameters, search_space
from kennel.hyperparameters import Hyperparameters, Tuning
from kennel.layout import Layout

_SHARDED = "ShardedByS3Key"


@dataclass(frozen=True)
class JobConfig:
    """One job's settings."""

    raw: Mapping[str, Any]  # hyperparameters.json as it stands: which were given, and those of the platform
    hp: Hyperparameters
    space: Mapping[str, Tuning]  # what the trials of a search differ in
    sharded: frozenset[str]  # channels of which each host has a part of its own

    @classmethod
    def read(cls, layout: Layout) -> "JobConfig":
        """Raises:
        UserError: a hyperparameter that is unknown or has no such value, or a file that is no JSON object.
        """
        raw = hyperparameters.load(layout.hyperparameters)
        hp = hyperparameters.parse(raw)
        rows = config.channels(layout.config / "inputdataconfig.json")
        sharded = frozenset(name for name, row in rows.items() if row.get("S3DistributionType") == _SHARDED)
        return cls(raw, hp, search_space.space(hp.search_space), sharded)
