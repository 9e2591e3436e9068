"""What of ours there is on SageMaker: jobs and endpoints, found by name or by our tag. Changes nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kennel.errors import UserError
from kennel_launch import aws
from kennel_launch.settings import Settings

PREFIX = "kennel"  # of names that we choose; what has another is known by its tag
NEWEST = 50  # of each kind are looked at
ENDED = ("Completed", "Failed", "Stopped")
_ABSENT = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")


@dataclass(frozen=True)
class Kind:
    """How SageMaker's API speaks of one kind of thing."""

    shown: str
    noun: str  # in the names of operations and members: TrainingJob
    log_group: str  # of CloudWatch, without the name where one group holds many

    @property
    def snake(self) -> str:
        return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in self.noun).lstrip("_")

    @property
    def summaries(self) -> str:
        return "Endpoints" if self.noun == "Endpoint" else f"{self.noun}Summaries"


TRAINING = Kind("training", "TrainingJob", "/aws/sagemaker/TrainingJobs")
TUNING = Kind("tuning", "HyperParameterTuningJob", "")  # its training jobs have the logs
TRANSFORM = Kind("transform", "TransformJob", "/aws/sagemaker/TransformJobs")
ENDPOINT = Kind("endpoint", "Endpoint", "/aws/sagemaker/Endpoints")
KINDS = (TRAINING, TUNING, TRANSFORM, ENDPOINT)


@dataclass(frozen=True)
class Resource:
    """One job or endpoint; `about` is what SageMaker says of it, in short (of a list) or in full (of find)."""

    kind: Kind
    name: str
    status: str
    created: datetime
    about: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        return self.status in ENDED


def find(name: str, told: Settings, kinds: tuple[Kind, ...] = KINDS) -> Resource:
    """The job or endpoint of that name, in full; the first of those kinds.

    Raises:
        UserError: there is none, or AWS refuses.
    """
    client = aws.client("sagemaker", told)
    for kind in kinds:
        if about := _described(client, kind, name):
            return _resource(kind, about)
    shown = " or ".join(kind.shown + ("" if kind is ENDPOINT else " job") for kind in kinds)
    raise UserError(f"there is no {shown} {name!r} in {aws.region(told)}: kennel status lists what there is")


def ours(told: Settings) -> list[Resource]:
    """The newest of each kind that are ours, the newest first.

    Raises:
        UserError: AWS refuses.
    """
    client = aws.client("sagemaker", told)
    with aws.told("what there is on SageMaker"):
        found = [resource for kind in KINDS for resource in _listed(client, kind)]
    return sorted(found, key=lambda resource: resource.created, reverse=True)


def _listed(client: Any, kind: Kind) -> Iterator[Resource]:
    answer = getattr(client, f"list_{kind.snake}s")(SortBy="CreationTime", SortOrder="Descending", MaxResults=NEWEST)
    for about in answer[kind.summaries]:
        resource = _resource(kind, about)
        if resource.name.startswith(PREFIX) or _is_tagged(client, about[f"{kind.noun}Arn"]):
            yield resource


def _is_tagged(client: Any, arn: str) -> bool:
    return any(tag["Key"] == PREFIX for tag in client.list_tags(ResourceArn=arn)["Tags"])


def _described(client: Any, kind: Kind, name: str) -> Mapping[str, Any] | None:
    from botocore.exceptions import ClientError

    with aws.told(f"{kind.shown} {name}"):
        try:
            answer: Mapping[str, Any] = getattr(client, f"describe_{kind.snake}")(**{f"{kind.noun}Name": name})
        except ClientError as error:
            if aws.code_of(error) in _ABSENT:
                return None
            raise
    return answer


def _resource(kind: Kind, about: Mapping[str, Any]) -> Resource:
    name, status = (str(about[f"{kind.noun}{what}"]) for what in ("Name", "Status"))
    return Resource(kind, name, status, about["CreationTime"], about)
