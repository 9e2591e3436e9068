"""What a training job left beside its model: files of its output.tar.gz in S3."""

from collections.abc import Collection

from kennel.errors import UserError
from kennel_launch.aws import s3, session
from kennel_launch.aws.inventory import Resource
from kennel_launch.machine import archive
from kennel_launch.settings import Settings


class NoOutputError(UserError):
    """The job has ended and left none."""


def address(job: Resource) -> str:
    """Where SageMaker puts it, s3://."""
    return f"{job.about['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{job.name}/output/output.tar.gz"


def read(job: Resource, names: Collection[str], settings: Settings) -> dict[str, bytes]:
    """Those of the files that are in it, by name; of the archive nothing else is kept, nothing is put on the disk.

    Raises:
        NoOutputError: there is no output.
        UserError: the job has not ended, or AWS refuses.
    """
    if not job.ended:
        raise UserError(
            f"training job {job.name} is {job.status}: its report comes at the end, kennel status {job.name}"
        )
    uri = address(job)
    bucket, key = s3.split(uri)
    client = session.client("s3", settings)
    with session.translate_errors(uri):
        try:
            body = client.get_object(Bucket=bucket, Key=key)["Body"]
        except client.exceptions.NoSuchKey as error:
            raise NoOutputError(
                f"training job {job.name} has left no output ({uri}; it is {job.status}): kennel logs {job.name}"
            ) from error
        return archive.members(body, uri, names)
