"""SageMaker's resources as records: what their creation asked for, and what became of them.

moto has most of them, but knows a list of instance types of its own, forgets newer members and has every job
Completed at once; here a record keeps every member, and botocore's output shapes choose what an answer shows.
"""

import copy
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.model import StructureShape

from .errors import AwsError, invalid
from .recognition import service_model

ACCOUNT = "123456789012"
Record = dict[str, Any]
_PAGE = 10  # rows of a listing where MaxResults is not given


@dataclass(frozen=True)
class Kind:
    """One type of resource; its operations are Create<name>, Describe<name>, List<name>s."""

    name: str
    slug: str  # in the ARN
    first: str = ""  # status after its creation
    ascending: bool = False  # the order of a listing, where the request says none

    @property
    def status(self) -> str:
        return f"{self.name}Status"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("TrainingJob", "training-job", "InProgress", ascending=True),
        Kind("HyperParameterTuningJob", "hyper-parameter-tuning-job", "InProgress", ascending=True),
        Kind("TransformJob", "transform-job", "InProgress"),
        Kind("Endpoint", "endpoint", "Creating"),
        Kind("EndpointConfig", "endpoint-config"),
        Kind("InferenceComponent", "inference-component", "Creating"),
        Kind("Model", "model"),
        Kind("ModelPackageGroup", "model-package-group", "Completed"),
        Kind("ModelPackage", "model-package", "Completed"),  # by GROUP/VERSION
        Kind("Pipeline", "pipeline", "Active"),
        Kind("PipelineExecution", "pipeline-execution", "Executing"),
    )
}


def now() -> datetime:
    return datetime.now(UTC)


class Store:
    """All resources of one account and region, in the order of their creation."""

    def __init__(self, region: str) -> None:
        self.lock = threading.RLock()
        self._region = region
        self._records: dict[str, dict[str, Record]] = {name: {} for name in KINDS}

    def arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self._region}:{ACCOUNT}:{KINDS[kind].slug}/{name.lower()}"

    def add(self, kind: str, params: Record, **members: Any) -> Record:
        """
        Raises:
            AwsError: there is one of this name.
        """
        name, one = params[f"{kind}Name"], KINDS[kind]
        with self.lock:
            if name in self._records[kind]:
                raise self._taken(kind, name)
            moment = now()
            record = copy.deepcopy(params) | {
                f"{kind}Arn": self.arn(kind, name),
                "CreationTime": moment,
                "LastModifiedTime": moment,
                **({one.status: one.first} if one.first else {}),
                **members,
            }
            self._records[kind][name] = record
            return record

    def get(self, kind: str, name: str) -> Record:
        """The record itself.

        Raises:
            AwsError: there is none.
        """
        with self.lock:
            if name not in self._records[kind]:
                raise self._missing(kind, name)
            return self._records[kind][name]

    def all(self, kind: str) -> list[Record]:
        with self.lock:
            return list(self._records[kind].values())

    def change(self, record: Record, **members: Any) -> None:
        with self.lock:
            record |= members
            record["LastModifiedTime"] = now()

    def remove(self, kind: str, name: str) -> Record:
        with self.lock:
            return self._records[kind].pop(self.get(kind, name)[f"{kind}Name"])

    def describe(self, kind: str, name: str) -> Record:
        with self.lock:
            return _shown(_output(f"Describe{kind}"), self.get(kind, name))

    def list(self, kind: str, params: Record) -> Record:
        """One page, filtered and sorted as it is asked for."""
        return page(f"List{kind}s", self.all(kind), params, kind, KINDS[kind].ascending)

    def tagged(self, arn: str) -> Record:
        """The record of an ARN.

        Raises:
            AwsError: there is none.
        """
        with self.lock:
            for kind, records in self._records.items():
                for record in records.values():
                    if record[f"{kind}Arn"] == arn:
                        return record
        raise invalid(f"Could not find resource {arn}")

    def _taken(self, kind: str, name: str) -> AwsError:
        arn = self.arn(kind, name)
        if kind.endswith("Job"):
            what = "Job name must be unique within an AWS account and region, and a job with this name already exists"
            return AwsError("ResourceInUse", f"{what} ({arn})")
        return invalid(f'Cannot create already existing {KINDS[kind].slug.replace("-", " ")} "{arn}".')

    def _missing(self, kind: str, name: str) -> AwsError:
        if kind.endswith("Job"):
            code = "ResourceNotFound" if kind == "TransformJob" else "ValidationException"
            return AwsError(code, "Requested resource not found.")
        if kind.startswith("Pipeline"):
            return AwsError("ResourceNotFound", f"{kind} with name {name} does not exist.")
        if kind.startswith("ModelPackage"):
            return invalid(f"{kind} {self.arn(kind, name)} does not exist.")
        return invalid(f'Could not find {KINDS[kind].slug.replace("-", " ")} "{self.arn(kind, name)}".')


def page(operation: str, records: list[Record], params: Record, kind: str, ascending: bool) -> Record:
    """The answer of a listing: its one list member, and where it goes on.

    Raises:
        AwsError: a token that no answer had.
    """
    output = _output(operation)
    member = next(name for name, shape in output.members.items() if shape.type_name == "list")
    found = [record for record in records if _wanted(record, params, kind)]
    by = {"Name": f"{kind}Name", "Status": KINDS[kind].status}.get(params.get("SortBy", ""), "CreationTime")
    order = params.get("SortOrder", "Ascending" if ascending else "Descending")
    if params.get("SortBy") == "FinalObjectiveMetricValue":
        found = [one for one in found if "FinalHyperParameterTuningJobObjectiveMetric" in one]
        found.sort(key=lambda one: one["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])
    else:
        found.sort(key=lambda one: str(one.get(by, "")))
    if order == "Descending":
        found.reverse()
    token = params.get("NextToken", "0")
    if not token.isdigit():
        raise invalid("Invalid NextToken.")
    start, most = int(token), params.get("MaxResults", _PAGE)
    row = output.members[member].member
    rest = {"NextToken": str(start + most)} if start + most < len(found) else {}
    return {member: [_shown(row, record) for record in found[start : start + most]], **rest}


def _wanted(record: Record, params: Record, kind: str) -> bool:
    created, changed = (record[f"{which}Time"].timestamp() for which in ("Creation", "LastModified"))
    return (
        params.get("NameContains", "").lower() in record[f"{kind}Name"].lower()
        and params.get("EndpointNameEquals", record.get("EndpointName")) == record.get("EndpointName")
        and params.get("StatusEquals", record.get(KINDS[kind].status)) == record.get(KINDS[kind].status)
        and params.get("CreationTimeAfter", 0) <= created <= params.get("CreationTimeBefore", created)
        and params.get("LastModifiedTimeAfter", 0) <= changed <= params.get("LastModifiedTimeBefore", changed)
    )


def _output(operation: str) -> StructureShape:
    known = service_model("sagemaker")
    assert known
    shape = known.operation_model(operation).output_shape
    assert isinstance(shape, StructureShape)
    return shape


def _shown(shape: StructureShape, record: Record) -> Record:
    return {name: copy.deepcopy(record[name]) for name in shape.members if name in record}
