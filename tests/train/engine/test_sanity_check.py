"""What a backbone cannot take is said before any photo is decoded; what it can be made to take is taken."""

import pytest
import torch

from kennel import backbones
from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel_train.engine.sanity_check import check


def made(name, size):
    return Classifier(backbones.load(name, size, False, None, None), 3)


@pytest.mark.parametrize(
    ("name", "size"),
    [("vit_tiny_patch16_224", 96), ("test_vit", 64), ("test_resnet", 64), ("swin_tiny_patch4_window7_224", 96)],
)
def test_transformers_are_made_for_the_image_size(name, size):
    classifier = made(name, size)
    check(classifier, name, size, 2, False)
    with torch.no_grad():
        assert classifier.eval()(torch.zeros(2, 3, size, size, dtype=torch.uint8)).shape == (2, 3)


def test_the_check_changes_nothing():
    classifier = made("test_resnet", 64)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    random = torch.random.get_rng_state()
    check(classifier, "test_resnet", 64, 2, False)
    assert all(torch.equal(before[key], value) for key, value in classifier.state_dict().items())
    assert torch.equal(random, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_dropped(name):
    check(made(name, 96), name, 96, 2, False)


def test_a_batch_of_one_where_statistics_need_two():
    classifier = made("resnet18", 32)
    with pytest.raises(UserError, match=r"batch_size=1 with image_size=32 .* set batch_size=2 or more"):
        check(classifier, "resnet18", 32, 1, False)
    check(classifier, "resnet18", 32, 1, True)
