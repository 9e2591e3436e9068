"""Networks of both libraries without their heads, at their own image size and at others."""

import pytest
import torch
import torchvision

from kennel import backbones
from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel.networks import torchvision_models


def random(name, size):
    return backbones.load(name, size, pretrained=False, channel=None, baked=None)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet50", 224),
        ("inception_v3", 299),
        ("efficientnet_b7", 600),
        ("vit_h_14", 518),
        ("test_resnet", 160),
        ("vit_base_patch16_384", 384),
        ("vit_base_patch16_224.augreg_in21k", 224),
        ("deit3_small_patch16_384", 384),
    ],
)
def test_the_own_size_is_what_the_librarys_weights_were_made_for(name, size):
    assert backbones.own_size(name, None) == size


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [
        ("squeezenet1_0", 64, 512),  # its head is a convolution
        ("googlenet", 64, 1024),
        ("vit_tiny_patch16_224", 64, 192),
        ("levit_128s", 96, 384),
        ("resmlp_12_224", 96, 384),
        ("test_vit", 64, 64),
    ],
)
def test_a_network_gives_one_row_of_features_for_each_photo(name, size, width):
    made = random(name, size)
    photos = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        features = Classifier(made, 3).eval().features(photos)
    assert features.shape == (2, made.width) == (2, width)
    assert made.preprocessing.image_size == size
    assert not torch.equal(features[0], features[1])


def test_torchvisions_vision_transformers_take_other_sizes():
    """The smallest of them is large: built without values."""
    with torch.device("meta"):
        module = torchvision_models.find("vit_b_32").build(96, None)
    assert module.encoder.pos_embedding.shape == (1, 10, 768)
    assert isinstance(module, torchvision.models.VisionTransformer)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("maxvit_t", 96, r"backbone 'maxvit_t' cannot take image_size=96 \(.+\): set image_size=224, or choose"),
        ("alexnet", 32, r"backbone 'alexnet' cannot take image_size=32 \(.+\): set image_size=224, or choose"),
        ("resnet5", 64, "hyperparameter backbone='resnet5' is no torchvision or timm model: did you mean 'resnet50"),
        ("qqqqq", 64, "for example resnet50"),
    ],
)
def test_what_cannot_be_is_a_sentence(name, size, said):
    with pytest.raises(UserError, match=said) as caught:
        random(name, size)
    assert "\n" not in str(caught.value)
