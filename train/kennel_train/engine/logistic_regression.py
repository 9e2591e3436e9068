"""A probe's head at its optimum: multinomial logistic regression on features, its L2 chosen by cross-validation.

The problem is convex, so it is solved to its end: by torch's L-BFGS, on the GPU where there is one, for one L2 after
another from strong to weak, each from the last one's solution, until held-out photos are judged worse. The heads of the
folds and the head of all photos are columns of one matrix: they share each product with the features. Sums over all
ranks make every rank's step the same. (scikit-learn's solvers know neither GPUs nor ranks, and solve each fold and each
L2 anew.)
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from kennel.errors import UserError
from kennel_train.data import randomness
from kennel_train.distributed.cluster import Cluster
from kennel_train.engine.batches import FeatureDataset, Index

log = logging.getLogger("kennel")
PATH = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001, 1e-4, 1e-5, 1e-6)
BETWEEN = 10**0.5  # then the best one times and by this
FOLDS = 5
MANY = 5000  # training photos from which one fold, a fifth of them, says enough
DEFAULT = 0.1  # where nothing could be held out, or there was no time: the best on three of four sets of photos here
_ELEMENTS = 1 << 22  # of the logits that are held at a time


@dataclass(frozen=True)
class HeldOut:
    """Photos judged by a head that did not learn from them; of this rank."""

    logits: Tensor  # float32 (n, classes), on the CPU
    labels: Tensor  # int64 (n,)
    index: Index  # their positions in the split


class Point(TypedDict):
    """What the held-out photos say of one L2."""

    l2: float
    loss: float  # mean cross-entropy, nats
    accuracy: float


@dataclass(frozen=True)
class Solution:
    """The head of all photos at the L2 that was best on the held-out ones."""

    l2: float
    state: dict[str, Tensor]  # of nn.Linear, on the CPU
    loss: float  # mean weighted cross-entropy on the training photos, nats
    held_out: HeldOut | None  # None where nothing was: the L2 was given
    path: tuple[Point, ...] = ()  # the L2 that were tried, by size


def solve(
    train: FeatureDataset,
    weights: Tensor,
    smoothing: float,
    l2: float,
    seed: int,
    cluster: Cluster,
    over: Callable[[], bool],
) -> Solution:
    """Minimize mean weighted cross-entropy + L2 / 2 x the squared weights; biases are free.

    The L2 is of features that are centred and divided by one number, so that their mean square is 1: 0.1 then means
    much the same for every backbone.

    Args:
        weights: of the classes, float32 (classes,).
        smoothing: share of each label that is spread over all classes.
        l2: 0 chooses it from `PATH` by the cross-entropy of held-out photos.
        over: whether to end with the best so far; asked by all ranks alike after each L2.

    Raises:
        UserError: the features are NaN or infinite.
    """
    problem = _Problem.of(train, weights, smoothing, seed, cluster, folds=0 if l2 else FOLDS)
    held_out: HeldOut | None = None
    path: list[Point] = []
    if not l2 and len(problem.shares) > 1:
        l2, held_out, path = _choose(problem, over)
        if l2 > DEFAULT and cluster.any(over()):  # a path that was cut short at its strong end
            l2, held_out = DEFAULT, None
    l2 = l2 or DEFAULT
    loss = problem.alone().descend(l2, exact=True)
    return Solution(l2, problem.state(), loss, held_out, tuple(sorted(path, key=lambda point: point["l2"])))


def _choose(problem: "_Problem", over: Callable[[], bool]) -> tuple[float, HeldOut, list[Point]]:
    """The L2 with the least cross-entropy of held-out photos: by tens until it grows, then once between.

    The problem ends at that L2's weights.
    """
    best, least, kept = DEFAULT, math.inf, None
    path: list[Point] = []

    def worse(l2: float) -> bool:
        nonlocal best, least, kept
        problem.descend(l2)
        held_out, loss, accuracy = problem.judge()
        log.info("l2=%.2g: held-out photos: loss=%.4f accuracy=%.4f", l2, loss, accuracy)
        path.append({"l2": l2, "loss": loss, "accuracy": accuracy})
        if not loss < least:
            return True
        best, least, kept = l2, loss, (held_out, problem.weight.clone(), problem.bias.clone())
        return False

    for l2 in PATH:
        if worse(l2) or problem.cluster.any(over()):
            break
    middle = best
    for l2 in (middle / BETWEEN, middle * BETWEEN):
        if PATH[-1] <= l2 <= PATH[0] and not problem.cluster.any(over()):
            worse(l2)
    assert kept
    held_out, problem.weight, problem.bias = kept
    return best, held_out, path


@dataclass
class _Problem:
    """`heads` problems side by side: all photos, then all but one fold each. Rows are this rank's photos."""

    features: Tensor  # float32 (n, width), centred and scaled
    labels: Tensor  # int64 (n,)
    fold: Tensor  # int64 (n,): the head that does not learn from it, 0 for none
    index: Index
    center: Tensor  # (width,)
    scale: float
    targets: Tensor  # (classes, classes): a label's row is what its cross-entropy is taken with
    shares: Tensor  # (heads,): one over the weights of all photos that each head learns from
    cluster: Cluster
    weight: Tensor  # (width, heads x classes)
    bias: Tensor  # (heads x classes,)

    @classmethod
    def of(
        cls, train: FeatureDataset, weights: Tensor, smoothing: float, seed: int, cluster: Cluster, folds: int
    ) -> "_Problem":
        device, classes, width = train.device, len(weights), train.features.shape[1]
        moments = torch.cat([train.features.double().sum(0), train.features.double().pow(2).sum(0)])
        count = float(cluster.sum(torch.tensor(float(len(train.index)), dtype=torch.float64)))
        mean, square = (cluster.sum(moments) / count).chunk(2)
        if not moments.isfinite().all():
            raise UserError("the backbone's features are NaN or infinite: its weights are damaged, or another's")
        scale = math.sqrt(max(float((square - mean**2).mean()), 1e-12))
        everyones = cluster.gather((train.index, train.labels.numpy()))
        dealt = _folds(everyones, folds, seed)
        heads = 1 + int(dealt.max(initial=0))
        weights = weights.to(device)
        targets = (1 - smoothing) * torch.diag(weights) + smoothing / classes * weights
        made = cls(
            features=((train.features - mean.float()) / scale),
            labels=train.labels.to(device),
            fold=torch.from_numpy(dealt[train.index]).to(device),
            index=train.index,
            center=mean.float(),
            scale=scale,
            targets=targets,
            shares=torch.ones(heads, device=device),
            cluster=cluster,
            weight=torch.zeros(width, heads * classes, device=device),
            bias=torch.zeros(heads * classes, device=device),
        )
        learned = made._learns(slice(None)) * weights[made.labels][:, None]
        made.shares = 1 / cluster.sum(learned.double().sum(0)).float().clamp(min=1e-12)
        return made

    def alone(self) -> "_Problem":
        """Without the folds: the first head, from where it stands."""
        classes = self._classes
        self.weight, self.bias = self.weight[:, :classes].contiguous(), self.bias[:classes].contiguous()
        self.shares, self.fold = self.shares[:1], torch.zeros_like(self.fold)
        return self

    def descend(self, l2: float, *, exact: bool = False) -> float:
        """From where the weights are to this L2's optimum, or near it; the first head's mean cross-entropy."""
        solver = torch.optim.LBFGS(
            [self.weight, self.bias],
            max_iter=200 if exact else 50,
            history_size=10,
            tolerance_grad=1e-5 if exact else 1e-4,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            losses, self.weight.grad, self.bias.grad = self._gradients()
            self.weight.grad += l2 * self.weight
            return float(losses.sum() + l2 / 2 * self.weight.pow(2).sum())

        solver.step(closure)  # type: ignore[no-untyped-call]
        losses, *_ = self._gradients()  # of where it ended: the line search may have looked further
        return float(losses[0])

    def judge(self) -> tuple[HeldOut, float, float]:
        """Held-out photos, each by the head that has not seen it; mean cross-entropy and accuracy over all ranks."""
        rows = torch.nonzero(self.fold).squeeze(1)
        parts = [
            self._logits(self.features[part])[torch.arange(len(part), device=part.device), self.fold[part]]
            for part in torch.split(rows, self._step)
        ]
        logits = torch.cat([self.bias.new_empty(0, self._classes), *parts])
        labels = self.labels[rows]
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        hits = (logits.argmax(1) == labels).sum()
        sums = torch.stack([losses.double(), hits.double(), torch.tensor(len(rows), device=hits.device).double()])
        loss, right, count = self.cluster.sum(sums).tolist()
        held_out = HeldOut(logits.cpu(), labels.cpu(), self.index[rows.cpu().numpy()])
        return held_out, loss / count, right / count

    def state(self) -> dict[str, Tensor]:
        """The first head, for features as they come."""
        weight = self.weight[:, : self._classes].T / self.scale
        bias = self.bias[: self._classes] - weight @ self.center
        return {"weight": weight.cpu().contiguous(), "bias": bias.cpu()}

    @property
    def _classes(self) -> int:
        return len(self.targets)

    @property
    def _step(self) -> int:
        """Photos at a time."""
        return max(1, _ELEMENTS // len(self.bias))

    def _logits(self, features: Tensor) -> Tensor:
        """(n, heads, classes)."""
        return torch.addmm(self.bias, features, self.weight).view(len(features), -1, self._classes)

    def _learns(self, rows: slice) -> Tensor:
        """(n, heads): 1 where the head learns from the photo."""
        heads = torch.arange(len(self.shares), device=self.fold.device)
        return ((heads == 0) | (heads != self.fold[rows][:, None])).float()

    @torch.no_grad()
    def _gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the mean cross-entropies over all ranks: themselves (heads,), and the sum's by weight and bias."""
        sums = torch.zeros(len(self.shares) + self.weight.numel() + self.bias.numel(), device=self.bias.device)
        losses, weight, bias = torch.split(sums, [len(self.shares), self.weight.numel(), self.bias.numel()])
        weight = weight.view_as(self.weight)
        for at in range(0, len(self.labels), self._step):
            rows = slice(at, at + self._step)
            logs = torch.log_softmax(self._logits(self.features[rows]), dim=2)
            targets = self.targets[self.labels[rows]][:, None]  # (n, 1, classes)
            shares = self._learns(rows) * self.shares
            losses -= (shares * (logs * targets).sum(2)).sum(0)
            slopes = ((logs.exp() * targets.sum(2, keepdim=True) - targets) * shares[:, :, None]).flatten(1)
            weight.addmm_(self.features[rows].T, slopes)
            bias += slopes.sum(0)
        self.cluster.sum(sums)
        return losses.clone(), weight.clone(), bias.clone()


def _folds(everyones: Sequence[tuple[Index, Index]], folds: int, seed: int) -> Index:
    """The fold of each position in the split, from 1; 0 for one that is never held out. Each class is spread evenly.

    Args:
        everyones: (positions, labels) of each rank.
    """
    index, labels = (np.concatenate(column) for column in zip(*everyones, strict=True))
    place = np.zeros(int(index.max(initial=-1)) + 1, dtype=np.int64)
    mixed = randomness.order(seed, 0, len(index))
    mixed = mixed[np.argsort(labels[mixed], kind="stable")]  # of each class in turn, in a random order
    counts = np.bincount(labels)
    dealt = np.arange(len(index)) % FOLDS + 1
    dealt[(counts[labels[mixed]] < 2) | (dealt > (folds if len(index) < MANY else min(folds, 1)))] = 0
    place[index[mixed]] = dealt
    return place
