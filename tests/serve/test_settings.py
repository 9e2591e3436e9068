"""What follows from CPUs and memory; the environment's own checks are seen in test_lifecycle."""

import pytest

from kennel.layout import Layout
from kennel_serve import settings
from kennel_serve.settings import Settings

GB = 1 << 30


@pytest.mark.parametrize(
    ("cpus", "memory", "model", "asked", "expected"),
    [
        (4, 16 * GB, 100 << 20, None, 4),  # one per CPU
        (16, 4 * GB, 100 << 20, None, 6),  # as many as memory holds
        (8, GB, 900 << 20, None, 1),  # never none
        (2, 16 * GB, 0, 7, 7),  # the user knows better
    ],
)
def test_workers(cpus, memory, model, asked, expected):
    chosen = Settings(Layout(), 8080, asked, 60, 600, 25 << 20, "application/json", "")
    limits = settings.limits(chosen, model, cpus, memory)
    assert limits.workers == expected
    assert limits.heap_bytes <= memory // 4
    assert limits.cpus == cpus


def test_defaults_and_units(monkeypatch):
    for name in settings._BOUNDS:
        monkeypatch.delenv(name, raising=False)
    chosen = settings.read({})
    assert (chosen.port, chosen.workers, chosen.response_seconds, chosen.max_bytes) == (8080, None, 60, 25 << 20)
    monkeypatch.setenv("SAGEMAKER_MODEL_SERVER_TIMEOUT", "2")
    assert settings.read({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}).response_seconds == 120  # minutes
    monkeypatch.setenv("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "7")
    assert settings.read({"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "7"}).response_seconds == 7
