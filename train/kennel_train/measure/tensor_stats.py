"""A few numbers for each layer of a network, cheap enough to be taken beside its training. Judges nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

SAMPLE = 4096  # elements of a gradient that its percentiles are taken from: sorting all would cost more than a step

_ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus),
)


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Mean of absolute values and Euclidean norm of each tensor: float32 (2, n), on their device."""
    counts = torch.tensor([tensor.numel() for tensor in tensors], dtype=torch.float32, device=tensors[0].device)
    absolute, euclidean = (torch.stack(torch._foreach_norm(list(tensors), order)).float() for order in (1, 2))
    return torch.stack([absolute / counts, euclidean])


def spread(tensor: Tensor) -> Tensor:
    """95th less 5th percentile of a tensor's elements, or of `SAMPLE` of them at equal distances: a scalar."""
    flat = tensor.detach().reshape(-1)
    flat = flat[:: -(-flat.numel() // SAMPLE)].float()
    ends = torch.quantile(flat, torch.tensor([0.05, 0.95], device=flat.device))
    return ends[1] - ends[0]


class ActivationInputs:
    """The variance of what each activation function takes in, while `listening`, until `close`."""

    def __init__(self, module: nn.Module) -> None:
        self.listening = False
        self._found: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for name, inner in module.named_modules():
            if isinstance(inner, _ACTIVATIONS):
                self._handles.append(inner.register_forward_pre_hook(self._keep(name)))

    def take(self) -> dict[str, Tensor]:
        """Scalars by layer since the last call; a layer that one forward uses twice has two, the second `name:1`."""
        found, self._found = self._found, {}
        return found

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, name: str):  # type: ignore[no-untyped-def]  # torch's own type of a hook is a union of callables
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if not self.listening:
                return
            key, again = name, 0
            while key in self._found:
                again += 1
                key = f"{name}:{again}"
            self._found[key] = args[0].detach().float().var(correction=0)

        return hook
