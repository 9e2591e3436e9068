"""What a module trains on or is judged on, batch by batch: features in memory, or crops out of the decoded photos.

Which photo is seen when, and how, is a function of (seed, epoch, photo), never of threads, batches or ranks.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kennel.hyperparameters import Hyperparameters
from kennel_train.data import randomness
from kennel_train.data.splits import Split
from kennel_train.distributed.device import Device
from kennel_train.engine import augment, crops

Index = NDArray[np.int64]
_AHEAD = 4  # batches that are made while the device works
EVALUATION_BATCH = {"cpu": 4, "cuda": 256}  # small batches stay in a CPU's cache: lite0 1.65x, ResNet-50 1.14x over 16


@dataclass
class Dataset:
    """This rank's share of one split: item i is photo `index[i]` of all `total`, with label `labels[i]` (int64, (N,)).

    Two indices and no others: `index` is a photo's position in the split, which all ranks share and all randomness is a
    function of; `local` its position in this rank's array. Batches are positions in these two, called items.
    """

    labels: Tensor
    index: Index
    total: int
    device: torch.device
    waited: float = field(default=0.0, init=False)  # seconds that the device waited for batches, so far

    def order(self, seed: int, epoch: int) -> Index:
        """This rank's items in the epoch's order, which is one permutation of all photos, seen by each rank."""
        place = np.empty(self.total, dtype=np.int64)
        place[randomness.order(seed, epoch, self.total)] = np.arange(self.total)
        return np.argsort(place[self.index])

    def training(self, parts: Sequence[Index], seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, labels) on the device for each part of the items, as this epoch sees them."""
        raise NotImplementedError

    def evaluation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, labels) on the device, every item once, in order, as serving sees it."""
        raise NotImplementedError

    def parts(self) -> list[Index]:
        """All items in order, in batches for evaluation."""
        size = EVALUATION_BATCH[self.device.type]
        return [np.arange(at, min(at + size, len(self.index))) for at in range(0, len(self.index), size)]


@dataclass
class FeatureDataset(Dataset):
    """A frozen backbone's output: float32 (N, width), on the device."""

    features: Tensor

    @classmethod
    def joined(cls, first: "FeatureDataset", second: "FeatureDataset") -> "FeatureDataset":
        """Both splits as one: the second's photos are numbered after the first's."""
        labels, features = torch.cat([first.labels, second.labels]), torch.cat([first.features, second.features])
        index = np.concatenate([first.index, first.total + second.index])
        return cls(labels, index, first.total + second.total, first.device, features)

    def training(self, parts: Sequence[Index], seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for part in parts:
            items = torch.from_numpy(part)
            yield self.features[items.to(self.device)], self.labels[items].to(self.device)

    def evaluation(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.features, self.labels.to(self.device)


@dataclass
class CropDataset(Dataset):
    """Decoded photos: item i is `images[local[i]]` of `images`, uint8 (M, R, R, 3) in a memory-mapped file.

    Batches are uint8 (n, 3, side, side) in channels_last, made by threads while the device works; normalization is
    the model's first layer, TrivialAugment runs on the device.
    """

    images: NDArray[np.uint8]
    local: Index
    side: int
    trivial_augment: bool = False
    threads: int = 1  # that cut crops; the result is the same

    @classmethod
    def of(cls, split: Split, hp: Hyperparameters, device: Device) -> "CropDataset":
        """This rank's share of a split."""
        mine = split.mine
        return cls(
            torch.from_numpy(mine.labels),
            split.index,
            len(split.photos),
            device.torch,
            mine.images,
            mine.local,
            side=hp.image_size,
            trivial_augment=hp.trivial_augment,
            threads=device.threads,
        )

    def training(self, parts: Sequence[Index], seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        draws = randomness.draws(seed, epoch, self.total)

        def make(part: Index) -> NDArray[np.uint8]:
            own = draws[self.index[part]]
            return crops.random_resized(self.images, self.local[part], own, self.side, self.threads)

        for part, (photos, labels) in zip(parts, self._ahead(parts, make), strict=True):
            yield augment.trivial(photos, draws[self.index[part]]) if self.trivial_augment else photos, labels

    def evaluation(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._ahead(self.parts(), lambda part: crops.middle(self.images, self.local[part], self.side))

    def _ahead(
        self, parts: Sequence[Index], make: Callable[[Index], NDArray[np.uint8]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order, `_AHEAD` of them under way; what the caller waits for one is added to `waited`."""

        def ready(part: Index) -> Tensor:
            photos = torch.from_numpy(make(part))
            return photos.pin_memory() if self.device.type == "cuda" else photos

        waiting = deque(parts)
        with ThreadPoolExecutor(1) as thread:
            coming = deque(thread.submit(ready, waiting.popleft()) for _ in range(min(_AHEAD, len(waiting))))
            for part in parts:
                started = time.perf_counter()
                photos = coming.popleft().result()
                self.waited += time.perf_counter() - started
                if waiting:
                    coming.append(thread.submit(ready, waiting.popleft()))
                photos = photos.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
                yield photos, self.labels[torch.from_numpy(part)].to(self.device)
