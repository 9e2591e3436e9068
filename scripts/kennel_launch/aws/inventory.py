"""What of ours there is on SageMaker, by name or by our tag: jobs, endpoints, pipelines, groups. Changes nothing."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import session
from kennel_launch.settings import Settings

PREFIX = "kennel"  # of names that we choose; what has another is known by its tag
NEWEST = 50  # jobs of each kind, of all and of those with our name, are looked at; and all that cost by the hour
ENDED = ("Completed", "Failed", "Stopped")
_ABSENT = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")


@dataclass(frozen=True)
class Kind:
    """How SageMaker's API speaks of one kind of thing."""

    shown: str
    noun: str  # in the names of operations and members: TrainingJob
    log_group: str = ""  # of CloudWatch, without the name where one group holds many
    rows: str = ""  # the member of its list

    @property
    def snake(self) -> str:
        return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in self.noun).lstrip("_")

    @property
    def summaries(self) -> str:
        return self.rows or f"{self.noun}Summaries"

    @property
    def is_job(self) -> bool:
        return self.noun.endswith("Job")


TRAINING = Kind("training", "TrainingJob", "/aws/sagemaker/TrainingJobs")
TUNING = Kind("tuning", "HyperParameterTuningJob")  # its training jobs have the logs
TRANSFORM = Kind("transform", "TransformJob", "/aws/sagemaker/TransformJobs")
ENDPOINT = Kind("endpoint", "Endpoint", "/aws/sagemaker/Endpoints", "Endpoints")
PIPELINE = Kind("pipeline", "Pipeline")
GROUP = Kind("model package group", "ModelPackageGroup", rows="ModelPackageGroupSummaryList")
KINDS = (TRAINING, TUNING, TRANSFORM, ENDPOINT)  # those that run by themselves
ALL = (*KINDS, PIPELINE, GROUP)


@dataclass(frozen=True)
class Resource:
    """One job, endpoint, pipeline or group; `about`: what SageMaker says, in short (of a list) or in full (of find)."""

    kind: Kind
    name: str
    status: str
    created: datetime
    about: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        return self.status in ENDED


def find(name: str, settings: Settings, kinds: tuple[Kind, ...] = KINDS) -> Resource:
    """What has that name, in full; the first of those kinds.

    Raises:
        UserError: there is none, or AWS refuses.
    """
    client = session.client("sagemaker", settings)
    for kind in kinds:
        if about := _described(client, kind, name):
            return _resource(kind, about)
    shown = " or ".join(kind.shown + (" job" if kind.is_job else "") for kind in kinds)
    raise UserError(f"there is no {shown} {name!r} in {session.region(settings)}: kennel status lists what there is")


def ours(settings: Settings) -> list[Resource]:
    """What is ours, the newest first: all that stays, all jobs that run, and the newest of those that have ended.

    Raises:
        UserError: AWS refuses.
    """
    client = session.client("sagemaker", settings)
    with session.translate_errors("what there is on SageMaker"):
        found = [resource for kind in KINDS for resource in _listed(client, kind)]
    for kind in (PIPELINE, GROUP):  # rights that not all have who train and deploy
        try:
            with session.translate_errors(f"whether there are {kind.shown}s"):
                found += _listed(client, kind)
        except UserError as error:
            if not session.is_denied(error):
                raise
            print(f"not known: {error}", file=sys.stderr)
    return sorted(found, key=lambda resource: resource.created, reverse=True)


def is_tagged(client: Any, arn: str) -> bool:
    """Whether it has our tag; what is gone since it was listed has none."""
    found = session.describe(client, "list_tags", ResourceArn=arn) or {}
    return any((tag["Key"], tag["Value"]) in kennel_settings.TAG.items() for tag in found.get("Tags", []))


def _listed(client: Any, kind: Kind) -> Iterator[Resource]:
    """An account may have thousands of others' jobs: of those that have ended only so many are looked at."""
    asked: tuple[dict[str, Any], ...] = ({},)
    if kind.is_job:
        newest = {"PaginationConfig": {"MaxItems": NEWEST, "PageSize": NEWEST}}
        running = ({"StatusEquals": "InProgress"}, {"StatusEquals": "Stopping"})
        asked = (*running, newest, newest | {"NameContains": PREFIX})
    pages = client.get_paginator(f"list_{kind.snake}s").paginate
    order = {"SortBy": "CreationTime", "SortOrder": "Descending"}
    found = {
        about[f"{kind.noun}Name"]: about
        for one in asked
        for page in pages(**order, **one)
        for about in page[kind.summaries]
    }
    for name, about in found.items():
        if name.startswith(PREFIX) or is_tagged(client, about[f"{kind.noun}Arn"]):
            yield _resource(kind, about)


def _described(client: Any, kind: Kind, name: str) -> Mapping[str, Any] | None:
    from botocore.exceptions import ClientError

    with session.translate_errors(f"{kind.shown} {name}"):
        try:
            answer: Mapping[str, Any] = getattr(client, f"describe_{kind.snake}")(**{f"{kind.noun}Name": name})
        except ClientError as error:
            if session.code_of(error) in _ABSENT:
                return None
            raise
    return answer


def _resource(kind: Kind, about: Mapping[str, Any]) -> Resource:
    status = about.get(f"{kind.noun}Status", "Active")  # a list of pipelines leaves it out
    return Resource(kind, str(about[f"{kind.noun}Name"]), str(status), about["CreationTime"], about)


def best_training_job(tuning: Resource) -> Mapping[str, Any]:
    """What SageMaker says of a tuning job's best training job.

    Raises:
        UserError: none of its jobs has ended well.
    """
    best: Mapping[str, Any] = tuning.about.get("BestTrainingJob") or {}
    if not best:
        raise UserError(
            f"tuning job {tuning.name} has no best training job yet ({tuning.status}): see kennel status {tuning.name}"
        )
    return best


def objective(best: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if metric := best.get("FinalHyperParameterTuningJobObjectiveMetric"):
        yield metric["MetricName"], f"{metric['Value']:.4f}"


def counts(about: Mapping[str, Any]) -> str:
    """`3 completed, 1 in progress, 0 failed, 0 stopped`."""
    counters = about.get("TrainingJobStatusCounters", {})
    failed = counters.get("NonRetryableError", 0) + counters.get("RetryableError", 0)
    return (
        f"{counters.get('Completed', 0)} completed, {counters.get('InProgress', 0)} in progress, "
        f"{failed} failed, {counters.get('Stopped', 0)} stopped"
    )


def tuning_progress(about: Mapping[str, Any]) -> str:
    """One line of a tuning job: the counts, and the best so far."""
    best = about.get("BestTrainingJob", {})
    values = ", ".join(f"{name}={value}" for name, value in objective(best))
    return counts(about) + (f"; best {values} ({best['TrainingJobName']})" if values else "")
