"""Who launches, under which role, with which bucket: what of that would fail only after minutes is found before.

Asks IAM, S3 and STS; what these don't answer is a line, not a refusal.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kennel.errors import UserError
from kennel_launch.advice.images import Address
from kennel_launch.aws import readonly, session
from kennel_launch.settings import Settings

SERVICE = "sagemaker.amazonaws.com"
# https://docs.aws.amazon.com/sagemaker/latest/dg/train-remote-debugging.html
_REMOTE_DEBUG = tuple(f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data"))
# By a pipeline's role: https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-access.html (2026-11)
_PIPELINE = (
    *(f"sagemaker:{verb}TrainingJob" for verb in ("Create", "Describe", "Stop")),
    "sagemaker:CreateModelPackage",
    "sagemaker:AddTags",
)
ROLES_PAGE = "https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html"


def account(settings: Settings) -> str:
    """The caller's account.

    Raises:
        UserError: no credentials, or none that AWS knows.
    """
    with session.translate_errors("your AWS account"):
        return str(session.client("sts", settings).get_caller_identity()["Account"])


def check_role(settings: Settings, image: Address) -> list[str]:
    """
    Returns:
        lines: what could not be checked.

    Raises:
        UserError: there is no such role, SageMaker may not take it, or it may not use the bucket.
    """
    lines: list[str] = []
    name = settings.role.rpartition("/")[2]
    client = readonly.client("iam", settings)
    role: dict[str, Any] = {}
    with readonly.if_allowed(f"role {name}", lines):
        try:
            role = client.get_role(RoleName=name)["Role"]
        except client.exceptions.NoSuchEntityException as error:
            raise UserError(
                f"there is no role {name!r} in this account: create one for SageMaker ({ROLES_PAGE}) and name it "
                "by --role"
            ) from error
    if not role:
        return lines
    if settings.role.startswith("arn:") and settings.role != role["Arn"]:
        raise UserError(f"role {settings.role} is not of this account, which has {role['Arn']}: name that by --role")
    if not _trusts(role.get("AssumeRolePolicyDocument", {})):
        raise UserError(
            f"role {name!r} does not trust {SERVICE}: let that service assume it, as {ROLES_PAGE} shows, or name "
            "another by --role"
        )
    with readonly.if_allowed(f"whether role {name} may use the bucket and the image", lines):
        lines += _rights(client, role["Arn"], settings, image)
    return lines


def check_remote_debug(settings: Settings, lines: list[str]) -> None:
    """Adds a line where that could not be checked.

    Raises:
        UserError: the role may not open the channels to Systems Manager that a shell goes by.
    """
    name = settings.role.rpartition("/")[2]
    client = readonly.client("iam", settings)
    with readonly.if_allowed(f"whether role {name} may open a remote shell", lines):
        role = client.get_role(RoleName=name)["Role"]["Arn"]
        missing = list(_denied(client, role, _REMOTE_DEBUG, "*"))
        if missing:
            raise UserError(f"--remote-debug: role {name!r} may not {', '.join(missing)}: add these rights to it, on *")


def check_pipeline(settings: Settings) -> list[str]:
    """
    Returns:
        lines: which rights of a pipeline's the role lacks, or that this could not be checked.
    """
    role = settings.role
    lines: list[str] = []
    with readonly.if_allowed(f"whether role {role.rpartition('/')[2]} may run a pipeline", lines):
        client = readonly.client("iam", settings)
        for actions, resource in ((_PIPELINE, "*"), (("iam:PassRole",), role)):
            lines += [_lacks(role, action, resource) for action in _denied(client, role, actions, resource)]
    return lines


def check_bucket(settings: Settings) -> list[str]:
    """
    Returns:
        lines: that the caller may not look at it, which the role may all the same.

    Raises:
        UserError: there is no such bucket, or it lies in another region.
    """
    from botocore.exceptions import ClientError

    lines: list[str] = []
    here, bucket = session.region(settings), settings.bucket
    there = here
    with readonly.if_allowed(f"bucket {bucket}", lines):
        try:
            there = readonly.client("s3", settings).head_bucket(Bucket=bucket).get("BucketRegion", here)
        except ClientError as error:  # HEAD has no body, so that the code is the status
            metadata = error.response["ResponseMetadata"]
            there = metadata["HTTPHeaders"].get("x-amz-bucket-region", here)
            if metadata["HTTPStatusCode"] == 404:
                raise UserError(
                    f"there is no bucket {bucket!r}: create it in {here}, or name another by --bucket"
                ) from error
            if there == here:
                raise
    if there != here:
        raise UserError(
            f"bucket {bucket!r} lies in {there}, the launch in {here}: name one of both by --region, --bucket"
        )
    return lines


def _trusts(policy: Mapping[str, Any]) -> bool:
    """Whether a trust policy lets SageMaker take the role."""
    statements = policy.get("Statement", [])
    for one in statements if isinstance(statements, list) else [statements]:
        principal = one.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        if one.get("Effect") == "Allow" and SERVICE in ([services] if isinstance(services, str) else services):
            return True
    return False


def _rights(client: Any, role: str, settings: Settings, image: Address) -> list[str]:
    """What IAM's simulator says of the role's own policies, which knows nothing of a bucket's or a repository's own.

    Raises:
        UserError: a right to the bucket is missing, and the bucket has no policy that could give it.
    """
    partition = role.split(":")[1]
    bucket = f"arn:{partition}:s3:::{settings.bucket}"
    repository = f"arn:{partition}:ecr:{image.region}:{image.account}:repository/{image.name}"
    wanted = [(["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], repository)]
    if settings.bucket:
        wanted += [(["s3:ListBucket"], bucket), (["s3:GetObject", "s3:PutObject"], f"{bucket}/{settings.prefix}/x")]
    lines = []
    for actions, resource in wanted:
        for action in _denied(client, role, actions, resource):
            if action.startswith("s3:") and not _has_policy(settings):
                raise UserError(
                    f"role {role.rpartition('/')[2]!r} may not {action} in bucket {settings.bucket!r}: add that "
                    "right to the role, or name another by --role"
                )
            lines.append(_lacks(role, action, resource))
    return lines


def _denied(client: Any, role: str, actions: Sequence[str], resource: str) -> Iterator[str]:
    """The actions that the role's own policies do not allow, by IAM's simulator."""
    answer = client.simulate_principal_policy(PolicySourceArn=role, ActionNames=list(actions), ResourceArns=[resource])
    for result in answer["EvaluationResults"]:
        if result["EvalDecision"] != "allowed":
            yield result["EvalActionName"]


def _lacks(role: str, action: str, resource: str) -> str:
    return f"role {role.rpartition('/')[2]} has no right {action} of its own on {resource}"


def _has_policy(settings: Settings) -> bool:
    """Whether the bucket has a policy, or may have one that we can't see."""
    from botocore.exceptions import ClientError

    try:
        return bool(json.loads(readonly.client("s3", settings).get_bucket_policy(Bucket=settings.bucket)["Policy"]))
    except ClientError as error:
        return session.code_of(error) != "NoSuchBucketPolicy"
