"""What the commands take from the environment. Nothing else in this package reads it."""

import os

_PLATFORM = ("SAGEMAKER_", "SM_", "TRAINING_JOB_", "AWS_EXECUTION_ENV")


def docker() -> str:
    """The docker client: `DOCKER`, as in the Makefile."""
    return os.environ.get("DOCKER") or "docker"


def child(**extra: str) -> dict[str, str]:
    """The environment of a job or an endpoint that is started here: the caller's own, less what SageMaker left in it.

    A notebook on SageMaker sets variables that its containers would take for their own job's.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith(_PLATFORM)} | extra
