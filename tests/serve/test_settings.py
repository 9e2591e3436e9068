"""What follows from CPUs and memory; the environment's own checks are seen in test_lifecycle."""

import dataclasses
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel_serve import settings

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
    chosen = dataclasses.replace(settings.read(), workers=asked)
    limits = settings.limits(chosen, cpus, 0, memory)
    share = settings.share(chosen, limits, "int8", model, memory)
    assert (share.workers, share.batch_size, share.batch_delay_ms) == (expected, 1, 0)
    assert limits.heap_bytes <= memory // 4
    assert limits.cpus == cpus


@pytest.mark.parametrize(
    ("environ", "engine", "expected"),
    [
        ({}, "torch", (4, 32, 2)),  # two workers for each GPU, batches
        ({}, "int8", (8, 1, 0)),
        ({"KENNEL_BATCH_SIZE": "4", "KENNEL_BATCH_DELAY_MS": "0"}, "torch", (4, 4, 0)),
        ({"KENNEL_BATCH_SIZE": "4", "KENNEL_BATCH_DELAY_MS": "5"}, "fp32", (8, 4, 5)),
    ],
)
def test_workers_and_batches_where_there_are_gpus(monkeypatch, environ, engine, expected):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    chosen = settings.read()
    limits = settings.limits(chosen, 8, 2, 64 * GB)
    share = settings.share(chosen, limits, engine, 100 << 20, 64 * GB)
    assert limits.gpus == 2
    assert (share.workers, share.batch_size, share.batch_delay_ms) == expected


def test_gpus_are_counted_by_their_devices(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert settings.gpus(tmp_path) == 2
    assert settings.gpus(tmp_path / "absent") == 0


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, 3), ("", 0), ("-1", 0), ("0,1", 2), ("2", 1), ("1,-1,2", 1), ("GPU-5d6b, GPU-77aa", 2), ("0,1,2,3", 3)],
)
def test_gpus_that_cuda_is_not_to_see_are_not_counted(tmp_path, visible, expected):
    for name in ("nvidia0", "nvidia1", "nvidia2"):
        (tmp_path / name).touch()
    assert settings.gpus(tmp_path, visible) == expected


@pytest.mark.parametrize(("minutes", "seconds"), [("1440", 86400), ("3600", 86400), ("86400", 86400)])
def test_a_timeout_as_aws_sets_it_starts(monkeypatch, minutes, seconds):
    """JumpStart's models and most samples set 3600, and mean seconds."""
    monkeypatch.setenv("SAGEMAKER_MODEL_SERVER_TIMEOUT", minutes)
    assert settings.read().response_seconds == seconds


@pytest.mark.parametrize(
    "name", ["KENNEL_REQUEST_LOG", "SAGEMAKER_MULTI_MODEL", "KENNEL_INSTALL_REQUIREMENTS", "SAGEMAKER_BATCH"]
)
def test_a_switch_that_is_neither_true_nor_false_is_named(monkeypatch, name):
    monkeypatch.setenv(name, "ja")
    with pytest.raises(UserError, match=f"{name}='ja': write true or false, or leave it out"):
        settings.read()
    monkeypatch.setenv(name, " False")
    settings.read()


def test_what_a_bad_photo_of_a_list_fails(monkeypatch):
    assert settings.read().on_error == "request"
    monkeypatch.setenv("KENNEL_ON_ERROR", " Line")
    assert settings.read().on_error == "line"
    monkeypatch.setenv("KENNEL_ON_ERROR", "skip")
    with pytest.raises(UserError, match=r"KENNEL_ON_ERROR='skip': write request or line, or leave it out"):
        settings.read()


def test_variables_that_are_misspelt_are_named():
    assert settings.unknown({"KENNEL_BATCHSIZE": "8", "KENNEL_ENGINE": "int8", "PATH": "", "KENNEL_XYZ": ""}) == [
        "warning: the variable KENNEL_BATCHSIZE is not known and does nothing: did you mean 'KENNEL_BATCH_SIZE'?",
        "warning: the variable KENNEL_XYZ is not known and does nothing",
    ]


def test_a_relative_base_folder_is_made_absolute(monkeypatch):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", "some/ml")
    assert settings.read().layout.base == Path("some/ml").absolute()


def test_defaults_and_units(monkeypatch):
    for name in settings._BOUNDS:
        monkeypatch.delenv(name, raising=False)
    chosen = settings.read()
    assert (chosen.port, chosen.workers, chosen.response_seconds, chosen.max_bytes) == (8080, None, 30, 25 << 20)
    monkeypatch.setenv("SAGEMAKER_MODEL_SERVER_TIMEOUT", "2")
    assert settings.read().response_seconds == 120  # minutes
    monkeypatch.setenv("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "7")
    assert settings.read().response_seconds == 7
