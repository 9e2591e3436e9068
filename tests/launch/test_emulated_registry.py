"""The emulated AWS's model registry and Pipelines: what they refuse. No job runs here."""

import json
from typing import Any

import pytest

from ..emulated_aws.asking import caller, job, put, refused
from ..emulated_aws.client import Aws

TOKEN = "t" * 32
SPEC: dict[str, Any] = {"SupportedContentTypes": ["image/png"], "SupportedResponseMIMETypes": ["application/json"]}


def package(aws: Aws, **changes: Any) -> dict[str, Any]:
    """A CreateModelPackage request that AWS would take, where there is the group and the model."""
    put(aws, "model.tar.gz", b"x")
    container = {"Image": aws.image, "ModelDataUrl": f"s3://{aws.bucket}/model.tar.gz"}
    return {"ModelPackageGroupName": "pets", "InferenceSpecification": SPEC | {"Containers": [container]}} | changes


def definition(aws: Aws) -> dict[str, Any]:
    training = job(aws)
    del training["TrainingJobName"]
    training["ResourceConfig"]["InstanceType"] = {"Get": "Parameters.Type"}
    value = {"Get": "Steps.Train.FinalMetricDataList['validation:accuracy'].Value"}
    condition = {"Type": "GreaterThan", "LeftValue": value, "RightValue": 0.5}
    fail = {"Name": "Fail", "Type": "Fail", "Arguments": {"ErrorMessage": "too little"}}
    check = {"Conditions": [condition], "IfSteps": [], "ElseSteps": [fail]}
    return {
        "Version": "2020-12-01",
        "Parameters": [{"Name": "Type", "Type": "String", "DefaultValue": "ml.g5.xlarge"}],
        "Steps": [
            {"Name": "Train", "Type": "Training", "Arguments": training},
            {"Name": "Check", "Type": "Condition", "Arguments": check},
        ],
    }


def request(aws: Aws, made: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(made)
    return {"PipelineName": "pets", "PipelineDefinition": text, "RoleArn": aws.role, "ClientRequestToken": TOKEN}


def test_versions_count_up_and_keep_their_group(aws: Aws) -> None:
    client = caller(aws, "sagemaker")
    assert "does not exist" in refused(client.create_model_package, **package(aws))[1]
    client.create_model_package_group(ModelPackageGroupName="pets")
    assert (
        "Tags cannot be" in refused(client.create_model_package, **package(aws, Tags=[{"Key": "a", "Value": "b"}]))[1]
    )
    arns = [client.create_model_package(**package(aws))["ModelPackageArn"] for _ in range(2)]
    assert [arn.rpartition(":")[2] for arn in arns] == ["model-package/pets/1", "model-package/pets/2"]
    assert client.describe_model_package(ModelPackageName=arns[1])["ModelPackageVersion"] == 2
    assert refused(client.delete_model_package_group, ModelPackageGroupName="pets")[0] == "ConflictException"
    client.delete_model_package(ModelPackageName=arns[1])
    (left,) = client.list_model_packages(ModelPackageGroupName="pets")["ModelPackageSummaryList"]
    assert left["ModelPackageArn"] == arns[0]


def test_a_model_is_made_of_an_approved_version_alone(aws: Aws) -> None:
    client = caller(aws, "sagemaker")
    client.create_model_package_group(ModelPackageGroupName="pets")
    arn = client.create_model_package(**package(aws))["ModelPackageArn"]
    model = {"ModelName": "m", "ExecutionRoleArn": aws.role, "PrimaryContainer": {"ModelPackageName": arn}}
    assert "is not approved" in refused(client.create_model, **model)[1]
    client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    both = {"PrimaryContainer": {"ModelPackageName": arn, "Image": aws.image}}
    assert "cannot be specified together" in refused(client.create_model, **model | both)[1]
    client.create_model(**model)
    assert client.describe_model(ModelName="m")["PrimaryContainer"] == {"ModelPackageName": arn}


def change(made: dict[str, Any], fault: str) -> None:
    training = made["Steps"][0]["Arguments"]
    check = made["Steps"][1]["Arguments"]["Conditions"][0]
    if fault == "a version that is none":
        made["Version"] = "1"
    elif fault == "a parameter that is not declared":
        training["ResourceConfig"]["InstanceType"] = {"Get": "Parameters.Other"}
    elif fault == "a step that there is not":
        check["LeftValue"] = {"Get": "Steps.Other.FinalMetricDataList[0].Value"}
    elif fault == "a condition that there is not":
        check["Type"] = "IsBetter"
    elif fault == "two steps of a name":
        made["Steps"][1]["Name"] = "Train"
    elif fault == "a job's name":
        training["TrainingJobName"] = "mine"
    elif fault == "a request that the API would not take":
        training["ResourceConfig"]["InstanceCount"] = -1
    elif fault == "a default of another type":
        made["Parameters"][0] = {"Name": "Type", "Type": "Float", "DefaultValue": "much"}


FAULTS = {
    "a version that is none": "The version is unknown",
    "a parameter that is not declared": "Parameters.Other names nothing that there is",
    "a step that there is not": "There is no step Other",
    "a condition that there is not": "Unknown condition IsBetter",
    "two steps of a name": "two steps have one name",
    "a job's name": "TrainingJobName is SageMaker's own",
    "a request that the API would not take": "'resourceConfig.instanceCount'",
    "a default of another type": "much is no Float",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_definition_is_judged_when_it_is_made(aws: Aws, fault: str) -> None:
    made = definition(aws)
    change(made, fault)
    code, message = refused(caller(aws, "sagemaker").create_pipeline, **request(aws, made))
    assert code == "ValidationException"
    assert FAULTS[fault] in message
    assert aws.client("sagemaker").list_pipelines()["PipelineSummaries"] == []


def test_an_execution_is_stopped_and_goes_with_its_pipeline(aws: Aws) -> None:
    aws.hold()
    client = caller(aws, "sagemaker")
    client.create_pipeline(**request(aws, definition(aws)))
    named = {"PipelineName": "pets", "ClientRequestToken": TOKEN}
    wrong = [{"Name": "Other", "Value": "1"}]
    assert "Unknown parameters: Other" in refused(client.start_pipeline_execution, **named, PipelineParameters=wrong)[1]
    arn = client.start_pipeline_execution(**named)["PipelineExecutionArn"]
    assert "has running executions" in refused(client.delete_pipeline, **named)[1]
    client.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    about = client.describe_pipeline_execution(PipelineExecutionArn=arn)
    assert about["PipelineExecutionStatus"] == "Stopped"
    client.delete_pipeline(**named)
    assert refused(client.describe_pipeline_execution, PipelineExecutionArn=arn)[0] == "ResourceNotFound"
