"""An endpoint's time to live: a schedule of EventBridge Scheduler that deletes the endpoint once, and then itself.

The schedule has the endpoint's name, so that either can be found by the other. Only the endpoint costs money;
its configuration and model stay until `kennel delete`.
"""

import json
import re
import sys
import urllib.parse
from datetime import UTC, datetime, timedelta
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import session
from kennel_launch.settings import Settings

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_LEAST = timedelta(minutes=10)  # an endpoint alone takes five to start
_SCHEDULER = "scheduler.amazonaws.com"
_TARGET = ":scheduler:::aws-sdk:sagemaker:deleteEndpoint"


def parse(text: str) -> timedelta:
    """`90m`, `2h`, `1d`.

    Raises:
        UserError: something else, or less than ten minutes.
    """
    match = re.fullmatch(r"(\d{1,4})([mhd])", text.strip().lower())
    if not match:
        raise UserError(f"--ttl {text!r}: write minutes, hours or days, as in 90m, 2h or 1d")
    length = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if length < _LEAST:
        raise UserError(f"--ttl {text}: an endpoint takes minutes to start, write 10m or more")
    return length


def schedule(endpoint: str, length: timedelta, role: str) -> dict[str, Any]:
    """CreateSchedule's and UpdateSchedule's request.

    https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-targets-universal.html
    """
    partition = role.split(":")[1]  # aws, aws-cn, aws-us-gov
    return {
        "Name": endpoint,
        "Description": "kennel deploy --ttl: deletes this endpoint",
        "ScheduleExpression": f"at({datetime.now(UTC) + length:%Y-%m-%dT%H:%M:%S})",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {
            "Arn": f"arn:{partition}{_TARGET}",
            "RoleArn": role,
            "Input": json.dumps({"EndpointName": endpoint}),
        },
        "ActionAfterCompletion": "DELETE",
    }


def as_request(found: dict[str, Any]) -> dict[str, Any]:
    """UpdateSchedule's request that puts a schedule back as `find` saw it."""
    only_answered = ("Arn", "CreationDate", "LastModificationDate", "ResponseMetadata")
    return {key: value for key, value in found.items() if key not in only_answered}


def role(given: str, settings: Settings) -> str:
    """The role by which the scheduler may delete: the one given, else the endpoint's own where its trust allows.

    Raises:
        UserError: neither.
    """
    if given:
        if not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/.+", given):
            raise UserError(f"--scheduler-role {given!r} is no role's ARN: write arn:aws:iam::123456789012:role/NAME")
        return given
    from botocore.exceptions import BotoCoreError, ClientError  # slow: only where it is needed

    name = settings.role.rpartition("/")[2]
    instead = "give --scheduler-role ARN of one that trusts it and may sagemaker:DeleteEndpoint"
    try:
        trust = session.client("iam", settings).get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    except (BotoCoreError, ClientError) as error:
        raise UserError(f"--ttl: whether role {name} trusts {_SCHEDULER} can't be read ({error}): {instead}") from error
    if not _trusts(trust):
        raise UserError(f"--ttl: role {name} does not trust {_SCHEDULER}: add it to the role's trust, or {instead}")
    return settings.role


def find(endpoint: str, settings: Settings) -> dict[str, Any] | None:
    """The schedule that deletes this endpoint, if there is one; another's of that name is none.

    A caller without the right to read schedules gets a warning: an endpoint must be deletable without it.
    """
    try:
        with session.translate_errors(f"whether a schedule deletes {endpoint}"):
            found = session.describe(session.client("scheduler", settings), "get_schedule", Name=endpoint)
    except UserError as error:
        if not session.is_denied(error):
            raise
        print(f"not known: {error}", file=sys.stderr)
        return None
    return found if found and found["Target"]["Arn"].endswith(_TARGET) else None


def _trusts(document: Any) -> bool:
    """Whether a trust policy lets the scheduler take the role; conditions are not looked at."""
    policy = json.loads(urllib.parse.unquote(document)) if isinstance(document, str) else document
    statements = policy.get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        if statement.get("Effect") == "Allow" and _SCHEDULER in ([services] if isinstance(services, str) else services):
            return True
    return False
