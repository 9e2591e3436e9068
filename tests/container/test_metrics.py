"""The log line of metrics and the regexes that a tuner reads it with."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kennel import metrics


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_printed_is_what_is_read(value):
    line = metrics.line(dict.fromkeys(metrics.METRICS, value), epoch=3)
    assert line.startswith("epoch=3 ")
    for metric in metrics.METRICS:
        assert re.findall(metric.regex, line) == [f"{value:.6g}"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_number_is_not_read_as_one(value):
    assert not re.search(metrics.TRAIN_LOSS.regex, metrics.line({metrics.TRAIN_LOSS: value}))


def test_definitions_are_as_sagemaker_takes_them():
    names = [row["Name"] for row in metrics.definitions()]
    assert metrics.OBJECTIVE.name in names
    assert all(row["Regex"].count("(") == 1 for row in metrics.definitions())
