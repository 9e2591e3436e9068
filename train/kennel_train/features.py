"""A frozen backbone's output for every photo, computed once: an epoch of a head then costs next to nothing."""

import time
from collections.abc import Callable

import torch

from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel_train.device import Device
from kennel_train.loop import Split, middle

_BATCH = {"cpu": 16, "cuda": 256}  # small batches stay in a CPU's cache


def extract(
    classifier: Classifier,
    photos: Split,
    side: int,
    device: Device,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> Split:
    """Features of the middle crop of every photo, float32 (N, width) on `device`, with the photos' labels.

    Args:
        side: pixels of the crop.

    Raises:
        UserError: stopped before the last photo: there is nothing yet that a head could be trained on.
    """
    classifier.eval()
    started = last = time.monotonic()
    found = []
    with torch.inference_mode(), torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16):
        for rows in torch.split(photos.rows, _BATCH[device.torch.type]):
            if stop():
                raise UserError("the job was stopped before the first epoch, there is no model yet: start it again")
            squares = middle(photos.inputs[rows], side).to(device.torch).contiguous(memory_format=torch.channels_last)
            found.append(classifier.features(squares).float())
            if time.monotonic() - last > 10:
                last = time.monotonic()
                done = sum(map(len, found))
                say(f"features of {done} of {len(photos.rows)} photos in {last - started:.0f} s")
    features = torch.cat(found).clone()  # a normal tensor again, which autograd may use
    return Split(features, torch.arange(len(features)), photos.labels)
