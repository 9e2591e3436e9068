"""The definition of a pipeline is what version 2 of SageMaker's SDK writes for the same one, field by field."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kennel.errors import UserError
from kennel_launch.jobs import pipeline
from kennel_launch.jobs.pipeline import Registration
from kennel_launch.models import package_requests
from kennel_launch.sdks import v2

from .test_requests import INSIDE, SETTINGS, TRAINING

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("credentials")]  # warnings: the SDK's own
PLAIN = Registration("pets", 0.9)
CASES = {
    "plain": (SETTINGS, TRAINING, PLAIN),
    "spot": (SETTINGS, replace(TRAINING, spot=True, max_wait=200_000), replace(PLAIN, metric="test:accuracy")),
    "inside": (INSIDE, replace(TRAINING, network_isolation=True, volume_size=100), replace(PLAIN, approved=True)),
}


def theirs(name: str) -> dict[str, Any]:
    """What the SDK writes."""
    from sagemaker.inputs import TrainingInput
    from sagemaker.model import Model
    from sagemaker.workflow.condition_step import ConditionStep
    from sagemaker.workflow.conditions import ConditionGreaterThanOrEqualTo
    from sagemaker.workflow.execution_variables import ExecutionVariables
    from sagemaker.workflow.fail_step import FailStep
    from sagemaker.workflow.functions import Join
    from sagemaker.workflow.model_step import ModelStep
    from sagemaker.workflow.parameters import ParameterFloat, ParameterString
    from sagemaker.workflow.pipeline import Pipeline
    from sagemaker.workflow.pipeline_context import PipelineSession
    from sagemaker.workflow.steps import TrainingStep

    settings, training, asked = CASES[name]
    threshold = ParameterFloat(pipeline.THRESHOLD, asked.threshold)
    states = ["Approved", "PendingManualApproval"]
    approval = ParameterString(pipeline.APPROVAL, states[0 if asked.approved else 1], states)
    kind = ParameterString(pipeline.INSTANCE_TYPE, settings.instance_type)
    places = {name: ParameterString(f"{name.title()}S3Uri", uri) for name, uri in training.channels.items()}
    estimator = v2.estimator_of(settings, training)
    session = PipelineSession(estimator.sagemaker_session.boto_session, default_bucket=settings.bucket)
    estimator.sagemaker_session = session
    if not settings.kms_key:
        estimator.instance_type = kind
    if training.spot:
        folder = f"s3://{settings.bucket}/{settings.prefix}/checkpoints/{training.name}/"
        estimator.checkpoint_s3_uri = Join("", [folder, ExecutionVariables.PIPELINE_EXECUTION_ID])
    train = TrainingStep(
        pipeline.TRAIN, step_args=estimator.fit({name: TrainingInput(uri) for name, uri in places.items()})
    )
    accuracy = train.properties.FinalMetricDataList[asked.metric].Value
    model = Model(settings.image, train.properties.ModelArtifacts.S3ModelArtifacts, sagemaker_session=session)
    serves = [settings.endpoint_instance_type]
    properties = {
        "kennel": "1",
        "training_job": train.properties.TrainingJobName,
        asked.metric: accuracy.to_string(),
        "pipeline_execution": ExecutionVariables.PIPELINE_EXECUTION_ID,
    }
    package = model.register(
        list(package_requests.CONTENT_TYPES),
        list(package_requests.RESPONSE_TYPES),
        serves,
        serves,
        model_package_group_name=asked.group,
        approval_status=approval,
        customer_metadata_properties=properties,
    )
    said = [f"{asked.metric} is ", accuracy, ", less than ", threshold, ": nothing was registered"]
    check = ConditionStep(
        pipeline.CHECK,
        conditions=[ConditionGreaterThanOrEqualTo(accuracy, threshold)],
        if_steps=[ModelStep(pipeline.REGISTER, step_args=package)],
        else_steps=[FailStep(pipeline.FAIL, Join("", said))],
    )
    rows = [threshold, approval, *([] if settings.kms_key else [kind]), *places.values()]
    made = Pipeline("pets", rows, None, [train, check], session)
    found: dict[str, Any] = json.loads(made.definition())
    return found


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_the_sdk_writes(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
    (tmp_path / "sagemaker.yaml").write_text(json.dumps(config))
    monkeypatch.setenv("SAGEMAKER_USER_CONFIG_OVERRIDE", str(tmp_path / "sagemaker.yaml"))
    found, ours = theirs(name), pipeline.definition(*CASES[name])
    assert found.pop("PipelineExperimentConfig") is None  # an experiment would be one more thing that stays
    register = found["Steps"][1]["Arguments"]["IfSteps"][0]
    assert register["Name"] == f"{pipeline.REGISTER}-RegisterModel"  # the SDK's own end of a name
    register["Name"] = pipeline.REGISTER
    assert register["Arguments"].pop("SkipModelValidation") == "None"  # the service's default
    assert register["Arguments"]["InferenceSpecification"]["Containers"][0].pop("Environment") == {}
    assert json.loads(pipeline.text(ours)) == found


def test_the_training_step_is_the_request_of_kennel_train() -> None:
    from kennel_launch.jobs import requests

    settings, training, asked = CASES["plain"]
    step = pipeline.definition(settings, training, asked)["Steps"][0]["Arguments"]
    plain = requests.training_job(settings, training)
    del plain["TrainingJobName"]
    plain["ResourceConfig"]["InstanceType"] = {"Get": "Parameters.InstanceType"}
    for channel, name in zip(plain["InputDataConfig"], ("TrainS3Uri", "TestS3Uri"), strict=True):
        channel["DataSource"]["S3DataSource"]["S3Uri"] = {"Get": f"Parameters.{name}"}
    assert step == plain


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"Acuracy": "0.9"}, "none of that name, but AccuracyThreshold, ModelApprovalStatus, InstanceType, TrainS3Uri"),
        ({"AccuracyThreshold": "90"}, "--parameter AccuracyThreshold=90: write a share of the photos, as 0.9"),
        ({"AccuracyThreshold": "high"}, "write a share of the photos"),
        ({"ModelApprovalStatus": "yes"}, "write one of Approved, PendingManualApproval"),
    ],
)
def test_a_parameter_that_it_cannot_have(given: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        pipeline.checked_parameters(pipeline.definition(*CASES["plain"]), given)


def test_with_a_key_the_instance_type_stays() -> None:
    """The request differs by the host's own disks, so that another type could be refused."""
    definition = pipeline.definition(*CASES["inside"])
    assert pipeline.INSTANCE_TYPE not in [row["Name"] for row in definition["Parameters"]]
    assert pipeline.machines(definition, {}) == ("ml.g5.xlarge", 1, 24.0)
