"""Metric names, the log line that carries them and the regex that reads it back. No arithmetic."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One number of the log; `goal` is the direction that a tuner should push it."""

    name: str
    goal: Literal["Minimize", "Maximize"]

    @property
    def regex(self) -> str:
        """For SageMaker's MetricDefinitions: the first group is the value; `nan` and `inf` do not match."""
        return re.escape(self.name) + r"=([-+]?[0-9][-+.0-9e]*)"


TRAIN_LOSS = Metric("train:loss", "Minimize")
VALIDATION_LOSS = Metric("validation:loss", "Minimize")
VALIDATION_ACCURACY = Metric("validation:accuracy", "Maximize")
TEST_LOSS = Metric("test:loss", "Minimize")
TEST_ACCURACY = Metric("test:accuracy", "Maximize")

METRICS = (TRAIN_LOSS, VALIDATION_LOSS, VALIDATION_ACCURACY, TEST_LOSS, TEST_ACCURACY)
OBJECTIVE = VALIDATION_ACCURACY


def line(values: Mapping[Metric, float], **context: object) -> str:
    """One log line: the context first (`epoch=3`), then each metric as `name=value`."""
    fields = [f"{key}={value}" for key, value in context.items()]
    fields += [f"{metric.name}={value:.6g}" for metric, value in values.items()]
    return " ".join(fields)


def definitions() -> list[dict[str, str]]:
    """The MetricDefinitions of a training or tuning request."""
    return [{"Name": metric.name, "Regex": metric.regex} for metric in METRICS]
