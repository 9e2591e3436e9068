"""Quotas that are too low are refused with the command that asks for more; ones that can't be read are said."""

from collections.abc import Iterator

import pytest

from ...emulated_aws.client import Aws
from ..conftest import Command
from ..front import Front, before


@pytest.fixture
def front(aws: Aws, command: Command) -> Iterator[Front]:
    with before(aws, command) as front:
        yield front


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("train",), "ml.g5.xlarge for training job usage"),
        (("train", "--spot"), "ml.g5.xlarge for spot training job usage"),
        (("deploy",), "ml.c7i.large for endpoint usage"),
        (("deploy", "--mode", "async"), "ml.c7i.large for endpoint usage"),
        (("deploy", "--mode", "multi-model"), "ml.c7i.large for endpoint usage"),
        (("transform",), "ml.c7i.large for transform job usage"),
    ],
)
def test_a_quota_of_0_is_named_with_the_command_that_asks_for_more(
    front: Front, words: tuple[str, ...], name: str
) -> None:
    front.aws.quota(name, 0)
    said = front.refused(*words)
    assert f"the account's quota '{name}' is 0 in eu-west-1, 1 needed" in said
    assert "`aws service-quotas request-service-quota-increase --service-code sagemaker --quota-code L-" in said
    assert said.endswith("--desired-value 1 --region eu-west-1`\n")
    others = {("train",): ("deploy",)}.get(words, ("train",))
    front.allowed(*others)


def test_all_the_machines_of_all_the_jobs_at_once_count(front: Front) -> None:
    front.aws.quota("ml.g5.xlarge for training job usage", 5)
    assert front.allowed("train", "--instance-count", "2", "--parallel", "2")
    said = front.refused("train", "--instance-count", "2", "--parallel", "3")
    assert "is 5 in eu-west-1, 6 needed" in said
    assert "--desired-value 6" in said


def test_all_the_machines_of_an_endpoint_count(front: Front) -> None:
    front.aws.quota("ml.c7i.large for endpoint usage", 3)
    assert front.allowed("deploy", "--instances", "3")[-1].startswith("3 × ml.c7i.large: ")
    assert front.allowed("deploy", "--autoscale", "1..3")
    assert "is 3 in eu-west-1, 4 needed" in front.refused("deploy", "--autoscale", "1..4")
    assert "--desired-value 5" in front.refused("deploy", "--instances", "5")
    assert "--instances 0: write a whole number from 1" in front.refused("deploy", "--instances", "0")


def test_serverless_has_no_quota_of_instances(front: Front) -> None:
    front.aws.quota("ml.c7i.large for endpoint usage", 0)
    front.allowed("deploy", "--mode", "serverless", image=front.put_image("slim", ()))


def test_one_that_cannot_be_read_refuses_nothing(front: Front) -> None:
    front.denied = {"ListServiceQuotas"}
    front.aws.quota("ml.g5.xlarge for training job usage", 0)
    assert front.allowed("train")[0] == (
        "the quota 'ml.g5.xlarge for training job usage' could not be checked (AccessDeniedException: not yours)"
    )
