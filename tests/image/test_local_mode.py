"""The SageMaker SDK's local mode, v2: Estimator.fit, then Model.deploy and predict, as a user's notebook does it."""

import gc
import os
import shutil
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kennel_launch.machine.http_probe import free_port

from .conftest import answers

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the SDK's own
    pytest.mark.skipif(shutil.which("docker-compose") is None, reason="local mode needs docker-compose"),
]
ROLE = "arn:aws:iam::111111111111:role/service-role/any"
CONFIG = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_remains: None) -> Iterator[Any]:
    """A local session that needs neither AWS nor a network; it finds the tests' docker client first on PATH."""
    client = shutil.which(os.environ.get("DOCKER", "docker"))
    assert client is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(client)
    for name, value in {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import boto3
        from sagemaker.local import LocalSession
    made = LocalSession(boto3.Session(region_name="eu-west-1"), sagemaker_config=CONFIG)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    made.config = {"local": {"local_code": True, "serving_port": free_port(), "container_root": str(scratch)}}
    yield made
    gc.collect()  # the SDK leaves pipes open; let them go here, not in a later test, where a warning is an error


def test_fit_deploy_predict(session: Any, image: str, photos: Path, hyperparameters: dict, tmp_path: Path) -> None:
    from sagemaker.deserializers import JSONDeserializer
    from sagemaker.estimator import Estimator
    from sagemaker.model import Model
    from sagemaker.predictor import Predictor
    from sagemaker.serializers import IdentitySerializer

    estimator = Estimator(
        image,
        ROLE,
        instance_count=1,
        instance_type="local",
        hyperparameters={**hyperparameters, "epochs": 30, "learning_rate": 0.03},
        output_path=f"file://{tmp_path / 'output'}",
        sagemaker_session=session,
    )
    estimator.fit({"train": f"file://{photos}"})
    assert Path(estimator.model_data.removeprefix("file://")).name == "model.tar.gz"

    model = Model(image, model_data=estimator.model_data, role=ROLE, predictor_cls=Predictor, sagemaker_session=session)
    predictor = model.deploy(
        1,
        "local",
        serializer=IdentitySerializer("image/jpeg"),
        deserializer=JSONDeserializer(),
    )
    port = session.config["local"]["serving_port"]
    try:
        for label in ("red", "green", "blue"):
            answer = predictor.predict((photos / label / "1.jpg").read_bytes())
            assert answer["predictions"][0]["label"] == label
    finally:
        predictor.delete_endpoint()
    assert not answers(port)


SCRIPT = """
import argparse, os, pathlib
import torch.distributed as dist
parser = argparse.ArgumentParser()
parser.add_argument("--depth", type=int)
parser.add_argument("--fail", default="")
options = parser.parse_args()
if os.environ.get("WORLD_SIZE"):
    dist.init_process_group("gloo")
    dist.barrier()
    dist.destroy_process_group()
if options.fail:
    raise ValueError(options.fail)
photos = len(list(pathlib.Path(os.environ["SM_CHANNEL_TRAIN"]).rglob("*.jpg")))
says = f"{options.depth} deep, {photos} photos, rank {os.environ.get('RANK')}"
pathlib.Path(os.environ["SM_MODEL_DIR"], "said.txt").write_text(says)
"""


@pytest.fixture
def script(session: Any, image: str, tmp_path: Path) -> Callable[..., Any]:
    """`script(distribution, **hyperparameters)`: an estimator with a user's own script and its folder."""
    from sagemaker.pytorch import PyTorch

    source = tmp_path / "source"
    source.mkdir()
    (source / "mine.py").write_text(SCRIPT)

    def made(distribution: dict | None, **hyperparameters: object) -> Any:
        return PyTorch(
            entry_point="mine.py",
            source_dir=str(source),
            image_uri=image,
            role=ROLE,
            instance_count=1,
            instance_type="local",
            hyperparameters=hyperparameters,
            distribution=distribution,
            output_path=f"file://{tmp_path / 'output'}",
            sagemaker_session=session,
        )

    return made


@pytest.mark.parametrize(
    ("distribution", "rank"), [(None, None), ({"torch_distributed": {"enabled": True}}, 0)], ids=["python", "torchrun"]
)
def test_a_users_script_trains_in_this_image(
    script: Callable[..., Any], photos: Path, tmp_path: Path, distribution: dict | None, rank: int | None
) -> None:
    estimator = script(distribution, depth=3)
    estimator.fit({"train": f"file://{photos}"})
    with tarfile.open(estimator.model_data.removeprefix("file://")) as archive:
        said = archive.extractfile("said.txt")
        assert said is not None
        assert said.read().decode() == f"3 deep, 30 photos, rank {rank}"


def test_a_users_script_that_fails_says_why(
    script: Callable[..., Any], photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="exited with code: 1"):
        script(None, fail="no such luck").fit({"train": f"file://{photos}"})
    assert "mine.py failed: ValueError: no such luck (mine.py:13, in <module>)" in capfd.readouterr().out
