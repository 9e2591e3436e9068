"""The peer: how everyone trains on a folder of photos with torchvision, written as its tutorials write it.

Nothing of Kennel is used here.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

_CROP = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
_NORMALIZE = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
TO_UINT8 = transforms.Compose([*_CROP, transforms.PILToTensor()])
TO_FLOAT = transforms.Compose([*_CROP, *_NORMALIZE])


def load(path: Path, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """What torchvision's ImageFolder does for one photo."""
    with path.open("rb") as file:
        return transform(Image.open(file).convert("RGB"))


def batches(paths: list[Path], transform: Callable[[Image.Image], Tensor], size: int) -> None:
    """An epoch of a DataLoader's work: each batch is stacked, handed over and forgotten."""
    for first in range(0, len(paths), size):
        torch.stack([load(path, transform) for path in paths[first : first + size]])


def frozen_epoch(photos: int, batch_size: int) -> float:
    """Seconds of an epoch of ResNet-50 with a frozen backbone and a new head; random weights, random pixels.

    The input is left out: it is measured by itself.
    """
    model = torchvision.models.resnet50(weights=None)
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.fc = nn.Linear(model.fc.in_features, 133)
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.001, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    inputs, labels = torch.randn(batch_size, 3, 224, 224), torch.randint(133, (batch_size,))
    model.train()
    started = time.perf_counter()
    for _ in range(photos // batch_size):
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started
