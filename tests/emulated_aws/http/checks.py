"""What SageMaker looks up before it makes anything: roles, buckets, images, models, instance types, quotas.

The sentences are AWS's own, as users quote them, where such a quotation was found (aws/amazon-sagemaker-examples issues
2267, 2450; aws-samples/easy-amazon-sagemaker-deployments issue 4; awslabs/predictive-maintenance-using-machine-learning
issue 3); the others are of their manner.
"""

from typing import Any

from botocore.exceptions import ClientError

from kennel_launch.aws import instance_types

from . import limits
from .account import REGION, Account
from .errors import AwsError, invalid
from .lookups import IMAGE, bucket_there, containers, image_there, key_there, s3_parts
from .recognition import Call
from .resources import ACCOUNT


def allowed(account: Account, call: Call) -> None:
    """
    Raises:
        AwsError: the caller may not do this.
    """
    if (call.service, call.operation) in account.denied:
        action = f"{call.service.removesuffix('-runtime')}:{call.operation}"
        raise AwsError(
            "AccessDenied" if call.service in ("s3", "iam", "sts") else "AccessDeniedException",
            f"User: arn:aws:iam::{ACCOUNT}:user/someone is not authorized to perform: {action} because no "
            f"identity-based policy allows the {action} action",
            403 if call.service in ("s3", "iam", "sts") else 400,
        )


def training(account: Account, params: dict[str, Any]) -> None:
    """
    Raises:
        AwsError: CreateTrainingJob, or one definition of a tuning job, refused.
    """
    spec, resources = params["AlgorithmSpecification"], params.get("ResourceConfig", {})
    if bool(spec.get("TrainingImage")) == bool(spec.get("AlgorithmName")):
        raise invalid("Invalid request: provide either AlgorithmName or TrainingImage, not both and not neither.")
    trusted_role(account, params["RoleArn"])
    if spec.get("TrainingImage"):
        _training_image(account, spec["TrainingImage"], params["RoleArn"])
    _channels(account, params)
    _spot(params)
    if "VolumeKmsKeyId" in resources and instance_types.has_own_disk(resources.get("InstanceType", "")):
        # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
        raise invalid("VolumeKmsKeyId is not supported for an instance type with local storage.")
    _bucket_of(account, params["OutputDataConfig"]["S3OutputPath"], params["RoleArn"])
    if "CheckpointConfig" in params:
        _bucket_of(account, params["CheckpointConfig"]["S3Uri"], params["RoleArn"])
    use = "spot training job usage" if params.get("EnableManagedSpotTraining") else "training job usage"
    limits.check(account, resources.get("InstanceType", ""), use, resources.get("InstanceCount", 1))


def model(account: Account, params: dict[str, Any]) -> None:
    """
    Raises:
        AwsError: CreateModel refused.
    """
    role = params.get("ExecutionRoleArn", "")
    trusted_role(account, role)
    for container in containers(params):
        served(account, container, role)


def served(account: Account, container: dict[str, Any], role: str) -> None:
    """
    Raises:
        AwsError: a container's image or model is not there.
    """
    if not image_there(account, container.get("Image", "")):
        raise invalid(f"Requested image {container.get('Image')} not found.")
    url = container.get("ModelDataUrl", "")
    many = container.get("Mode") == "MultiModel"
    if url and not (bucket_there(account, url) if many else key_there(account, url)):
        raise invalid(
            f'Could not access model data at {url}. Please ensure that the role "{role}" exists and that its trust '
            'relationship policy allows the action "sts:AssumeRole" for the service principal '
            '"sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" permissions and that the '
            f"object is located in {REGION}."
        )


def endpoint_config(account: Account, params: dict[str, Any]) -> None:
    """
    Raises:
        AwsError: CreateEndpointConfig refused.
    """
    for variant in params["ProductionVariants"]:
        _model_of(account, variant, params)
        if sum(name in variant for name in ("ServerlessConfig", "InstanceType", "InstancePools")) != 1:
            raise invalid("Provide one of InstanceType, InstancePools or ServerlessConfig for each variant.")
        pools = variant.get("InstancePools", [])
        if any(len({pool[name] for pool in pools}) < len(pools) for name in ("InstanceType", "Priority")):
            raise invalid("InstancePools must differ in InstanceType and in Priority.")
        if "ServerlessConfig" in variant and "InferenceAmiVersion" in variant:
            raise invalid("InferenceAmiVersion is not supported for serverless endpoints.")
        serverless = variant.get("ServerlessConfig", {})
        if serverless.get("ProvisionedConcurrency", 0) > serverless.get("MaxConcurrency", 0):
            raise invalid("ProvisionedConcurrency must be less than or equal to MaxConcurrency.")
        # https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html
        if serverless and "DataCaptureConfig" in params:
            raise invalid("DataCaptureConfig is not supported for serverless endpoints.")
    if "AsyncInferenceConfig" in params:
        _bucket_of(account, params["AsyncInferenceConfig"]["OutputConfig"].get("S3OutputPath", ""), "the model's role")
    if "DataCaptureConfig" in params:
        _bucket_of(account, params["DataCaptureConfig"]["DestinationS3Uri"], "the model's role")


def _model_of(account: Account, variant: dict[str, Any], config: dict[str, Any]) -> None:
    """A variant without a model is one for inference components; only that one may have no instances.

    Raises:
        AwsError: there is no such model, or what it needs instead is missing.
    """
    least = variant.get("ManagedInstanceScaling", {}).get("MinInstanceCount", 1)
    if "ModelName" in variant:
        account.store.get("Model", variant["ModelName"])
        if least < 1:
            raise invalid("MinInstanceCount 0 is supported for endpoints with inference components only.")
    elif "ServerlessConfig" in variant or "ExecutionRoleArn" not in config:
        raise invalid("ModelName is required, or an ExecutionRoleArn for inference components on instances.")


def endpoint(account: Account, config: dict[str, Any]) -> None:
    """
    Raises:
        AwsError: CreateEndpoint refused.
    """
    for variant in config["ProductionVariants"]:
        _model_of(account, variant, config)
        kind = limits.first_type(variant)
        limits.check(account, kind, "endpoint usage", variant.get("InitialInstanceCount", 1))


def scaled(targets: list[dict[str, Any]], before: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """What a scalable target does not let an update change.

    https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html

    Args:
        targets: the endpoint's.
        before: its variants, as its configuration has them.

    Raises:
        AwsError: UpdateEndpoint refused.
    """
    keys = ("InstanceType", "InstancePools")
    types = [
        {one["VariantName"]: [one.get(key) for key in keys] for one in rows}
        for rows in (before, config["ProductionVariants"])
    ]
    for target in targets:
        variant = target["ResourceId"].rpartition("/")[2]
        if types[0].get(variant) != types[1].get(variant):
            raise invalid(
                f"Cannot change or remove the instance type of variant {variant} while it is configured for auto "
                "scaling. Deregister it as a scalable target first."
            )


def transform(account: Account, params: dict[str, Any]) -> None:
    """
    Raises:
        AwsError: CreateTransformJob refused.
    """
    role = account.store.get("Model", params["ModelName"]).get("ExecutionRoleArn", "")
    source = params["TransformInput"]["DataSource"]["S3DataSource"]
    _objects(account, source["S3Uri"], role)
    _bucket_of(account, params["TransformOutput"]["S3OutputPath"], role)
    resources = params["TransformResources"]
    limits.check(account, resources["InstanceType"], "transform job usage", resources["InstanceCount"])


def trusted_role(account: Account, arn: str) -> None:
    """
    Raises:
        AwsError: there is no such role, or SageMaker may not take it.
    """
    name = arn.rpartition("/")[2]
    try:
        role = account.client("iam").get_role(RoleName=name)["Role"]
    except ClientError:
        role = None
    if not role or role["Arn"] != arn or "sagemaker.amazonaws.com" not in str(role["AssumeRolePolicyDocument"]):
        raise invalid(
            f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
            "'sagemaker.amazonaws.com' to assume the role."
        )


def _training_image(account: Account, image: str, role: str) -> None:
    parts = IMAGE.fullmatch(image)
    if not parts:
        raise invalid(
            "Invalid training image. Please provide a valid Amazon Elastic Container Registry path of the Docker image "
            "to run."
        )
    if not image_there(account, image):
        tag, digest = (parts[part] or "null" for part in ("tag", "digest"))
        raise invalid(
            f"Cannot find the requested image: {image} with tag: {tag} and digest: {digest}. "
            f"Please check if your ECR image exists and role {role} has proper pull permissions for SageMaker: "
            "ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer"
        )


def _channels(account: Account, params: dict[str, Any]) -> None:
    names = [channel["ChannelName"] for channel in params.get("InputDataConfig", [])]
    if len(names) > len(set(names)):
        raise invalid("Duplicate channel names are not allowed.")
    for channel in params.get("InputDataConfig", []):
        source = channel["DataSource"].get("S3DataSource")
        mode = channel.get("InputMode", params["AlgorithmSpecification"]["TrainingInputMode"])
        listed = source and source["S3DataType"] == "AugmentedManifestFile"
        # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_S3DataSource.html
        if listed and (mode != "Pipe" or not source.get("AttributeNames")):
            raise invalid("AugmentedManifestFile is supported in Pipe mode only, and requires AttributeNames.")
        if source:
            _objects(account, source["S3Uri"], params["RoleArn"])


def _spot(params: dict[str, Any]) -> None:
    limits = params.get("StoppingCondition", {})
    longest = limits.get("MaxWaitTimeInSeconds")
    if params.get("EnableManagedSpotTraining"):
        if longest is None or longest < limits.get("MaxRuntimeInSeconds", 86400):
            raise invalid(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds."
            )
    elif longest is not None:
        raise invalid("MaxWaitTimeInSeconds is only supported with managed spot training.")


def _objects(account: Account, url: str, role: str) -> None:
    bucket, key = s3_parts(url)
    there = bucket_there(account, url)
    if not there or not account.client("s3").list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)["KeyCount"]:
        raise invalid(
            f'No S3 objects found under S3 URL "{url}" given in input data source. Please ensure that the bucket '
            f"exists in the selected region ({REGION}), that objects exist under that S3 prefix, and that the role "
            f'"{role}" has "s3:ListBucket" permissions on bucket "{bucket}".'
        )


def _bucket_of(account: Account, url: str, role: str) -> None:
    if url and not bucket_there(account, url):
        raise invalid(
            f'S3 bucket "{s3_parts(url)[0]}" of output path "{url}" does not exist. Please ensure that the bucket '
            f'exists in the selected region ({REGION}) and that the role "{role}" has "s3:PutObject" permissions on it.'
        )
