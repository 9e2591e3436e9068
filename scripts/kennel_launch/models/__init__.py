"""Where a model comes from: the artifact of a job, or the model registry."""
