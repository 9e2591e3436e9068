"""A network and photos so small that a step takes no time, and a loader that takes much."""

import time

import numpy as np
import torch

from kennel_train.engine.batches import CropDataset


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        self.head = torch.nn.Linear(4, 2)

    def forward(self, photos):
        return self.head(self.backbone(photos.float() / 255).mean((2, 3)))


def painted(count: int, kind: type[CropDataset] = CropDataset) -> CropDataset:
    noise = np.random.default_rng(0).integers(0, 120, (count, 16, 16, 3))
    images = (noise + 120 * (np.arange(count) % 2)[:, None, None, None]).astype(np.uint8)
    labels = torch.arange(count) % 2
    return kind(labels, np.arange(count), count, torch.device("cpu"), images, np.arange(count), side=12)


class Sleepy(CropDataset):
    """It takes its time over each batch, and knows how much."""

    slept = 0.0

    def training(self, parts, seed, epoch):
        started = time.perf_counter()
        for batch in super().training(parts, seed, epoch):
            self.slept += time.perf_counter() - started
            yield batch
            started = time.perf_counter()

    def _ahead(self, parts, make):
        def slowly(part):
            time.sleep(0.2)  # far longer than a step takes, be the machine ever so busy
            return make(part)

        return super()._ahead(parts, slowly)
