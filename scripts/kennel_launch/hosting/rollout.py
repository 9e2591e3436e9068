"""From requests to an endpoint in service: sent in order, undone in reverse where one fails, watched until it ends."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kennel.errors import UserError
from kennel_launch import settings as kennel_settings
from kennel_launch.aws import session
from kennel_launch.console.steps import Show
from kennel_launch.hosting import specs
from kennel_launch.hosting.specs import EndpointPlan
from kennel_launch.settings import Settings

_FIRST_PAUSE, _LAST_PAUSE = 0.5, 10.0  # seconds between two questions
CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")


class FailedError(Exception):
    """SageMaker began, and ended with a reason of its own."""


@dataclass(frozen=True)
class Call:
    """One request, and what takes it back: another operation on the same name, given what was there `before`."""

    service: str
    operation: str
    request: dict[str, Any]
    key: str  # the member that holds the name
    undo: str = ""
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is of; several by commas."""
        named = self.request[self.key]
        return named if isinstance(named, str) else ", ".join(named)


def model_call(plan: EndpointPlan, settings: Settings) -> Call:
    return Call("sagemaker", "create_model", specs.model(plan, settings), "ModelName", "delete_model")


def calls(
    plan: EndpointPlan,
    settings: Settings,
    *,
    update: bool,
    schedule: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
) -> list[Call]:
    """What a deployment sends, in order. The schedule goes before the endpoint, so that no endpoint is without it.

    Args:
        update: there is an endpoint of that name.
        schedule: that ends it.
        before: the one that there is already, as a request: it is put back where the deployment fails.
    """
    config = specs.endpoint_config(plan, settings)
    found = [
        model_call(plan, settings),
        Call("sagemaker", "create_endpoint_config", config, "EndpointConfigName", "delete_endpoint_config"),
    ]
    if schedule:
        found.append(
            Call("scheduler", "update_schedule", schedule, "Name", "update_schedule", before)
            if before
            else Call("scheduler", "create_schedule", schedule, "Name", "delete_schedule")
        )
    if update:
        found.append(Call("sagemaker", "update_endpoint", specs.endpoint_update(plan), "EndpointName"))
    else:
        request = specs.endpoint(plan, settings)
        found.append(Call("sagemaker", "create_endpoint", request, "EndpointName", "delete_endpoint"))
    return found


def send(wanted: list[Call], settings: Settings, *, removal: str = "kennel delete {name}") -> list[dict[str, Any]]:
    """Sends all, or leaves nothing behind; the answers.

    Where the answer to the last was lost, it may be made all the same: then what it needs stays, and that is said.

    Args:
        removal: the command that removes what the last makes.

    Raises:
        UserError: AWS refused one; what was made before it is gone again.
    """
    done: list[Call] = []
    answers = []
    try:
        for call in wanted:
            with session.translate_errors(f"{call.operation.replace('_', ' ')} {call.name}"):
                answers.append(getattr(session.client(call.service, settings), call.operation)(**call.request))
            done.append(call)
    except BaseException as error:  # Ctrl-C, too
        if not _refused(error):
            if call is wanted[-1] and call.service == "sagemaker":
                print(
                    f"whether {call.name} was made or changed is not known: kennel status {call.name} says it, "
                    f"{removal.format(name=call.name)} removes all of it",
                    file=sys.stderr,
                )
                raise
            done.append(call)
        undo(done, settings)
        raise
    return answers


def _refused(error: BaseException) -> bool:
    """Whether AWS answered that a call was not done, at the first attempt: an earlier one may have done it."""
    from botocore.exceptions import ClientError

    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return False
    metadata = cause.response.get("ResponseMetadata", {})
    return metadata.get("HTTPStatusCode", 500) < 500 and not metadata.get("RetryAttempts")


def undo(done: list[Call], settings: Settings) -> None:
    """Takes back what was made, the last first; what stays behind is said and does not hide why it had to go."""
    for call in reversed([call for call in done if call.undo]):
        try:
            with session.translate_errors(f"{call.undo.replace('_', ' ')} {call.name}"):
                session.describe(
                    session.client(call.service, settings), call.undo, **{call.key: call.name} | call.before
                )
        except UserError as error:
            print(f"left behind: {error}", file=sys.stderr)


def wait(name: str, version: str, settings: Settings, show: Show) -> None:
    """Until the endpoint is in service with this version.

    Raises:
        FailedError: it is not, or is in service with an earlier one; with SageMaker's reason.
        UserError: AWS does not say.
    """
    client = session.client("sagemaker", settings)
    for pause in pauses():
        with session.translate_errors(f"endpoint {name}"):
            found = session.describe(client, "describe_endpoint", EndpointName=name)
        if found is None:
            raise FailedError(f"endpoint {name} was deleted while it started")
        status = found["EndpointStatus"]
        show(status, 0)
        if status not in CHANGING:
            if status == "InService" and found["EndpointConfigName"] == version:
                return
            reason = found.get("FailureReason") or "SageMaker gives no reason"
            kept = f" with its earlier model, {found['EndpointConfigName']}" if status == "InService" else ""
            raise FailedError(f"endpoint {name} is {status}{kept}: {reason}")
        time.sleep(pause)


def pauses() -> Iterator[float]:
    """Seconds to wait before each next question: short ones first."""
    pause = _FIRST_PAUSE
    while True:
        yield kennel_settings.pause(pause)
        pause = min(pause * 1.3, _LAST_PAUSE)
