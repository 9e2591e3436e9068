"""Names and shapes of what serves a model: the requests for a model, an endpoint's configuration, an endpoint, a batch.

Nothing here talks to AWS: what these functions return is sent, or shown by --dry-run, as it is.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import instance_types
from kennel_launch.settings import Settings

REAL_TIME, SERVERLESS, ASYNC, MULTI_MODEL = MODES = ("real-time", "serverless", "async", "multi-model")
ENGINES = ("auto", "int8", "fp32", "torch")
MEMORY, CONCURRENCY = 3072, 5  # of a serverless endpoint: MB, requests at once
VARIANT = "AllTraffic"
_LONGEST = 63  # of every name: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html
_STAMP = "%Y%m%d-%H%M%S"  # 15 characters, and a dash before them
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_MB = 1024 * 1024

# Mode -> the largest body, MB: https://docs.aws.amazon.com/sagemaker/latest/dg/model-deploy-options.html
LARGEST = {REAL_TIME: 25, MULTI_MODEL: 25, SERVERLESS: 4, ASYNC: 1024}
ASYNC_MB = 100  # of those 1024: what a photo of 100 million pixels may take, and small hosts can still hold


@dataclass(frozen=True)
class Source:
    """A model's file, or for a multi-model endpoint the folder of several, and the image that serves it."""

    data: str  # s3://
    image: str
    package: str = ""  # of the model registry, whose ARN stands for both


@dataclass(frozen=True)
class Autoscale:
    """Between how many instances, and how many requests a minute each of them is to get."""

    least: int
    most: int
    invocations: int


@dataclass(frozen=True)
class EndpointPlan:
    """One deployment: an endpoint by name, and how it is to run."""

    name: str
    stamp: str
    mode: str
    source: Source
    instance_type: str = ""  # "": serverless
    memory: int = MEMORY
    concurrency: int = CONCURRENCY
    engine: str = ""
    ami: dict[str, str] = field(default_factory=dict)  # InferenceAmiVersion, where the adviser wants one
    instances: int = 1  # of its first minute
    retain: bool = False  # an update keeps the number of instances that there is by then
    autoscale: Autoscale | None = None
    provisioned: int | None = None  # of a serverless endpoint: requests at once that never wait for a cold start
    capture: int = 0  # percent of the requests that are kept in S3
    fallback: tuple[str, ...] = ()  # instance types that are taken where there are none of the first, in this order

    @property
    def types(self) -> tuple[str, ...]:
        """Its instance types, the first choice first; none: serverless."""
        return (self.instance_type, *self.fallback) if self.instance_type else ()

    @property
    def to_zero(self) -> bool:
        """Whether its model is an inference component, without copies of which there are no instances."""
        return self.autoscale is not None and self.autoscale.least == 0

    @property
    def version(self) -> str:
        """The name of this deployment's model and configuration; an endpoint has others at its next update."""
        return stamped(self.name, self.stamp)


def stamp() -> str:
    """The time as a part of a name, UTC."""
    return datetime.now(UTC).strftime(_STAMP)


def stamped(name: str, stamp: str) -> str:
    return f"{_cut(name)}-{stamp}"


def is_version(version: str, name: str) -> bool:
    """Whether `version` was made by `stamped` from `name`."""
    return re.fullmatch(re.escape(_cut(name)) + r"-\d{8}-\d{6}", version) is not None


def checked(name: str, what: str) -> str:
    """A name that SageMaker takes.

    Raises:
        UserError: another one.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{what} {name[:80]!r}: a name is up to {_LONGEST} letters, digits and dashes between them")
    return name


def model(plan: EndpointPlan, settings: Settings) -> dict[str, Any]:
    """CreateModel's request."""
    container: dict[str, Any] = {"Image": plan.source.image, "ModelDataUrl": plan.source.data}
    if plan.source.package:  # a container that names one has neither of these
        container = {"ModelPackageName": plan.source.package}
    if plan.mode == MULTI_MODEL:
        container["Mode"] = "MultiModel"
    if environment := _environment(plan):
        container["Environment"] = environment
    request: dict[str, Any] = {
        "ModelName": plan.version,
        "PrimaryContainer": container,
        "ExecutionRoleArn": settings.role,
        "Tags": kennel_settings.tags(settings),
    }
    if vpc := _vpc(settings):
        request["VpcConfig"] = vpc
    return request


def _vpc(settings: Settings) -> dict[str, list[str]]:
    if not settings.subnets and not settings.security_groups:
        return {}
    return {"Subnets": list(settings.subnets), "SecurityGroupIds": list(settings.security_groups)}


def endpoint_config(plan: EndpointPlan, settings: Settings) -> dict[str, Any]:
    """CreateEndpointConfig's request. DataCaptureConfig only where asked for: else photos stay where they are."""
    variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": plan.version}
    if plan.mode == SERVERLESS:
        variant["ServerlessConfig"] = {"MemorySizeInMB": plan.memory, "MaxConcurrency": plan.concurrency}
        if plan.provisioned:
            variant["ServerlessConfig"]["ProvisionedConcurrency"] = plan.provisioned
    else:
        variant |= {"InitialInstanceCount": plan.instances, "InstanceType": plan.instance_type, **plan.ami}
    if plan.fallback:
        # https://docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints-heterogeneous.html (2026-11)
        del variant["InstanceType"]
        variant["InstancePools"] = [{"InstanceType": kind, "Priority": i} for i, kind in enumerate(plan.types, 1)]
        variant["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}  # they are not equally fast
    if plan.to_zero and plan.autoscale:
        limits = {"MinInstanceCount": 0, "MaxInstanceCount": plan.autoscale.most}
        del variant["ModelName"]  # a component's, not the variant's
        variant["ManagedInstanceScaling"] = {"Status": "ENABLED", **limits}
        variant["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    request: dict[str, Any] = {
        "EndpointConfigName": plan.version,
        "ProductionVariants": [variant],
        "Tags": kennel_settings.tags(settings),
    }
    if settings.kms_key and plan.mode != SERVERLESS and not instance_types.has_own_disk(plan.instance_type):
        request["KmsKeyId"] = settings.kms_key
    if plan.mode == ASYNC:
        folder = f"s3://{settings.bucket}/{settings.prefix}/async/{plan.name}"
        output = {"S3OutputPath": f"{folder}/output", "S3FailurePath": f"{folder}/failure"}
        request["AsyncInferenceConfig"] = {
            "OutputConfig": output | ({"KmsKeyId": settings.kms_key} if settings.kms_key else {})
        }
    if plan.to_zero:
        request["ExecutionRoleArn"] = settings.role
        if vpc := _vpc(settings):
            request["VpcConfig"] = vpc
    if plan.capture:
        request["DataCaptureConfig"] = _capture(plan, settings)
    return request


def capture_folder(name: str, settings: Settings) -> str:
    """Where an endpoint's captured requests lie."""
    return f"s3://{settings.bucket}/{settings.prefix}/capture/{name}/"


def _capture(plan: EndpointPlan, settings: Settings) -> dict[str, Any]:
    """Photos, which SageMaker writes as base64, and answers, which stay JSON or CSV by their content type.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DataCaptureConfig.html (2026-11)
    """
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": plan.capture,
        "DestinationS3Uri": capture_folder(plan.name, settings),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
        **({"KmsKeyId": settings.kms_key} if settings.kms_key else {}),
    }


def endpoint(plan: EndpointPlan, settings: Settings) -> dict[str, Any]:
    """CreateEndpoint's request."""
    return {"EndpointName": plan.name, "EndpointConfigName": plan.version, "Tags": kennel_settings.tags(settings)}


def endpoint_update(plan: EndpointPlan) -> dict[str, Any]:
    """UpdateEndpoint's request; tags stay as they are, and with `retain` the variant's number of instances."""
    request: dict[str, Any] = {"EndpointName": plan.name, "EndpointConfigName": plan.version}
    return request | ({"RetainAllVariantProperties": True} if plan.retain else {})


def largest_body(mode: str, environment: dict[str, str]) -> int:
    """Bytes that an endpoint takes: the platform's limit for its mode, or its own where that is lower."""
    own = environment.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "")
    given = int(own) if own.isascii() and own.isdigit() else 0
    return _MB * min(LARGEST[mode], given or LARGEST[REAL_TIME])


def environment(engine: str) -> dict[str, str]:
    """Of a container that predicts by this engine."""
    return {"KENNEL_ENGINE": engine} if engine else {}


def _environment(plan: EndpointPlan) -> dict[str, str]:
    found = environment(plan.engine)
    if plan.mode == ASYNC:
        found["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(ASYNC_MB)
    return found


def _cut(name: str) -> str:
    return name[: _LONGEST - 16].rstrip("-")
