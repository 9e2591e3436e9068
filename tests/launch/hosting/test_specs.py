"""What `kennel deploy` and `transform` send is what version 2 of SageMaker's SDK sends, but for what is listed here."""

import json
from dataclasses import replace
from typing import Any

import pytest

from kennel_launch import settings as kennel_settings
from kennel_launch.aws import session
from kennel_launch.commands import transform
from kennel_launch.hosting import specs
from kennel_launch.hosting.specs import EndpointPlan, Source
from kennel_launch.sdks import v2
from kennel_launch.settings import Settings

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


def requests(text: str) -> dict[str, dict[str, Any]]:
    """What a dry run printed, by operation."""
    decoder, at, found = json.JSONDecoder(), 0, {}
    while (at := text.find("{", at)) >= 0:
        row, at = decoder.raw_decode(text, at)
        found[row["operation"]] = row["request"]
    return found


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
    model, config, endpoint = requests(capsys.readouterr().out).values()
    assert model["PrimaryContainer"].pop("Environment") == {}
    assert config["ProductionVariants"][0].pop("InitialVariantWeight") == 1
    assert config["EndpointConfigName"] == endpoint["EndpointConfigName"] == plan.name
    config["EndpointConfigName"] = endpoint["EndpointConfigName"] = plan.version
    assert ours(settings, plan) == [model, config, endpoint]


@pytest.mark.parametrize("settings", [SETTINGS, INSIDE], ids=["plain", "inside"])
def test_a_transform_job(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    """We say the defaults of what is not split, not compressed and not put together."""
    from sagemaker.transformer import Transformer

    source = {"S3DataType": "ManifestFile", "S3Uri": "s3://photos/photos.manifest"}
    job = transform.job("pets-1", "pets", source, "s3://photos/out/", settings, {})
    session.dry_run(settings)
    transformer = Transformer(
        "pets",
        1,
        settings.endpoint_instance_type,
        strategy="SingleRecord",
        output_path="s3://photos/out/",
        output_kms_key=settings.kms_key or None,
        volume_kms_key=settings.kms_key or None,
        accept="application/jsonlines",
        tags=kennel_settings.tags(settings),
        sagemaker_session=v2.session(settings),
    )
    data, kind = source["S3Uri"], job["TransformInput"]["ContentType"]
    transformer.transform(data, source["S3DataType"], kind, job_name="pets-1", wait=False)
    assert job["TransformInput"].pop("SplitType") == job["TransformInput"].pop("CompressionType") == "None"
    assert job["TransformOutput"].pop("AssembleWith") == "None"
    assert job == requests(capsys.readouterr().out)["CreateTransformJob"]
