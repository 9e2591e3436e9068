"""Prices: of AWS's list, else of our dated table, else said not to be known."""

from collections.abc import Iterator

import pytest

from kennel_launch.advice import costs
from kennel_launch.advice.costs import Cost

from ...emulated_aws.client import Aws
from ..conftest import Command
from ..front import Front, before


@pytest.fixture
def front(aws: Aws, command: Command) -> Iterator[Front]:
    with before(aws, command) as front:
        yield front


@pytest.mark.parametrize(
    ("words", "component", "end"),
    [
        (("train", "--instance-type", "ml.m5.large"), "Training", ""),
        (("deploy", "--endpoint-instance-type", "ml.m5.large"), "Hosting", " until it is deleted"),
        (("deploy", "--mode", "async", "--endpoint-instance-type", "ml.m5.large"), "AsyncInf", " until it is deleted"),
        (("deploy", "--mode", "async", "--endpoint-instance-type", "ml.m5.large"), "Hosting", " until it is deleted"),
        (("transform", "--endpoint-instance-type", "ml.m5.large"), "BatchTransform", ""),
    ],
)
def test_the_price_is_the_list_s_for_this_use(front: Front, words: tuple[str, ...], component: str, end: str) -> None:
    assert front.allowed(*words)[-1].endswith(f"$2.76 a day{end} (a table of 2026-11 for us-east-1)")
    front.aws.price("ml.m5.large", component, 8.0)
    line = front.allowed(*words)[-1]
    assert line == f"ml.m5.large: about $8.00 an hour, $192.00 a day{end} (AWS's price list for eu-west-1)"


def test_the_price_list_is_asked_where_it_is_served(front: Front) -> None:
    front.allowed("train")
    asked = front.aws.asked("pricing", "GetProducts")
    assert {one["Field"]: one["Value"] for one in asked[0]["Filters"]} == {
        "productFamily": "ML Instance",
        "regionCode": "eu-west-1",
        "instanceName": "ml.g5.xlarge",
        "platoinstancetype": "Training",
    }


def test_all_instances_and_the_longest_time_count(front: Front) -> None:
    lines = front.allowed("train", "--instance-count", "2", "--parallel", "2", "--hours", "3", "--spot")
    assert lines == [
        "4 × ml.g5.xlarge: about $6.00 an hour, $144.00 a day, at most $18.00 for 3 hours "
        "(AWS's price list for eu-west-1)",
        "that is the on-demand price: spot capacity is cheaper, by how much is known only afterwards",
    ]


def test_a_price_of_nothing_is_none(front: Front) -> None:
    front.aws.price("ml.m5.large", "Training", 0.0)
    assert front.allowed("train", "--instance-type", "ml.m5.large")[-1].endswith("(a table of 2026-11 for us-east-1)")


def test_a_price_that_nobody_knows(front: Front) -> None:
    line = front.allowed("train", "--instance-type", "ml.p5.48xlarge")[-1]
    assert line == ("ml.p5.48xlarge: what it costs is not known here, see https://aws.amazon.com/sagemaker/pricing/")
    assert front.allowed("train", "--instance-type", "ml.c5.xlarge")[-1].startswith("ml.c5.xlarge: about $0.20 an hour")


def test_thousands_are_written_so() -> None:
    assert costs.say(Cost("ml.p4d.24xlarge", 37.688, "a list"), "ml.p4d.24xlarge", 2) == [
        "2 × ml.p4d.24xlarge: about $75.38 an hour, $1,809.02 a day (a list)"
    ]
