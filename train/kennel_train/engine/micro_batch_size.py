"""How many photos fit into memory at once: the optimizer's batch is cut into micro-batches of that size."""

import logging
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kennel import cgroup
from kennel_train.distributed.device import Device

log = logging.getLogger("kennel")
_CPU_LARGEST = 8  # larger ones leave its cache: lite0 41 ms a photo at 8, 52 at 16
_SHARE = {"cpu": 0.5, "cuda": 0.8}  # of what is free; the rest is for the photos on their way and the allocator's holes
_WORK = 2.5  # what a pass takes, as a multiple of what it keeps for its way back; measured on ResNets and lite0: < 1.7
_COPIES = 5  # of the weights, beside them: gradients, two of the optimizer's, a moving average, the best epoch


def micro_batch(
    module: nn.Module, side: int, batch_size: int, device: Device, processes: int, root: Path = cgroup.ROOT
) -> int:
    """Photos of one forward and backward pass, a power of two or `batch_size` itself; the module stays as it is.

    Args:
        module: maps uint8 (N, 3, side, side) to logits, on the device.
        processes: that share a CPU's memory.
        root: of the cgroup's files.

    Raises:
        torch.OutOfMemoryError: not even one photo fits on the GPU.
    """
    kept = _kept_bytes(module, side, device)
    if device.torch.type == "cuda":
        torch.cuda.empty_cache()  # what an earlier stage left there is free, too
        free = torch.cuda.mem_get_info(device.torch)[0]
    else:
        free = cgroup.free_memory_bytes(root) // processes
    free -= _COPIES * sum(p.numel() * p.element_size() for p in module.parameters())
    fits = max(1, int(_SHARE[device.torch.type] * free / (_WORK * kept)))
    largest = min(batch_size, _CPU_LARGEST) if device.torch.type == "cpu" else batch_size
    size = largest if largest <= fits else 2 ** int(math.log2(fits))
    while device.torch.type == "cuda" and size > 1 and not _passes(module, side, size, device):
        size //= 2
    if size < largest:
        log.info("micro-batches of %d photos fit into memory; the optimizer still sees batch_size=%d", size, batch_size)
    return size


def heads_at_once(head: nn.Module, device: Device, processes: int, root: Path = cgroup.ROOT) -> int:
    """How many heads may be trained side by side, at least one; arguments as `micro_batch`'s."""
    gpu = device.torch.type == "cuda"
    free = torch.cuda.mem_get_info(device.torch)[0] if gpu else cgroup.free_memory_bytes(root) // processes
    own = sum(p.numel() * p.element_size() for p in head.parameters())
    return max(1, int(_SHARE[device.torch.type] * free) // ((_COPIES + 3) * own))  # + itself, its part of the product


def _kept_bytes(module: nn.Module, side: int, device: Device) -> int:
    """Bytes a photo that the forward pass keeps for the backward pass, counted by torch's hooks on two photos."""
    own = {p.data_ptr() for p in module.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _forward(module, side, 2, device)
    return max(1, sum(seen.values()) // 2)


def _passes(module: nn.Module, side: int, size: int, device: Device) -> bool:
    """Whether one forward and backward pass fits; there are no gradients before the first step."""
    try:
        _forward(module, side, size, device).backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        return False
    finally:
        module.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    return True


def _forward(module: nn.Module, side: int, size: int, device: Device) -> Tensor:
    """The sum of the logits of blank photos, in training mode; statistics, mode and random numbers stay as they are."""
    photos = torch.zeros(size, 3, side, side, dtype=torch.uint8, device=device.torch)
    photos = photos.contiguous(memory_format=torch.channels_last)
    # Copies for this pass alone: statistics that were put back after it would make its backward pass raise.
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    modes = {inner: inner.training for inner in module.modules()}
    module.train()
    try:
        with (
            torch.random.fork_rng([device.torch] if device.torch.type == "cuda" else []),
            torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16),
        ):
            logits: Tensor = functional_call(module, buffers, (photos,))
    finally:
        for inner, training in modes.items():
            inner.training = training
    return logits.float().sum()
