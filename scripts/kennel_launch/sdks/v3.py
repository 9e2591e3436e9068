"""Version 3's ModelTrainer, HyperparameterTuner and Model with the settings of kennel.toml; of no command a part.

from kennel_launch.sdks import v3
trainer = v3.model_trainer({"backbone": "resnet50", "epochs": "20"}, instance_type="ml.g5.2xlarge")
trainer.train([InputData(channel_name="train", data_source="s3://bucket/photos/train")])
"""

from collections.abc import Mapping
from typing import Any

from kennel import metrics
from kennel.search.sagemaker_tuner import Options
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import session as aws
from kennel_launch.jobs.requests import Training, output_path, volume_key
from kennel_launch.sdks import asked
from kennel_launch.settings import Settings


def model_trainer(hyperparameters: Mapping[str, str], **given: Any) -> Any:
    """A ModelTrainer of the image.

    Args:
        given: settings, in place of those of the environment and kennel.toml.

    Raises:
        UserError: a setting that is needed is missing, or no hyperparameter is called so.
    """
    return trainer_of(asked.settings(given, *asked.JOB), asked.training(hyperparameters))


def tuner(hyperparameters: Mapping[str, str], search_space: str, options: Options | None = None, **given: Any) -> Any:
    """A HyperparameterTuner of the image.

    Args:
        search_space: as hyperparameter `search_space` has it.
        given: settings, in place of those of the environment and kennel.toml.

    Raises:
        UserError: as `model_trainer`, or SageMaker would take no such search.
    """
    training, request = asked.search(hyperparameters, search_space, options)
    return tuner_of(asked.settings(given, *asked.JOB), training, request)


def model(name: str, model_data: str, **given: Any) -> Any:
    """A Model of the image, made in the account.

    Args:
        model_data: S3 URI of a model.tar.gz.
        given: settings, in place of those of the environment and kennel.toml.

    Raises:
        UserError: a setting that is needed is missing.
    """
    from sagemaker.core.resources import Model
    from sagemaker.core.shapes import ContainerDefinition

    settings = asked.settings(given, "role", "image")
    container = ContainerDefinition(image=settings.image, model_data_url=model_data)
    role = aws.role_arn(settings)
    return Model.create(
        model_name=name, primary_container=container, execution_role_arn=role, session=aws.session(settings)
    )


def trainer_of(settings: Settings, training: Training) -> Any:
    """The ModelTrainer that asks for what `requests.training_job` does, as far as v3 can say it."""
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.shapes import MetricDefinition, RemoteDebugConfig, RetryStrategy, StoppingCondition, Tag
    from sagemaker.train import ModelTrainer
    from sagemaker.train.configs import CheckpointConfig, Compute, Networking, OutputDataConfig

    compute = {
        "instance_type": settings.instance_type,
        "instance_count": settings.instance_count,
        "volume_size_in_gb": training.volume_size,
        "volume_kms_key_id": volume_key(settings) or None,
        "keep_alive_period_in_seconds": training.keep_alive or None,
        "enable_managed_spot_training": training.spot or None,
    }
    network = {
        "subnets": list(settings.subnets) or None,
        "security_group_ids": list(settings.security_groups) or None,
        "enable_network_isolation": training.network_isolation or None,
        "enable_inter_container_traffic_encryption": training.encrypt_traffic or None,
    }
    stopping = {"max_runtime_in_seconds": training.max_run, "max_wait_time_in_seconds": training.max_wait}
    output = {"s3_output_path": output_path(settings), "kms_key_id": settings.kms_key or None}
    made = ModelTrainer(
        training_image=settings.image,
        role=aws.role_arn(settings),
        base_job_name=training.name,
        sagemaker_session=Session(aws.session(settings), default_bucket=settings.bucket),
        compute=Compute(**_given(compute)),
        networking=Networking(**_given(network)) if _given(network) else None,
        stopping_condition=StoppingCondition(**_given(stopping)),
        output_data_config=OutputDataConfig(**_given(output)),
        checkpoint_config=CheckpointConfig(s3_uri=training.checkpoints) if training.checkpoints else None,
        hyperparameters=dict(training.hyperparameters),
        environment=dict(training.environment) or None,
        training_input_mode=training.input_mode,
        tags=[Tag(key=row["Key"], value=row["Value"]) for row in kennel_settings.tags(settings)],
    )
    if training.retries:
        made.with_retry_strategy(RetryStrategy(maximum_retry_attempts=training.retries))
    if training.remote_debug:
        made.with_remote_debug_config(RemoteDebugConfig(enable_remote_debug=True))
    if training.infra_check:
        made.with_infra_check_config()
    rows = [MetricDefinition(name=row["Name"], regex=row["Regex"]) for row in metrics.definitions()]
    return made.with_metric_definitions(rows)


def tuner_of(settings: Settings, training: Training, request: Mapping[str, Any]) -> Any:
    """The HyperparameterTuner that asks for what `requests.tuning_job` does, as far as v3 can say it.

    It sends neither network isolation, encrypted traffic nor the key of the volumes, whatever its trainer has.
    """
    from sagemaker.train.tuner import HyperparameterTuner

    config = request["HyperParameterTuningJobConfig"]
    return HyperparameterTuner(
        trainer_of(settings, training),
        config["HyperParameterTuningJobObjective"]["MetricName"],
        _ranges(config["ParameterRanges"]),
        metric_definitions=metrics.definitions(),
        strategy=config["Strategy"],
        strategy_config=_shape("HyperParameterTuningJobStrategyConfig", config.get("StrategyConfig")),
        objective_type=config["HyperParameterTuningJobObjective"]["Type"],
        max_jobs=config["ResourceLimits"]["MaxNumberOfTrainingJobs"],
        max_parallel_jobs=config["ResourceLimits"]["MaxParallelTrainingJobs"],
        max_runtime_in_seconds=config["ResourceLimits"].get("MaxRuntimeInSeconds"),
        completion_criteria_config=_shape("TuningJobCompletionCriteria", config.get("TuningJobCompletionCriteria")),
        early_stopping_type=config["TrainingJobEarlyStoppingType"],
        random_seed=config.get("RandomSeed"),
        warm_start_config=_shape("HyperParameterTuningJobWarmStartConfig", request.get("WarmStartConfig")),
    )


def _ranges(rows: Mapping[str, Any]) -> dict[str, Any]:
    from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter, IntegerParameter

    ranges = {row["Name"]: CategoricalParameter(row["Values"]) for row in rows.get("CategoricalParameterRanges", [])}
    for kind, number, made in (("Integer", int, IntegerParameter), ("Continuous", float, ContinuousParameter)):
        for row in rows.get(f"{kind}ParameterRanges", []):
            ranges[row["Name"]] = made(number(row["MinValue"]), number(row["MaxValue"]), row["ScalingType"])
    return ranges


def _shape(name: str, request: Mapping[str, Any] | None) -> Any:
    """A part of a request as sagemaker-core's class of that name, None for none."""
    from sagemaker.core import shapes
    from sagemaker.core.utils.code_injection.codec import transform

    return getattr(shapes, name)(**transform(request, name)) if request else None


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
