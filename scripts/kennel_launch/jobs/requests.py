"""CreateTrainingJob and CreateHyperParameterTuningJob as plain data, as boto3 takes them; nothing unless asked for.

Field by field what version 2 of SageMaker's SDK sends for the same job, but for empty lists of ranges: `sdks.v2`,
tests/launch/jobs/test_requests.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kennel import metrics, mlflow_uri
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import debugger_rules, instance_types
from kennel_launch.aws import session as aws
from kennel_launch.settings import Settings


@dataclass(frozen=True)
class Training:
    """One training job, or what all jobs of a tuning job share; times in seconds."""

    name: str
    channels: Mapping[str, str]  # channel -> S3 URI
    hyperparameters: Mapping[str, str]
    spot: bool = False
    checkpoints: str = ""  # S3 URI
    max_run: int = 24 * 3600
    max_wait: int | None = None
    keep_alive: int = 0
    retries: int = 0  # after an internal error of SageMaker's
    input_mode: str = "File"
    volume_size: int = 30  # GB
    network_isolation: bool = False
    encrypt_traffic: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    debugger: bool = False
    remote_debug: bool = False
    infra_check: bool = False
    streamed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # channel of a manifest -> its attributes


def training_job(settings: Settings, training: Training) -> dict[str, Any]:
    """The request for one training job.

    Raises:
        UserError: the role cannot be found, or AWS has no debugger in this region.
    """
    request = {
        "TrainingJobName": training.name,
        "Tags": kennel_settings.tags(settings),
        **_shared(settings, training),
    }
    if training.hyperparameters:
        request["HyperParameters"] = dict(training.hyperparameters)
    if training.keep_alive:
        request["ResourceConfig"]["KeepAlivePeriodInSeconds"] = training.keep_alive
    if training.remote_debug:
        request["RemoteDebugConfig"] = {"EnableRemoteDebug": True}
    if training.infra_check:
        request["InfraCheckConfig"] = {"EnableInfraCheck": True}
    if tracked := mlflow_config(training):
        request["MlflowConfig"] = tracked
    if training.debugger:
        return request | debugger_rules.configurations(aws.region(settings), output_path(settings))
    return request | {"ProfilerConfig": {"DisableProfiler": True}}


def tuning_job(settings: Settings, training: Training, searched: Mapping[str, Any]) -> dict[str, Any]:
    """The request for a tuning job, each of whose jobs is `training`.

    Args:
        searched: of kennel.search.sagemaker_tuner.tuning_request.

    Raises:
        UserError: the role cannot be found.
    """
    definition = {"StaticHyperParameters": dict(training.hyperparameters), **_shared(settings, training)}
    definition["HyperParameterTuningResourceConfig"] = definition.pop("ResourceConfig")
    return {
        "HyperParameterTuningJobName": training.name,
        "HyperParameterTuningJobConfig": searched["HyperParameterTuningJobConfig"],
        "TrainingJobDefinition": definition,
        "Tags": kennel_settings.tags(settings),
        **{key: searched[key] for key in ("WarmStartConfig",) if key in searched},
    }


def mlflow_config(training: Training) -> dict[str, str]:
    """MlflowConfig of a job that logs to a server of SageMaker's own; {} of another: its hyperparameter is enough.

    DescribeTrainingJob then shows where the job logs to. What SageMaker does with it for an image of one's own its
    documentation does not say (Amazon SageMaker API Reference, "MlflowConfig", 2026-11).
    """
    uri = training.hyperparameters.get("mlflow", "")
    if not mlflow_uri.is_arn(uri):
        return {}
    experiment = training.hyperparameters.get("mlflow_experiment", "")
    named = {"MlflowExperimentName": experiment} if experiment else {}
    return {"MlflowResourceArn": uri, **named, "MlflowRunName": training.name}


def output_path(settings: Settings) -> str:
    """SageMaker adds the job's name."""
    return f"s3://{settings.bucket}/{settings.prefix}/jobs"


def volume_key(settings: Settings) -> str:
    """The key of a job's volumes, "" for none.

    A host with disks of its own encrypts them itself, and a request with a key for them is refused:
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
    """
    return "" if instance_types.has_own_disk(settings.instance_type) else settings.kms_key


def _shared(settings: Settings, training: Training) -> dict[str, Any]:
    """What a training job and the definition of a tuning job have alike."""
    stopping = {"MaxRuntimeInSeconds": training.max_run}
    request: dict[str, Any] = {
        "AlgorithmSpecification": {
            "TrainingImage": settings.image,
            "TrainingInputMode": "File" if training.streamed else training.input_mode,  # those that are streamed say so
            "MetricDefinitions": metrics.definitions(),
        },
        "RoleArn": aws.role_arn(settings),
        "InputDataConfig": [_channel(name, uri, training) for name, uri in training.channels.items()],
        "OutputDataConfig": {"S3OutputPath": output_path(settings)},
        "ResourceConfig": {
            "InstanceType": settings.instance_type,
            "InstanceCount": settings.instance_count,
            "VolumeSizeInGB": training.volume_size,
        },
        "StoppingCondition": stopping,
    }
    if settings.kms_key:
        request["OutputDataConfig"]["KmsKeyId"] = settings.kms_key
    if key := volume_key(settings):
        request["ResourceConfig"]["VolumeKmsKeyId"] = key
    if settings.subnets:
        groups = list(settings.security_groups)
        request["VpcConfig"] = {"Subnets": list(settings.subnets), "SecurityGroupIds": groups}
    if training.spot:
        request["EnableManagedSpotTraining"] = True
        if training.max_wait is not None:
            stopping["MaxWaitTimeInSeconds"] = training.max_wait
    if training.checkpoints:
        request["CheckpointConfig"] = {"S3Uri": training.checkpoints}
    if training.retries:
        request["RetryStrategy"] = {"MaximumRetryAttempts": training.retries}
    if training.environment:
        request["Environment"] = dict(training.environment)
    for key, asked in (
        ("EnableNetworkIsolation", training.network_isolation),
        ("EnableInterContainerTrafficEncryption", training.encrypt_traffic),
    ):
        if asked:
            request[key] = True
    return request


def _channel(name: str, uri: str, training: Training) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    if name not in training.streamed:
        return {"ChannelName": name, "DataSource": {"S3DataSource": source}}
    # https://docs.aws.amazon.com/sagemaker/latest/dg/augmented-manifest-stream.html
    streamed = {**source, "S3DataType": "AugmentedManifestFile", "AttributeNames": list(training.streamed[name])}
    return {
        "ChannelName": name,
        "DataSource": {"S3DataSource": streamed},
        "ContentType": "application/x-recordio",
        "RecordWrapperType": "RecordIO",
        "InputMode": "Pipe",
    }
