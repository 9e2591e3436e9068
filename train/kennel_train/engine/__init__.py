"""The training loop and what it is made of: batches, crops, augmentation, optimizer, checkpoints, strategies."""
