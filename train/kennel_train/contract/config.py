"""A job's settings out of input/config: hyperparameters.json and inputdataconfig.json, parsed once in a process.

What else lies there has one reader each: how channels stream `data.pipe_mode`, the hosts `distributed.launcher`, the
debugger's and profiler's files `debug.hook_config` for us and `debug.smdebug.job_hook` for smdebug; `contract.
user_script` asks whether those are there. All read by `kennel.config`: absent, empty and null mean the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kennel import config, hyperparameters
from kennel.hyperparameters import Hyperparameters, Tuning
from kennel.layout import Layout
from kennel.search import search_space

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
