"""The emulated AWS itself: what it knows and what it refuses. No job runs here."""

import json
from typing import Any

import pytest

from ..emulated_aws.asking import caller, job, put, refused
from ..emulated_aws.client import Aws


def test_an_account_has_a_role_a_bucket_and_an_image(aws: Aws) -> None:
    assert caller(aws, "sts").get_caller_identity()["Account"] == "123456789012"
    assert caller(aws, "iam").get_role(RoleName="kennel-execution")["Role"]["Arn"] == aws.role
    caller(aws, "s3").put_object(Bucket=aws.bucket, Key="a/b c.txt", Body=b"hello")
    assert caller(aws, "s3").get_object(Bucket=aws.bucket, Key="a/b c.txt")["Body"].read() == b"hello"
    images = caller(aws, "ecr").describe_images(repositoryName="kennel")["imageDetails"]
    assert [tag for image in images for tag in image["imageTags"]] == ["dev"]
    assert [(one.service, one.operation) for one in aws.requests] == [
        ("sts", "GetCallerIdentity"),
        ("iam", "GetRole"),
        ("s3", "PutObject"),
        ("s3", "GetObject"),
        ("ecr", "DescribeImages"),
    ]
    assert aws.asked("s3", "PutObject") == [{"Bucket": aws.bucket, "Key": "a/b c.txt"}]


FAULTS = {
    "a name that is none": ({"TrainingJobName": "bad_name!"}, "'trainingJobName' failed", "regular expression pattern"),
    "an unknown type": (
        {"ResourceConfig": {"InstanceType": "ml.huge", "InstanceCount": 1, "VolumeSizeInGB": 30}},
        "Value 'ml.huge' at 'resourceConfig.instanceType' failed to satisfy constraint",
        "Member must satisfy enum value set: [",
    ),
    "no role": ({"RoleArn": None}, "Value null at 'roleArn' failed", "Member must not be null"),
    "a long value": ({"HyperParameters": {"a": "x" * 3000}}, "'hyperParameters.a.member'", "length less than or equal"),
    "too small a number": (
        {"ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": -1, "VolumeSizeInGB": 30}},
        "Value '-1' at 'resourceConfig.instanceCount'",
        "Member must have value greater than or equal to 0",
    ),
    "a text for a number": (
        {"StoppingCondition": {"MaxRuntimeInSeconds": "soon"}},
        "'stoppingCondition.maxRuntimeInSeconds'",
        "Member must be of type integer",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_is_judged_by_the_service_model(aws: Aws, fault: str) -> None:
    changes, where, why = FAULTS[fault]
    put(aws, "photos/train/red/0.png", b"x")
    code, message = refused(caller(aws, "sagemaker").create_training_job, **job(aws, **changes))
    assert code == "ValidationException"
    assert message.startswith("1 validation error detected: ")
    assert where in message
    assert why in message
    assert len(aws.asked("sagemaker", "CreateTrainingJob")) == 1
    assert not aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]


def test_a_member_that_the_model_lacks(aws: Aws) -> None:
    put(aws, "photos/train/red/0.png", b"x")
    sagemaker = caller(aws, "sagemaker")

    def add(params: dict[str, Any], **_: Any) -> None:
        params["body"] = json.dumps(json.loads(params["body"]) | {"Colour": "red"}).encode()

    sagemaker.meta.events.register("before-call.sagemaker.CreateTrainingJob", add)
    code, message = refused(sagemaker.create_training_job, **job(aws))
    assert code == "ValidationException"
    assert "Unknown parameter 'colour', must be one of: TrainingJobName, " in message


ABSENT = {
    "role": ({"RoleArn": "arn:aws:iam::123456789012:role/absent"}, "Could not assume role arn:aws:iam::"),
    "image": (
        {
            "AlgorithmSpecification": {
                "TrainingImage": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/kennel:none",
                "TrainingInputMode": "File",
            }
        },
        "Cannot find the requested image: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/kennel:none with tag: none",
    ),
    "output bucket": ({"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket/out"}}, 'S3 bucket "no-such-bucket"'),
    "photos": (
        {
            "InputDataConfig": [
                {
                    "ChannelName": "train",
                    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://kennel-test-bucket/no"}},
                }
            ]
        },
        'No S3 objects found under S3 URL "s3://kennel-test-bucket/no" given in input data source.',
    ),
    "time for spot": ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds."),
}


@pytest.mark.parametrize("what", ABSENT)
def test_what_a_job_names_must_be_there(aws: Aws, what: str) -> None:
    changes, sentence = ABSENT[what]
    put(aws, "photos/train/red/0.png", b"x")
    code, message = refused(caller(aws, "sagemaker").create_training_job, **job(aws, **changes))
    assert code == "ValidationException"
    assert message.startswith(sentence)


def test_a_role_that_sagemaker_may_not_assume(aws: Aws) -> None:
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "*"}]}
    role = aws.client("iam").create_role(RoleName="other", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    put(aws, "photos/train/red/0.png", b"x")
    _, message = refused(caller(aws, "sagemaker").create_training_job, **job(aws, RoleArn=role))
    assert message.startswith(f"Could not assume role {role}.")


def test_a_quota_ends(aws: Aws) -> None:
    aws.hold()
    put(aws, "photos/train/red/0.png", b"x")
    sagemaker = caller(aws, "sagemaker")
    aws.quota("ml.g5.xlarge for training job usage", 1)
    sagemaker.create_training_job(**job(aws, "first"))
    code, message = refused(sagemaker.create_training_job, **job(aws, "second"))
    assert code == "ResourceLimitExceeded"
    assert "'ml.g5.xlarge for training job usage' is 1 Instances, with current utilization of 1 Instances" in message
    sagemaker.stop_training_job(TrainingJobName="first")
    sagemaker.create_training_job(**job(aws, "second"))
    pages = caller(aws, "service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    rows = {row["QuotaName"]: row for page in pages for row in page["Quotas"]}
    row = rows["ml.g5.xlarge for training job usage"]
    assert row["Value"] == 1
    assert rows["ml.c7i.large for endpoint usage"]["Value"] > 1
    one = caller(aws, "service-quotas").get_service_quota(ServiceCode="sagemaker", QuotaCode=row["QuotaCode"])
    assert one["Quota"] == row


def test_prices(aws: Aws) -> None:
    aws.price("ml.g5.xlarge", "Training", 7.5)
    wanted = {"instanceName": "ml.g5.xlarge", "regionCode": "eu-west-1", "component": "Training"}
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
    rows = caller(aws, "pricing").get_products(ServiceCode="AmazonSageMaker", Filters=filters)["PriceList"]
    assert len(rows) == 1
    assert '"USD": "7.5' in rows[0]


def test_lists_come_in_pages_of_ten(aws: Aws) -> None:
    aws.hold()
    put(aws, "photos/train/red/0.png", b"x")
    sagemaker = caller(aws, "sagemaker")
    for number in range(12):
        sagemaker.create_training_job(**job(aws, f"job-{number:02d}", Tags=[{"Key": "n", "Value": str(number)}]))
    first = sagemaker.list_training_jobs()
    assert len(first["TrainingJobSummaries"]) == 10
    second = sagemaker.list_training_jobs(NextToken=first["NextToken"])
    assert [row["TrainingJobName"] for row in second["TrainingJobSummaries"]] == ["job-10", "job-11"]
    sagemaker.stop_training_job(TrainingJobName="job-07")
    found = sagemaker.list_training_jobs(StatusEquals="Stopped", NameContains="job")["TrainingJobSummaries"]
    assert [row["TrainingJobName"] for row in found] == ["job-07"]
    tags = sagemaker.list_tags(ResourceArn=found[0]["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "n", "Value": "7"}]
    code, _ = refused(sagemaker.create_training_job, **job(aws, "job-03"))
    assert code == "ResourceInUse"
    _, message = refused(sagemaker.describe_training_job, TrainingJobName="other")
    assert message == "Requested resource not found."


def test_a_model_needs_its_image_and_its_data(aws: Aws) -> None:
    sagemaker = caller(aws, "sagemaker")
    there = {"Image": aws.image, "ModelDataUrl": f"s3://{aws.bucket}/m.tar.gz"}
    asked = {"ModelName": "m", "ExecutionRoleArn": aws.role}
    _, message = refused(sagemaker.create_model, **asked, PrimaryContainer=there)
    assert message.startswith(f"Could not access model data at s3://{aws.bucket}/m.tar.gz.")
    put(aws, "m.tar.gz", b"x")
    _, message = refused(sagemaker.create_model, **asked, PrimaryContainer={**there, "Image": f"{aws.image}2"})
    assert message == f"Requested image {aws.image}2 not found."
    sagemaker.create_model(**asked, PrimaryContainer=there)
    variant = {"VariantName": "v", "InstanceType": "ml.c7i.large", "InitialInstanceCount": 1}
    config = sagemaker.create_endpoint_config
    _, message = refused(config, EndpointConfigName="c", ProductionVariants=[{**variant, "ModelName": "other"}])
    assert message == 'Could not find model "arn:aws:sagemaker:eu-west-1:123456789012:model/other".'
    config(EndpointConfigName="c", ProductionVariants=[{**variant, "ModelName": "m"}])
    aws.quota("ml.c7i.large for endpoint usage", 0)
    code, _ = refused(sagemaker.create_endpoint, EndpointName="e", EndpointConfigName="c")
    assert code == "ResourceLimitExceeded"
    aws.hold()
    aws.quota("ml.c7i.large for endpoint usage", 1)
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    config(EndpointConfigName="d", ProductionVariants=[{**variant, "ModelName": "m"}])
    sagemaker.delete_endpoint_config(EndpointConfigName="c")
    code, _ = refused(sagemaker.create_endpoint, EndpointName="f", EndpointConfigName="d")
    assert code == "ResourceLimitExceeded"
    assert sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Creating"


def test_what_is_scaled_is_in_service_and_keeps_its_instance_type(aws: Aws) -> None:
    sagemaker, scaling = caller(aws, "sagemaker"), caller(aws, "application-autoscaling")
    put(aws, "m.tar.gz", b"x")
    container = {"Image": aws.image, "ModelDataUrl": f"s3://{aws.bucket}/m.tar.gz"}
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=aws.role, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1}
    for name, kind in (("c", "ml.c7i.large"), ("d", "ml.c6i.large")):
        sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[{**variant, "InstanceType": kind}]
        )
    target = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/e/variant/v"}
    target["ScalableDimension"] = "sagemaker:variant:DesiredInstanceCount"
    aws.hold()
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    _, message = refused(scaling.register_scalable_target, **target, MinCapacity=1, MaxCapacity=2)
    assert message == "The endpoint e is not in service: Creating."
    aws.change("Endpoint", "e", EndpointStatus="InService")
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    tracking = {"TargetValue": 1.0, "PredefinedMetricSpecification": metric}
    policy = {**target, "PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": tracking}
    code, _ = refused(scaling.put_scaling_policy, **policy, PolicyName="p")
    assert code == "ObjectNotFoundException"
    scaling.register_scalable_target(**target, MinCapacity=2, MaxCapacity=3)
    assert sagemaker.describe_endpoint(EndpointName="e")["ProductionVariants"][0]["DesiredInstanceCount"] == 2
    scaling.put_scaling_policy(**policy, PolicyName="p")
    code, _ = refused(scaling.put_scaling_policy, **policy, PolicyName="q")
    assert code == "ValidationException"
    _, message = refused(sagemaker.update_endpoint, EndpointName="e", EndpointConfigName="d")
    assert "Deregister it as a scalable target first" in message
    aws.deny("application-autoscaling", "DeregisterScalableTarget")
    code, _ = refused(sagemaker.delete_endpoint, EndpointName="e")
    assert code == "AccessDeniedException"
    without = [{"VariantName": "v", "InstanceType": "ml.c7i.large", "InitialInstanceCount": 1}]
    _, message = refused(sagemaker.create_endpoint_config, EndpointConfigName="f", ProductionVariants=without)
    assert message.startswith("ModelName is required")
    capture = {"DestinationS3Uri": "s3://other/x", "InitialSamplingPercentage": 1, "CaptureOptions": []}
    asked = {"EndpointConfigName": "f", "ProductionVariants": [{**variant, "InstanceType": "ml.c7i.large"}]}
    _, message = refused(sagemaker.create_endpoint_config, **asked, DataCaptureConfig=capture)
    assert "captureOptions" in message


def test_a_large_object_comes_in_parts(aws: Aws) -> None:
    s3 = caller(aws, "s3")
    where = {"Bucket": aws.bucket, "Key": "large"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    part = {"PartNumber": 1, "ETag": s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x" * 99)["ETag"]}
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": [part]})
    s3.copy_object(Bucket=aws.bucket, Key="copy", CopySource=where)
    assert s3.list_objects_v2(Bucket=aws.bucket)["KeyCount"] == 2
    assert [one.operation for one in aws.requests] == [
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "CopyObject",
        "ListObjectsV2",
    ]


def test_a_caller_who_may_not(aws: Aws) -> None:
    for service, operation in (("sagemaker", "ListModels"), ("s3", "PutObject"), ("iam", "GetRole")):
        aws.deny(service, operation)
    sentence = "User: arn:aws:iam::123456789012:user/someone is not authorized to perform: "
    code, message = refused(caller(aws, "sagemaker").list_models)
    assert code == "AccessDeniedException"
    assert message.startswith(f"{sentence}sagemaker:ListModels")
    s3 = caller(aws, "s3")
    code, message = refused(s3.put_object, Bucket=aws.bucket, Key="a", Body=b"x" * 100_000)
    assert (code, message.startswith(sentence)) == ("AccessDenied", True)
    assert s3.list_objects_v2(Bucket=aws.bucket)["KeyCount"] == 0
    code, message = refused(caller(aws, "iam").get_role, RoleName="kennel-execution")
    assert (code, message.startswith(sentence)) == ("AccessDenied", True)


def test_a_schedule_is_judged_and_kept(aws: Aws) -> None:
    scheduler = caller(aws, "scheduler")
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:sagemaker:deleteEndpoint", "RoleArn": aws.role, "Input": "{}"}
    asked = {"Name": "end", "Target": target, "FlexibleTimeWindow": {"Mode": "OFF"}}
    code, message = refused(scheduler.create_schedule, **{**asked, "FlexibleTimeWindow": {"Mode": "NEVER"}})
    assert code == "ValidationException"
    assert "Value 'NEVER' at 'flexibleTimeWindow.mode'" in message
    scheduler.create_schedule(**asked, ScheduleExpression="at(2030-01-01T00:00:00)")
    assert scheduler.get_schedule(Name="end")["Target"]["Arn"] == target["Arn"]
    assert aws.asked("scheduler", "CreateSchedule")[-1]["Name"] == "end"
    put(aws, "m.tar.gz", b"x")
    container = {"Image": aws.image, "ModelDataUrl": f"s3://{aws.bucket}/m.tar.gz"}
    sagemaker = caller(aws, "sagemaker")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=aws.role, PrimaryContainer=container)
    other = {**target, "Arn": target["Arn"].replace("deleteEndpoint", "deleteModel"), "Input": '{"ModelName": "m"}'}
    scheduler.create_schedule(**{**asked, "Name": "m", "Target": other}, ScheduleExpression="at(2030-01-01T00:00:00)")
    aws.fire("m")
    assert sagemaker.list_models()["Models"] == []


def test_a_call_that_is_not_emulated_is_refused(aws: Aws) -> None:
    code, _ = refused(caller(aws, "sagemaker").create_feature_group, FeatureGroupName="f")
    assert code == "ValidationException"
    code, message = refused(caller(aws, "sagemaker").search, Resource="TrainingJob")
    assert code == "NotImplemented"
    assert "Search" in message
