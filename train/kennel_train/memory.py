"""How many photos fit into memory at once: the optimizer's batch is cut into micro-batches of that size."""

import logging
import math

import torch
from torch import Tensor, nn

from kennel import cgroup
from kennel_train.device import Device

log = logging.getLogger("kennel")
_CPU_LARGEST = 32  # larger ones leave a CPU's cache and are no faster
_SHARE = {"cpu": 0.5, "cuda": 0.8}  # of what is free; the rest is for the photos on their way and the allocator's holes
_WORK = 2.5  # gradients and temporaries, as a multiple of what the backward pass keeps; ResNet-50 and lite0 need < 2


def micro_batch(module: nn.Module, side: int, batch_size: int, device: Device, processes: int) -> int:
    """Photos of one forward and backward pass, a power of two or `batch_size` itself.

    Args:
        module: maps uint8 (N, 3, side, side) to logits, on the device.
        processes: that share a CPU's memory.

    Raises:
        torch.OutOfMemoryError: not even one photo fits on the GPU.
    """
    kept = _kept_bytes(module, side, device)
    if device.torch.type == "cuda":
        free = torch.cuda.mem_get_info(device.torch)[0]
        free -= 3 * sum(p.numel() * p.element_size() for p in module.parameters())  # gradients and optimizer
    else:
        free = cgroup.free_memory_bytes() // processes
    fits = max(1, int(_SHARE[device.torch.type] * free / (_WORK * kept)))
    largest = min(batch_size, _CPU_LARGEST) if device.torch.type == "cpu" else batch_size
    size = largest if largest <= fits else 2 ** int(math.log2(fits))
    while device.torch.type == "cuda" and size > 1 and not _passes(module, side, size, device):
        size //= 2
    if size < largest:
        log.info("micro-batches of %d photos fit into memory; the optimizer still sees batch_size=%d", size, batch_size)
    return size


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
    """Whether one forward and backward pass fits; the module's gradients and statistics are left as they were."""
    try:
        _forward(module, side, size, device).backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        return False
    finally:
        module.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    return True


def _forward(module: nn.Module, side: int, size: int, device: Device) -> Tensor:
    """The sum of the logits of blank photos, in training mode; running statistics are put back."""
    photos = torch.zeros(size, 3, side, side, dtype=torch.uint8, device=device.torch)
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.train()
    try:
        with torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16):
            logits: Tensor = module(photos.contiguous(memory_format=torch.channels_last))
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
    return logits.float().sum()
