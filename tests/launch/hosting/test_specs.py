"""`kennel deploy` and `transform` send what versions 2 and 3 of SageMaker's SDK send, but for what is listed here."""

import inspect
from dataclasses import asdict, replace
from typing import Any

import pytest

from kennel_launch import settings as kennel_settings
from kennel_launch.aws import session
from kennel_launch.commands import transform
from kennel_launch.hosting import specs
from kennel_launch.hosting.specs import EndpointPlan, Source
from kennel_launch.sdks import v2
from kennel_launch.settings import Settings

from ..sdks import printed, run_v3

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("credentials")]  # warnings: the SDK's own
SETTINGS = Settings(
    role="arn:aws:iam::123456789012:role/kennel",
    region="eu-west-1",
    bucket="photos",
    image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/kennel:dev",
    endpoint_instance_type="ml.m5.xlarge",
)
INSIDE = replace(SETTINGS, subnets=("subnet-1",), security_groups=("sg-1",), kms_key="key", tags={"team": "vision"})
DATA = "s3://photos/kennel/jobs/pets/output/model.tar.gz"
PLAN = EndpointPlan("pets", "pets-1", specs.REAL_TIME, Source(DATA, SETTINGS.image, ""), "ml.m5.xlarge")
PLANS = {
    "plain": (SETTINGS, PLAN),
    "inside": (INSIDE, replace(PLAN, instances=2)),
    "serverless": (SETTINGS, replace(PLAN, mode=specs.SERVERLESS, instance_type="", memory=4096, concurrency=3)),
    "ami": (SETTINGS, replace(PLAN, ami={"InferenceAmiVersion": "al2-ami-sagemaker-inference-gpu-3-1"})),
    "capture": (SETTINGS, replace(PLAN, capture=10)),
}


def ours(settings: Settings, plan: EndpointPlan) -> list[dict[str, Any]]:
    """CreateModel's, CreateEndpointConfig's and CreateEndpoint's request."""
    return [specs.model(plan, settings), specs.endpoint_config(plan, settings), specs.endpoint(plan, settings)]


@pytest.mark.parametrize("name", PLANS)
def test_an_endpoint(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Version 2 says an empty environment and the weight of the only variant, and names the configuration like it."""
    from sagemaker.model import Model
    from sagemaker.model_monitor import DataCaptureConfig
    from sagemaker.serverless import ServerlessInferenceConfig

    settings, plan = PLANS[name]
    session.dry_run(settings)
    vpc = {"Subnets": list(settings.subnets), "SecurityGroupIds": list(settings.security_groups)}
    made = Model(
        settings.image,
        DATA,
        settings.role,
        name=plan.version,
        sagemaker_session=v2.session(settings),
        vpc_config=vpc if settings.subnets else None,
    )
    serverless, captured = ServerlessInferenceConfig(plan.memory, plan.concurrency), None
    if plan.capture:
        folder = specs.capture_folder(plan.name, settings)
        sdk = v2.session(settings)
        captured = DataCaptureConfig(
            True, plan.capture, folder, json_content_types=["application/json"], sagemaker_session=sdk
        )
    made.deploy(
        initial_instance_count=plan.instances if plan.instance_type else None,
        instance_type=plan.instance_type or None,
        serverless_inference_config=None if plan.instance_type else serverless,
        data_capture_config=captured,
        endpoint_name=plan.name,
        inference_ami_version=plan.ami.get("InferenceAmiVersion"),
        kms_key=settings.kms_key or None,
        tags=kennel_settings.tags(settings),
        wait=False,
    )
    model, config, endpoint = (row["request"] for row in printed(capsys.readouterr().out))
    assert model["PrimaryContainer"].pop("Environment") == {}
    assert config["ProductionVariants"][0].pop("InitialVariantWeight") == 1
    assert config["EndpointConfigName"] == endpoint["EndpointConfigName"] == plan.name
    config["EndpointConfigName"] = endpoint["EndpointConfigName"] = plan.version
    assert ours(settings, plan) == [model, config, endpoint]


def transform_job(settings: Settings) -> dict[str, Any]:
    """Ours, without the defaults that it says of what is not split, not compressed and not put together."""
    source = {"S3DataType": "ManifestFile", "S3Uri": "s3://photos/photos.manifest"}
    job: dict[str, Any] = transform.job("pets-1", "pets", source, "s3://photos/out/", settings, {})
    assert job["TransformInput"].pop("SplitType") == job["TransformInput"].pop("CompressionType") == "None"
    assert job["TransformOutput"].pop("AssembleWith") == "None"
    return job


def start_transform(transformer: Any, sdk_session: Any, settings: Settings, content_type: str) -> None:
    """By either version's Transformer, which are called alike; version 3 gets this function's text."""
    transformer(
        "pets",
        1,
        settings.endpoint_instance_type,
        strategy="SingleRecord",
        output_path="s3://photos/out/",
        output_kms_key=settings.kms_key or None,
        volume_kms_key=settings.kms_key or None,
        accept="application/jsonlines",
        tags=kennel_settings.tags(settings),
        sagemaker_session=sdk_session,
    ).transform("s3://photos/photos.manifest", "ManifestFile", content_type, job_name="pets-1", wait=False)


@pytest.mark.parametrize("settings", [SETTINGS, INSIDE], ids=["plain", "inside"])
def test_a_transform_job(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    from sagemaker.transformer import Transformer

    session.dry_run(settings)
    job = transform_job(settings)
    start_transform(Transformer, v2.session(settings), settings, job["TransformInput"]["ContentType"])
    (row,) = printed(capsys.readouterr().out)
    assert job == row["request"]


V3 = f"""
import json, sys
from typing import Any
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import session
from kennel_launch.settings import Settings
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.transformer import Transformer
{inspect.getsource(start_transform)}
content_type, *cases = json.load(sys.stdin)
for given in cases:
    settings = Settings(**given)
    session.dry_run(settings)
    sdk_session = Session(session.session(settings), default_bucket=settings.bucket)
    start_transform(Transformer, sdk_session, settings, content_type)
"""


def test_version_3s_transform_job() -> None:
    cases = [SETTINGS, INSIDE]
    ours = [transform_job(settings) for settings in cases]
    rows = printed(run_v3(V3, [ours[0]["TransformInput"]["ContentType"], *map(asdict, cases)]))
    assert [row["request"] for row in rows] == ours
