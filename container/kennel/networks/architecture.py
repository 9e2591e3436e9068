"""What is known of an architecture before it is built; weights into a network; features of any shape as one row."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kennel import weights_files
from kennel.errors import UserError
from kennel.photos.preprocessing import Preprocessing
from kennel.weights_files import Weights

Build = Callable[[int, Weights | None], nn.Module]


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
    eval_transform: tuple[float, str, Any, Any]  # crop ratio, interpolation, mean, std

    def preprocessing(self, image_size: int) -> Preprocessing:
        ratio, kind, mean, std = self.eval_transform
        kind = kind if kind in ("bilinear", "bicubic") else "bicubic"
        return Preprocessing(image_size, max(image_size, round(image_size / ratio)), kind, tuple(mean), tuple(std))


def fill(
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
