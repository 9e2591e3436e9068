"""The training loop: epoch, step, evaluate, keep the best. It knows neither files nor SageMaker."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kennel import metrics
from kennel.errors import UserError
from kennel.hyperparameters import Hyperparameters
from kennel.metrics import Metric
from kennel_train.device import Device

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Split:
    """What a module trains or is judged on.

    Item i is row `rows[i]` (int64, (N,)) of `inputs`, uint8 photos (M, 3, R, R) or float features (M, width); its
    label is `labels[i]` (int64, (N,)). Photos may lie in a memory-mapped file: they are gathered batch by batch.
    """

    inputs: Tensor
    rows: Tensor
    labels: Tensor

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        return self.inputs[self.rows[index]].to(device), self.labels[index].to(device)


@dataclass
class Best:
    """The best epoch so far: its number, its metrics and its trainable module's state, on the CPU."""

    epoch: int = 0
    values: dict[Metric, float] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)

    def beats(self, values: dict[Metric, float]) -> bool:
        """Whether this epoch is better than `values`: more accuracy, then less loss."""
        return bool(self.state) and _rank(self.values) >= _rank(values)


def fit(
    module: nn.Module,
    train: Split,
    validation: Split,
    hp: Hyperparameters,
    device: Device,
    *,
    crop: int | None,
    stop: Callable[[], bool],
    on_epoch_end: Callable[[int, dict[Metric, float]], None],
) -> Best:
    """Train `module` with SGD under a cosine schedule; the best epoch on `validation` is returned.

    Args:
        crop: pixels of the random crop that is taken from photos (and of the middle one in evaluation); None for
            features.
        stop: asked before every step; the running epoch is then evaluated as it is and is the last.

    Raises:
        UserError: the loss is no number any more.
    """
    generator = torch.Generator().manual_seed(hp.seed)
    batch_size = min(hp.batch_size, len(train.labels))
    steps = math.ceil(len(train.labels) / batch_size)
    optimizer = torch.optim.SGD(
        [p for p in module.parameters() if p.requires_grad],
        lr=hp.learning_rate,
        momentum=hp.momentum,
        weight_decay=hp.weight_decay,
        nesterov=hp.momentum > 0,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, hp.epochs * steps)
    best = Best()
    for epoch in range(1, hp.epochs + 1):
        module.train()
        losses: list[Tensor] = []
        for index in torch.split(torch.randperm(len(train.labels), generator=generator), batch_size):
            if stop():
                break
            if crop and len(index) == 1 < batch_size:
                continue  # batch normalization cannot be trained on one photo
            inputs, labels = train.batch(index, device.torch)
            if crop:
                inputs = random_crop(inputs, crop, generator)
            with torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16):
                loss = cross_entropy(module(inputs), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        values = _epoch_values(module, losses, validation, device, crop, epoch)
        if not best.beats(values):
            best = Best(epoch, values, {key: value.cpu().clone() for key, value in module.state_dict().items()})
        on_epoch_end(epoch, values)
        if stop():
            break
    return best


def evaluate(module: nn.Module, split: Split, device: Device, crop: int | None) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy 0–1) of a module on a split, the middle crop of its photos."""
    module.eval()
    loss, hits = 0.0, 0
    with torch.inference_mode(), torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16):
        for index in torch.split(torch.arange(len(split.labels)), EVALUATION_BATCH):
            inputs, labels = split.batch(index, device.torch)
            logits = module(middle(inputs, crop) if crop else inputs).float()
            loss += float(cross_entropy(logits, labels, reduction="sum"))
            hits += int((logits.argmax(1) == labels).sum())
    return loss / len(split.labels), hits / len(split.labels)


def middle(photos: Tensor, side: int) -> Tensor:
    """The middle square, the one that `kennel.preprocessing.square` cuts: (N, 3, R, R) -> (N, 3, side, side)."""
    edge = (photos.shape[-1] - side) // 2
    return photos[..., edge : edge + side, edge : edge + side]


def random_crop(photos: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """One random square per photo, mirrored half of the time: (N, 3, R, R) -> (N, 3, side, side).

    `generator` lives on the CPU, so that a seed means the same on every device.
    """
    room = photos.shape[-1] - side + 1
    corners = torch.randint(room, (len(photos), 2), generator=generator).tolist()
    mirrored = (torch.rand(len(photos), generator=generator) < 0.5).tolist()
    cut = []
    for photo, (top, left), flip in zip(photos, corners, mirrored, strict=True):
        square = photo[:, top : top + side, left : left + side]
        cut.append(square.flip(2) if flip else square)
    return torch.stack(cut)


def _epoch_values(
    module: nn.Module, losses: list[Tensor], validation: Split, device: Device, crop: int | None, epoch: int
) -> dict[Metric, float]:
    train_loss = float(torch.stack(losses).mean()) if losses else math.nan
    loss, accuracy = evaluate(module, validation, device, crop)
    if losses and not (math.isfinite(train_loss) and math.isfinite(loss)):
        raise UserError(f"the loss is no number any more in epoch {epoch}: lower learning_rate")
    values = {metrics.VALIDATION_LOSS: loss, metrics.VALIDATION_ACCURACY: accuracy}
    return {metrics.TRAIN_LOSS: train_loss, **values} if losses else values


def _rank(values: dict[Metric, float]) -> tuple[float, float]:
    return values[metrics.VALIDATION_ACCURACY], -values[metrics.VALIDATION_LOSS]
