"""A frozen backbone's output for every photo, computed once: an epoch of a head then costs next to nothing."""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kennel.backbones import Classifier
from kennel_train.distributed.device import Device
from kennel_train.engine import checkpoint
from kennel_train.engine.batches import CropDataset, FeatureDataset

log = logging.getLogger("kennel")
BF16_ERROR = 0.03  # of the features' norm; bf16 itself rounds by 0.4%, fifty layers of it come to 1 or 2


def extract(classifier: Classifier, photos: CropDataset, device: Device, hurry: Callable[[], bool]) -> FeatureDataset:
    """Features of the middle crop of every photo; of those that it came to where `hurry` cut it short.

    Photos are taken in the order in which they come; a caller who may be cut short mixes the classes first.
    """
    classifier.eval()
    started = last = time.monotonic()
    found: list[Tensor] = []
    done = 0
    bf16 = device.bf16
    with torch.inference_mode():
        for squares, _ in photos.evaluation():
            bf16 = bf16 and (bool(found) or _agrees(classifier, squares, device))
            with torch.autocast(device.torch.type, torch.bfloat16, enabled=bf16):
                found.append(classifier.features(squares).float())
            done += len(squares)
            if hurry():
                break
            if time.monotonic() - last > 10:
                last = time.monotonic()
                log.info("features of %d of %d photos in %.0f s", done, len(photos.index), last - started)
    empty = torch.empty(0, classifier.head.in_features, device=device.torch)  # of several processes one may have none
    features = torch.cat([empty, *found]).clone()  # a normal tensor again, which autograd may use
    return FeatureDataset(photos.labels[:done], photos.index[:done], photos.total, photos.device, features)


def _agrees(classifier: Classifier, squares: Tensor, device: Device) -> bool:
    """Whether bf16 gives the first batch nearly the features that float32 gives it."""
    exact = classifier.features(squares)
    with torch.autocast(device.torch.type, torch.bfloat16):
        error = float((classifier.features(squares).float() - exact).norm() / exact.norm())
    if not error <= BF16_ERROR:
        log.info("features in float32: bf16 differs by %.1f%%", 100 * error)
    return error <= BF16_ERROR


def kept(folder: Path, key: str, rank: int, photos: CropDataset) -> FeatureDataset | None:
    """What an earlier start of the same job extracted, or None.

    Args:
        key: what `key` gives, a hyphen and the split's name in hexadecimal digits.
    """
    found = checkpoint.load(folder, f"features-{key}-{rank:04x}")
    if found is None or not np.array_equal(found["ids"].numpy(), photos.index):
        return None
    return FeatureDataset(photos.labels, photos.index, photos.total, photos.device, found["features"].to(photos.device))


def keep(folder: Path, key: str, rank: int, features: FeatureDataset) -> None:
    """Put the features beside the checkpoints, for a job that is started again; those of other settings go.

    Raises:
        OSError: the disk is full.
    """
    stem = f"features-{key}-{rank:04x}"
    content = {"features": features.features.cpu(), "ids": torch.from_numpy(features.index)}
    written = checkpoint.save(folder, stem, content)
    ours = f"features-{key.partition('-')[0]}-"
    for path in [*folder.glob("features-*.pt"), *folder.glob(".features-*.partial")]:
        name = path.name.removeprefix(".")
        if path != written and (name.startswith(f"{stem}.") or not name.startswith(ours)):
            path.unlink(missing_ok=True)


def offer(folder: Path, key: str, rank: int, features: FeatureDataset) -> None:
    """Put the features where the next job of a warm pool finds them; one warning where that fails."""
    try:
        keep(folder, key, rank, features)
    except OSError as error:
        log.warning("warning: features could not be kept for the next job in %s: %s", folder, error.strerror)


def key(weights: str, settings: object, order: str) -> str:
    """16 hexadecimal digits for (backbone and weights, preprocessing and precision, the photos in their order)."""
    return hashlib.sha256(f"{weights} {settings} {order}".encode()).hexdigest()[:16]


def weights_digest(module: nn.Module) -> str:
    """blake2b of all tensors of a module, names included."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
