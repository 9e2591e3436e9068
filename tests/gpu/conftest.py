"""What only a GPU can show: skipped, with the reason, where there is none. `make test-gpu` is the one command."""

import os
import tempfile

import pytest

# sagemaker_training reads this at import, and creates folders in the user's home without it.
os.environ.setdefault("SAGEMAKER_BASE_DIR", tempfile.mkdtemp(prefix="kennel-test-"))


@pytest.fixture(scope="session", autouse=True)
def gpu():
    """The card's name."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return torch.cuda.get_device_name(0)
