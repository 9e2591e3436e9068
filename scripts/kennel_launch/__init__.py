"""What a laptop runs: the `kennel` command for SageMaker, and what `make` calls. Needs no torch."""
