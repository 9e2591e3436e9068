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
from kennel_train import checkpoint
from kennel_train.device import Device
from kennel_train.inputs import Features, Photos

log = logging.getLogger("kennel")


def extract(classifier: Classifier, photos: Photos, device: Device, hurry: Callable[[], bool]) -> Features:
    """Features of the middle crop of every photo; of those that it came to where `hurry` cut it short.

    Photos are taken in the order in which they come; a caller who may be cut short mixes the classes first.
    """
    classifier.eval()
    started = last = time.monotonic()
    found: list[Tensor] = []
    done = 0
    with torch.inference_mode(), torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16):
        for squares, _ in photos.evaluation():
            found.append(classifier.features(squares).float())
            done += len(squares)
            if hurry():
                break
            if time.monotonic() - last > 10:
                last = time.monotonic()
                log.info("features of %d of %d photos in %.0f s", done, len(photos.ids), last - started)
    features = torch.cat(found).clone()  # a normal tensor again, which autograd may use
    return Features(photos.labels[:done], photos.ids[:done], photos.total, photos.device, features)


def kept(folder: Path, key: str, rank: int, photos: Photos) -> Features | None:
    """What an earlier start of the same job extracted, or None.

    Args:
        key: see `key`; it stands for the backbone, its weights, the preprocessing and the photos.
    """
    found = checkpoint.load(folder, f"features-{key}-{rank:04x}")
    if found is None or not np.array_equal(found["ids"].numpy(), photos.ids):
        return None
    return Features(photos.labels, photos.ids, photos.total, photos.device, found["features"].to(photos.device))


def keep(folder: Path, key: str, rank: int, features: Features) -> None:
    """Put the features beside the checkpoints, for a job that is started again.

    Raises:
        OSError: the disk is full.
    """
    content = {"features": features.features.cpu(), "ids": torch.from_numpy(features.ids)}
    checkpoint.save(folder, f"features-{key}-{rank:04x}", content)


def key(weights: str, settings: object, fingerprint: str) -> str:
    """16 hexadecimal digits for (backbone and weights, preprocessing and precision, data fingerprint)."""
    return hashlib.sha256(f"{weights} {settings} {fingerprint}".encode()).hexdigest()[:16]


def weights_digest(module: nn.Module) -> str:
    """blake2b of all tensors of a module, names included."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
