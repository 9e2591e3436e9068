"""The blocks of docs/image.md for SageMaker's SDKs, run against the emulated AWS by each SDK's own environment."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kennel_launch.hosting import specs
from kennel_launch.hosting.specs import EndpointPlan, Source
from kennel_launch.settings import Settings

from ..emulated_aws.client import Aws
from ..emulated_aws.runners import pictures
from .conftest import REPOSITORY, SDK_V3


def block(version: int) -> str:
    """The Python of one version, with a network that trains in seconds."""
    page = (REPOSITORY / "docs" / "image.md").read_text().partition(f"\nVersion {version}")[2]
    code = page.partition("```python\n")[2].partition("```")[0]
    quick, found = re.subn(r'\{"backbone": "resnet50", "epochs": 20\}', repr(pictures.TINY), code)
    assert found == 1
    return quick


@pytest.mark.parametrize("version", [2, 3])
def test_each_sdks_block_trains_and_answers(aws: Aws, programs: Path, tmp_path: Path, version: int) -> None:
    python = Path(sys.executable) if version == 2 else SDK_V3
    if not python.exists():
        pytest.skip(f"there is no {python}: make {SDK_V3.parent.parent}/.ready")
    pictures.photos(tmp_path / "photos", {"train/red": 8, "train/green": 8, "test/red": 2, "test/green": 2})
    for path in (tmp_path / "photos").rglob("*.png"):
        key = path.relative_to(tmp_path).as_posix()
        aws.client("s3").put_object(Bucket=aws.bucket, Key=key, Body=path.read_bytes())
    (tmp_path / "photo.jpg").write_bytes(pictures.photo("red", 99))
    modules = {"TelemetryOptOut": True, "Session": {"DefaultS3Bucket": aws.bucket}}  # else v3 asks the real STS
    settings = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": modules}}}
    (aws.home / "sagemaker.yaml").write_text(json.dumps(settings))
    given = f"image_uri, role = {aws.image!r}, {aws.role!r}\n"
    script = given + block(version).replace("s3://bucket", f"s3://{aws.bucket}")
    done = subprocess.run(
        [python, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        env={**os.environ, **aws.env, "SAGEMAKER_VALIDATE_ROLE": "false", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"red"' in done.stdout
    if version == 3:
        deployed(aws)


def deployed(aws: Aws) -> None:
    """ModelBuilder asked for what `kennel deploy` does, but for names, tags, and two defaults that it says."""
    kinds = ("Model", "EndpointConfig", "Endpoint")
    ((model,), (config,), (endpoint,)) = (aws.asked("sagemaker", f"Create{kind}") for kind in kinds)
    settings, source = Settings(role=aws.role), Source(model["PrimaryContainer"]["ModelDataUrl"], aws.image, "")
    plan = EndpointPlan("pets", "1", specs.REAL_TIME, source, "ml.c6i.large")
    ours = specs.model(plan, settings), specs.endpoint_config(plan, settings), specs.endpoint(plan, settings)
    for request in (model, config, endpoint, *ours):
        request.pop("Tags", None)
    assert model["PrimaryContainer"].pop("Environment") == {}
    assert config["ProductionVariants"][0].pop("InitialVariantWeight") == 1
    named = json.loads(json.dumps(ours).replace(f'"{plan.version}"', '"pets"'))
    assert named == [model, config, endpoint]
