"""torchvision's classifiers: their own image size and preprocessing, built for a size without their head."""

import functools
import re
import warnings
from typing import Any

import torchvision
from torch import Tensor, nn

from kennel.networks import architecture
from kennel.networks.architecture import Architecture
from kennel.weights_files import Weights


def names() -> list[str]:
    found: list[str] = torchvision.models.list_models(module=torchvision.models)
    return found


def find(name: str) -> Architecture:
    published = torchvision.models.get_model_weights(name).DEFAULT
    eval_ = published.transforms()
    crop, resize = eval_.crop_size[0], eval_.resize_size[0]

    def build(image_size: int, weights: Weights | None) -> nn.Module:
        sized: dict[str, Any] = {}
        if name.startswith("vit_"):
            sized = {"image_size": image_size}
        elif name.startswith("maxvit"):
            sized = {"input_size": (image_size, image_size)}
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # Inception's, of its random weights
            module = _headless(torchvision.models.get_model(name, weights=None, **sized))
        if weights is not None:
            architecture.fill(module, weights, name, (_densenet,), (image_size if sized else crop, crop))
        return module

    return Architecture(
        name,
        "torchvision",
        crop,
        build,
        lambda: dict(published.get_state_dict(progress=False, check_hash=True)),
        str(published),
        (crop / resize, eval_.interpolation.value, eval_.mean, eval_.std),
    )


def _headless(module: nn.Module) -> nn.Module:
    """torchvision's network with its last linear layer, or SqueezeNet's last convolution, replaced by the identity."""
    inner = list(module.named_modules())
    heads = [path for path, m in inner if isinstance(m, nn.Linear)] or [p for p, m in inner if isinstance(m, nn.Conv2d)]
    parent, _, leaf = heads[-1].rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Identity())
    for auxiliary in ("AuxLogits", "aux1", "aux2"):  # Inception's second heads, which answer in training mode too
        if hasattr(module, auxiliary):
            # transform_input is what their pretrained weights want; always, or a network that is rebuilt from trained
            # weights would see other pixels
            vars(module).update(aux_logits=False, transform_input=True)
            setattr(module, auxiliary, None)
    if isinstance(module, torchvision.models.MNASNet):
        # its own wants the version that torch.save keeps beside a state dict, and safetensors does not
        vars(module)["_load_from_state_dict"] = functools.partial(nn.Module._load_from_state_dict, module)
    return module


def _densenet(state: dict[str, Tensor], _: nn.Module) -> dict[str, Tensor]:
    """torchvision's published DenseNets are of a time when a module's name could hold a dot."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", key): value for key, value in state.items()}
