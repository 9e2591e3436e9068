"""What goes into the build context, what an image's layers weigh, and train-local's settings."""

import re
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel_launch.make import build, layers, local

from ..conftest import REPOSITORY


def test_weights_are_staged_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "mine", tmp_path / "weights"
    source.mkdir()
    target.mkdir()
    (target / "old.pth").write_text("old")
    (source / "resnet50.safetensors").write_text("new")
    (source / "notes.txt").write_text("secret")
    build.stage_weights(source, target)
    assert [path.name for path in target.iterdir()] == ["resnet50.safetensors"]
    build.stage_weights(target, target)
    assert [path.name for path in target.iterdir()] == ["resnet50.safetensors"]
    build.stage_weights(None, target)
    assert list(target.iterdir()) == []


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="WEIGHTS="):
        build.stage_weights(tmp_path, tmp_path / "weights")


@pytest.mark.parametrize(("target", "argument"), [("image", "BASE_IMAGE"), ("serve-cpu", "SERVE_BASE_IMAGE")])
def test_each_target_has_a_base_of_its_own(tmp_path: Path, target: str, argument: str) -> None:
    client = tmp_path / "docker"
    client.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    client.chmod(0o755)
    build.build(str(client), "kennel:test", target, "debian:12")
    asked = (tmp_path / "asked").read_text()
    assert f"--target {target} --build-arg {argument}=debian:12 " in asked
    assert asked.endswith("-t kennel:test .\n")


def test_the_dockerfile_has_each_target_and_the_whole_image_is_the_default() -> None:
    text = (REPOSITORY / "docker" / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    assert set(build.BASES) <= {name for _, name in stages}
    assert stages[-1][1] == "image"
    assert re.findall(r"^ARG (\w+)=", text, re.MULTILINE) == list(build.BASES.values())


def test_the_table_of_layers() -> None:
    rows = [
        {"Size": "0", "CreatedBy": 'ENTRYPOINT ["python3"]'},
        {"Size": "2500000000", "CreatedBy": "RUN |1 BASE_IMAGE=x /bin/sh -c pip install   all # buildkit"},
        {"Size": "12", "CreatedBy": "COPY container /code # buildkit"},
        {"Size": "173000000", "CreatedBy": ""},
    ]
    assert layers.table("kennel:dev", rows).splitlines() == [
        "    173.0 MB  the base",
        "      0.0 MB  COPY container /code",
        "   2500.0 MB  pip install all",
        "   2673.0 MB  kennel:dev",
    ]


def test_hyperparameters_of_train_local() -> None:
    assert local.settings_of("epochs=5  learning_rate=0.01") == {"epochs": "5", "learning_rate": "0.01"}
    with pytest.raises(UserError, match="'epochs' has no value"):
        local.settings_of("epochs 5")
