"""Version 2's Estimator, HyperparameterTuner and Model with the settings of kennel.toml; of no command a part.

    from kennel_launch.sdks import v2
    estimator = v2.estimator({"backbone": "resnet50", "epochs": "20"}, instance_type="ml.g5.2xlarge")
    estimator.fit({"train": "s3://bucket/photos/train"})

The SDK sends no telemetry, makes no bucket and asks for no debugger or profiler by itself from here.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from kennel import metrics
from kennel.search.sagemaker_tuner import Options
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import session as aws
from kennel_launch.jobs.requests import Training, output_path, volume_key
from kennel_launch.sdks import asked
from kennel_launch.settings import Settings

# https://github.com/aws/sagemaker-python-sdk/blob/master/doc/overview.rst, "Telemetry"
_SDK = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
# https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html
_DEBUGGER_RULES = ("vanishing_gradient", "overfit", "overtraining", "poor_weight_initialization", "loss_not_decreasing")
_PROFILER_RULES = ("LowGPUUtilization", "ProfilerReport")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The SDK says a screen of things that are none of the user's business.

    And it checks its configuration, which is our constant, 26 times a job: three seconds of a command.
    """
    for name in ("sagemaker", "sagemaker.config", "sagemaker.telemetry.telemetry_logging", "botocore.credentials"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sagemaker import utils

        check, utils.validate_sagemaker_config = utils.validate_sagemaker_config, lambda _config: None
        try:
            yield
        finally:
            utils.validate_sagemaker_config = check


def estimator(hyperparameters: Mapping[str, str], **given: Any) -> Any:
    """An Estimator of the image.

    Args:
        given: settings, in place of those of the environment and kennel.toml.

    Raises:
        UserError: a setting that is needed is missing, or no hyperparameter is called so.
    """
    return estimator_of(asked.settings(given, *asked.JOB), asked.training(hyperparameters))


def tuner(hyperparameters: Mapping[str, str], search_space: str, options: Options | None = None, **given: Any) -> Any:
    """A HyperparameterTuner of the image.

    Args:
        search_space: as hyperparameter `search_space` has it.
        given: settings, in place of those of the environment and kennel.toml.

    Raises:
        UserError: as `estimator`, or SageMaker would take no such search.
    """
    training, request = asked.search(hyperparameters, search_space, options)
    return tuner_of(asked.settings(given, *asked.JOB), training, request)


@_quiet()
def model(model_data: str, **given: Any) -> Any:
    """A Model of the image, whose `deploy` gives a Predictor.

    Args:
        model_data: S3 URI of a model.tar.gz.
        given: settings, in place of those of the environment and kennel.toml.

    Raises:
        UserError: a setting that is needed is missing.
    """
    from sagemaker.model import Model
    from sagemaker.predictor import Predictor

    settings = asked.settings(given, "role", "image")
    role, made = aws.role_arn(settings), session(settings)
    return Model(settings.image, model_data, role, predictor_cls=Predictor, sagemaker_session=made)


@_quiet()
def estimator_of(settings: Settings, training: Training) -> Any:
    """The Estimator whose `fit` sends `requests.training_job`."""
    from sagemaker.estimator import Estimator

    return Estimator(
        image_uri=settings.image,
        role=aws.role_arn(settings),
        instance_count=settings.instance_count,
        instance_type=settings.instance_type,
        sagemaker_session=session(settings),
        hyperparameters=dict(training.hyperparameters),
        output_path=output_path(settings),
        metric_definitions=metrics.definitions(),
        input_mode="File" if training.streamed else training.input_mode,  # those that are streamed say so
        volume_size=training.volume_size,
        max_run=training.max_run,
        environment=dict(training.environment) or None,
        tags=kennel_settings.tags(settings),
        **_platform(settings, training),
    )


@_quiet()
def tuner_of(settings: Settings, training: Training, request: Mapping[str, Any]) -> Any:
    """The HyperparameterTuner whose `fit` sends `requests.tuning_job`."""
    from sagemaker.tuner import HyperparameterTuner

    config = request["HyperParameterTuningJobConfig"]
    return HyperparameterTuner(
        estimator_of(settings, training),
        objective_metric_name=config["HyperParameterTuningJobObjective"]["MetricName"],
        objective_type=config["HyperParameterTuningJobObjective"]["Type"],
        hyperparameter_ranges=_ranges(config["ParameterRanges"]),
        metric_definitions=metrics.definitions(),
        strategy=config["Strategy"],
        max_jobs=config["ResourceLimits"]["MaxNumberOfTrainingJobs"],
        max_parallel_jobs=config["ResourceLimits"]["MaxParallelTrainingJobs"],
        max_runtime_in_seconds=config["ResourceLimits"].get("MaxRuntimeInSeconds"),
        early_stopping_type=config["TrainingJobEarlyStoppingType"],
        random_seed=config.get("RandomSeed"),
        tags=kennel_settings.tags(settings),
        **_tuning(request),
    )


@_quiet()
def session(settings: Settings) -> Any:
    """The SDK's session on our boto3 session, so that event handlers of one hold for the other."""
    from sagemaker.session import Session

    return Session(aws.session(settings), sagemaker_config=_SDK, default_bucket=settings.bucket)


def _platform(settings: Settings, training: Training) -> dict[str, Any]:
    """What only SageMaker itself can do; nothing that was not asked for."""
    arguments: dict[str, Any] = {
        "enable_network_isolation": training.network_isolation,
        "encrypt_inter_container_traffic": training.encrypt_traffic,
        "subnets": list(settings.subnets) or None,
        "security_group_ids": list(settings.security_groups) or None,
        "volume_kms_key": volume_key(settings) or None,
        "output_kms_key": settings.kms_key or None,
        "checkpoint_s3_uri": training.checkpoints or None,
        "keep_alive_period_in_seconds": training.keep_alive or None,
        "max_retry_attempts": training.retries or None,
        "enable_remote_debug": training.remote_debug or None,
        "enable_infra_check": training.infra_check or None,
    }
    if training.spot:
        arguments |= {"use_spot_instances": True, "max_wait": training.max_wait}
    if training.debugger:
        return arguments | _debugger(settings)
    return arguments | {"disable_profiler": True, "debugger_hook_config": False}


def _debugger(settings: Settings) -> dict[str, Any]:
    """Hook, profiler and AWS's built-in rules: a service that is closed to new customers since 2026-07-30."""
    from sagemaker.debugger import DebuggerHookConfig, ProfilerConfig, ProfilerRule, Rule, rule_configs

    output = output_path(settings)
    return {
        "debugger_hook_config": DebuggerHookConfig(s3_output_path=output),
        "profiler_config": ProfilerConfig(s3_output_path=output, system_monitor_interval_millis=500),
        "rules": [
            *(Rule.sagemaker(getattr(rule_configs, name)()) for name in _DEBUGGER_RULES),
            # Named, since the SDK would put the time into the report's name.
            *(ProfilerRule.sagemaker(getattr(rule_configs, name)(), name=name) for name in _PROFILER_RULES),
        ],
    }


def inputs(training: Training) -> dict[str, Any]:
    """What `fit` takes for the channels."""
    from sagemaker.inputs import TrainingInput

    def made(name: str, uri: str) -> Any:
        if name not in training.streamed:
            return TrainingInput(uri)
        # https://docs.aws.amazon.com/sagemaker/latest/dg/augmented-manifest-stream.html
        return TrainingInput(
            uri,
            s3_data_type="AugmentedManifestFile",
            attribute_names=list(training.streamed[name]),
            record_wrapping="RecordIO",
            content_type="application/x-recordio",
            input_mode="Pipe",
        )

    return {name: made(name, uri) for name, uri in training.channels.items()}


def _ranges(arguments: Mapping[str, Any]) -> dict[str, Any]:
    from sagemaker.tuner import CategoricalParameter, ContinuousParameter, IntegerParameter

    kinds = {"Integer": IntegerParameter, "Continuous": ContinuousParameter}
    found = {
        row["Name"]: CategoricalParameter(row["Values"]) for row in arguments.get("CategoricalParameterRanges", [])
    }
    for kind, made in kinds.items():
        for row in arguments.get(f"{kind}ParameterRanges", []):
            found[row["Name"]] = made(row["MinValue"], row["MaxValue"], scaling_type=row["ScalingType"])
    return found


def _tuning(request: Mapping[str, Any]) -> dict[str, Any]:
    """Warm start, Hyperband's resources and the ends of a search, as the SDK's objects."""
    from sagemaker import tuner as sdk

    config, arguments = request["HyperParameterTuningJobConfig"], {}
    if resources := config.get("StrategyConfig", {}).get("HyperbandStrategyConfig"):
        limits = sdk.HyperbandStrategyConfig(resources["MaxResource"], resources["MinResource"])
        arguments["strategy_config"] = sdk.StrategyConfig(limits)
    if ends := config.get("TuningJobCompletionCriteria"):
        arguments["completion_criteria_config"] = sdk.TuningJobCompletionCriteriaConfig(
            ends.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving"),
            True if "ConvergenceDetected" in ends else None,
            ends.get("TargetObjectiveMetricValue"),
        )
    if start := request.get("WarmStartConfig"):
        parents = {row["HyperParameterTuningJobName"] for row in start["ParentHyperParameterTuningJobs"]}
        arguments["warm_start_config"] = sdk.WarmStartConfig(sdk.WarmStartTypes(start["WarmStartType"]), parents)
    return arguments
