"""Addresses in S3 and what lies under them. What is uploaded for training is `upload`'s."""

from collections.abc import Iterator
from typing import Any

from kennel.errors import UserError
from kennel_launch.settings import Settings

PARALLEL = 10  # as many connections as botocore keeps
_MOST = 1000  # objects of one DeleteObjects request


def is_address(text: str) -> bool:
    return text.startswith("s3://")


def split(address: str) -> tuple[str, str]:
    """(bucket, key) of s3://bucket/key.

    Raises:
        UserError: it is none.
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not is_address(address) or not bucket:
        raise UserError(f"{address!r} is no address in S3: write s3://BUCKET/KEY")
    return bucket, key


def keys(client: Any, bucket: str, prefix: str, *, markers: bool = False) -> Iterator[str]:
    """The keys under a prefix, in S3's order; `markers`: also the empty objects that stand for folders."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (item["Key"] for item in page.get("Contents", []) if markers or not item["Key"].endswith("/"))


def remove(client: Any, bucket: str, prefix: str) -> int:
    """Removes what lies under a prefix, folder markers too; how many objects that were.

    Raises:
        UserError: S3 kept some.
    """
    count = 0
    for page in client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": _MOST}
    ):
        objects = [{"Key": item["Key"]} for item in page.get("Contents", [])]
        if objects:
            kept = client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True}).get("Errors", [])
            if kept:
                why = f"{kept[0].get('Key')}: {kept[0].get('Message', kept[0].get('Code'))}"
                raise UserError(f"s3://{bucket}/{prefix}: {len(kept)} objects were not removed ({why})")
            count += len(objects)
    return count


def encryption(settings: Settings) -> dict[str, str]:
    """Arguments of put_object by which the user's key encrypts."""
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.kms_key} if settings.kms_key else {}
