"""One all-reduce a step, of gradients, losses and statistics together.

One flat buffer instead of DistributedDataParallel, because a rank may have no photo in a step, and because statistics
then agree at every checkpoint.
"""

import torch
from torch import Tensor, nn

from kennel_train.distributed.cluster import Cluster


def share(module: nn.Module, sums: Tensor, cluster: Cluster, stop: bool) -> bool:
    """Add up gradients and `sums` over all ranks and average the statistics, in one transfer; whether any rank stops.

    Afterwards every rank holds the same numbers to the last bit.
    """
    if cluster.world == 1:
        return stop
    targets = [sums]
    for parameter in module.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            targets.append(parameter.grad)
    # Of layers that keep their statistics nothing is exchanged: a third of a number, three times, is not that number.
    learning = [inner for inner in module.modules() if inner.training]
    buffers = [row for inner in learning for row in inner.named_buffers(recurse=False)]
    statistics = [buffer for name, buffer in buffers if name in ("running_mean", "running_var")]
    for statistic in statistics:
        statistic /= cluster.world
    counters = [buffer for name, buffer in buffers if name == "num_batches_tracked"]
    for counter in counters:  # ranks cut their share into more or fewer micro-batches: rank 0's count is everyone's
        counter *= cluster.is_rank_zero
    targets += statistics + counters
    flat = torch.cat([target.reshape(-1) for target in targets] + [sums.new_tensor([float(stop)])])
    cluster.sum(flat)
    at = 0
    for target in targets:
        target.copy_(flat[at : at + target.numel()].view_as(target))
        at += target.numel()
    return bool(flat[-1] > 0)
