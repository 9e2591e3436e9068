"""Training and tuning jobs: their channels, their start, their logs."""
