"""Blank photos through the network before the first real one is decoded: what cannot work ends here, in a sentence."""

import torch
from torch import Tensor

from kennel import backbones
from kennel.backbones import Classifier
from kennel.errors import UserError
from kennel_train.engine.loop import train_mode


def check(classifier: Classifier, name: str, image_size: int, trained: int, keep_statistics: bool) -> None:
    """A forward pass as evaluation makes it, and one in training mode; the classifier stays as it is, on the CPU.

    Args:
        name: the backbone's.
        trained: photos of the smallest batch that the backbone is trained with, 0 where it stays frozen.
        keep_statistics: batch normalization is trained in evaluation mode.

    Raises:
        UserError: the backbone cannot take photos of this size, or a batch of so few.
    """
    state = {key: value.clone() for key, value in classifier.state_dict().items()}
    try:
        _pass(classifier.eval(), image_size, 1, name)
        if trained:
            train_mode(classifier, keep_statistics)
            with torch.random.fork_rng([]):  # dropout's
                _pass(classifier, image_size, trained, name)
    finally:
        classifier.eval()
        classifier.load_state_dict(state)


@torch.no_grad()
def _pass(classifier: Classifier, image_size: int, count: int, name: str) -> None:
    photos = torch.zeros(count, 3, image_size, image_size, dtype=torch.uint8)
    try:
        logits: Tensor = classifier(photos)
    except Exception as error:  # each architecture raises its own: AssertionError, RuntimeError, ValueError, TypeError
        if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):
            raise UserError(
                f"batch_size={count} with image_size={image_size} leaves the batch normalization of {name!r} one value "
                "a channel, and it needs two: set batch_size=2 or more, or a larger image_size"
            ) from error
        raise UserError(backbones.wrong_size(name, image_size, error)) from error
    if logits.shape != (count, classifier.head.out_features):
        raise UserError(f"backbone {name!r} gives features of a shape that no linear head can take: choose another")
