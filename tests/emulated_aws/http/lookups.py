"""What exists in the emulated account, by the names that a request has for it: objects, buckets, images."""

import re
from typing import Any

from botocore.exceptions import ClientError

from .account import REGION, Account
from .resources import ACCOUNT

IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/(?P<name>[^:@]+)"
    r"(:(?P<tag>[^@]+))?(@(?P<digest>sha256:[0-9a-f]+))?"
)


def containers(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of a model; of one that names a package of the registry, the package's."""
    return params.get("ServedContainers") or params.get("Containers") or [params.get("PrimaryContainer", {})]


def s3_parts(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def key_there(account: Account, url: str) -> bool:
    bucket, key = s3_parts(url)
    try:
        account.client("s3").head_object(Bucket=bucket, Key=key)
    except ClientError:
        return False
    return True


def image_there(account: Account, image: str) -> bool:
    """Whether the emulated ECR has an image; AWS looks at the caller's registries alone."""
    parts = IMAGE.fullmatch(image)
    if not parts or parts["account"] != ACCOUNT or parts["region"] != REGION:
        return False
    wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"] or "latest"}
    try:
        account.client("ecr").describe_images(repositoryName=parts["name"], imageIds=[wanted])
    except ClientError:
        return False
    return True


def bucket_there(account: Account, url: str) -> bool:
    try:
        account.client("s3").head_bucket(Bucket=s3_parts(url)[0])
    except ClientError:
        return False
    return True
