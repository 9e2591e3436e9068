"""The processes of one job: ranks, and collectives over them (no-ops where there is one process)."""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # for the slowest rank in a step
WHOLE = timedelta(days=28)  # SageMaker's longest job: one host may decode for hours, and rank 0 exports alone


@dataclass(frozen=True)
class Cluster:
    """This process among `world`; `local` is its number on its host, which runs `local_world` of them."""

    rank: int = 0
    world: int = 1
    local: int = 0
    local_world: int = 1
    slow: Any = field(default=None, compare=False)  # the process group that waits for as long as a job may take

    @classmethod
    def join(cls, patience: timedelta = PATIENCE) -> "Cluster":
        """The cluster that torchrun's environment speaks of, joined: NCCL where there are GPUs, else gloo.

        Args:
            patience: how long a rank waits for another one in a step.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=patience)
        slow = dist.new_group(backend="gloo", timeout=WHOLE)
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        rank, world, local, local_world = (int(os.environ[name]) for name in names)
        return cls(rank, world, local, local_world, slow)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this rank writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, word: bool) -> bool:
        """Whether any rank says so."""
        return bool(self.sum(torch.tensor(float(word))) > 0)

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in the order of ranks; the slowest may take hours to come here."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self.slow)
        return found

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def leave(self) -> None:
        """Wait for the slowest rank, which is the one that writes: should it fail, all others fail with it."""
        self.gather(None)
        if self.world > 1:
            dist.destroy_process_group()
