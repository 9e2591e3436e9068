"""AWS as the commands see it: clients, its refusals as sentences, and calls that are shown instead of sent.

Which calls are made is the commands' business; the endpoint comes from AWS_ENDPOINT_URL, by botocore itself.
"""

import functools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from kennel.errors import UserError
from kennel_launch.settings import FILE, Settings

# What only looks; every other call is one that --dry-run shows. Credentials are fetched by calls of their own services.
_READS = re.compile(r"(Get|List|Describe|Head|Search|Filter|Query|BatchGet|BatchCheck|BatchDescribe|Simulate)")
_CREDENTIALS = ("sts", "sso", "sso-oidc", "signin")
_FIXES = {  # by a part of AWS's error code
    "AccessDenied": "ask the administrator of the account for that right",
    "NotAuthorized": "ask the administrator of the account for that right",
    "ExpiredToken": "log in again, as with aws sso login",
    "InvalidClientTokenId": "see to the AWS credentials",
    "UnrecognizedClient": "see to the AWS credentials",
    "SignatureDoesNotMatch": "see to the AWS credentials",
    "ResourceLimitExceeded": "ask for a higher quota in the console's Service Quotas, or choose another instance type",
    "ResourceInUse": "choose another name, or delete what has it",
    "Throttling": "wait a minute and try again",
    "NoSuchEntity": f"name another by --role or in {FILE}",
    "NoSuchBucket": f"create the bucket, or name another by --bucket or in {FILE}",
    "PermanentRedirect": "name the bucket's own region by --region",
}
_FIX = "fix what it names"
_SHOWN = 10_000  # bytes of a text in what --dry-run prints
_ABSENT = ("could not find", "does not exist", "not found", "cannot find")  # what SageMaker says of what is not there


def session(settings: Settings) -> Any:
    """One boto3 session for all clients of a command.

    Raises:
        UserError: no such profile, or no region.
    """
    return _session(settings.profile, settings.region)


def client(service: str, settings: Settings) -> Any:
    """A boto3 client; it retries throttled calls by itself. One for all calls of a command: making one takes long.

    Raises:
        UserError: as `session`.
    """
    return made_client(service, settings.profile, settings.region, max_attempts=5)


@functools.cache
def made_client(service: str, profile: str, region: str, *, max_attempts: int, **timeouts: int) -> Any:
    """A boto3 client of this profile and region, made once.

    Args:
        timeouts: `connect_timeout` and `read_timeout`, seconds.

    Raises:
        UserError: as `session`.
    """
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "max_attempts": max_attempts}, **timeouts)
    with translate_errors(f"a client of {service}"):
        return _session(profile, region).client(service, config=config)


def region(settings: Settings) -> str:
    """The region's name, where AWS's own configuration names it, too."""
    return str(session(settings).region_name)


def role_arn(settings: Settings) -> str:
    """The whole ARN of the role, of which a setting may hold the name alone.

    Raises:
        UserError: there is no such role, or it cannot be asked for.
    """
    if settings.role.startswith("arn:"):
        return settings.role
    with translate_errors(f"role {settings.role}"):
        name = settings.role.rpartition("/")[2]
        return str(client("iam", settings).get_role(RoleName=name)["Role"]["Arn"])


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Turns what AWS or its client library raises into one sentence.

    Args:
        what: what was asked for, as the sentence's beginning: `training job kennel-1`.

    Raises:
        UserError: with AWS's own reason and how to fix it.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, InvalidRegionError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        code = str(said.get("Code", "unknown"))
        fix = next((fix for part, fix in _FIXES.items() if part in code), _FIX)
        raise UserError(f"{what}: AWS refuses ({code}: {_line(said.get('Message') or error)}): {fix}") from error
    except NoCredentialsError as error:
        raise UserError(f"{what}: no AWS credentials were found: run aws configure or aws sso login") from error
    except InvalidRegionError as error:
        raise UserError(f"{_line(error)}: write --region as in eu-west-1, or region = ... in {FILE}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise UserError(f"{what}: AWS cannot be asked ({_line(error)}): {_FIX}") from error


def code_of(error: Exception) -> str:
    """The error code of a botocore ClientError: `ValidationException`."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def is_denied(error: UserError) -> bool:
    """Whether it is that the caller lacks a right, of what `translate_errors` raised."""
    return isinstance(error.__cause__, Exception) and "AccessDenied" in code_of(error.__cause__)


def describe(client: Any, operation: str, **request: Any) -> dict[str, Any] | None:
    """The answer, or None where there is no such thing.

    For SageMaker that is a ValidationException as any other, told apart by its sentence: `Could not find endpoint ...`.
    """
    try:
        return dict(getattr(client, operation)(**request))
    except client.exceptions.ClientError as error:
        said = str(error.response.get("Error", {}).get("Message", "")).lower()
        if "NotFound" in code_of(error) or any(words in said for words in _ABSENT):
            return None
        raise


def dry_run(settings: Settings) -> None:
    """From now on calls that would change something are checked and printed as JSON, and not sent.

    To be called before the first client is made. The printed request is what botocore was about to send, by any
    caller; what it gets for an answer has the required members, with `dry-run` in them.
    """
    events = session(settings)._session
    events.register("before-parameter-build", _remember)
    events.register("before-call", _print_instead)


def _remember(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
    context["kennel_asked"] = params  # a reference: handlers after this one may still fill it in


def _print_instead(model: Any, context: Mapping[str, Any], **_: Any) -> tuple[Any, dict[str, Any]] | None:
    service = model.service_model.service_name
    if _READS.match(model.name) or service in _CREDENTIALS:
        return None
    from botocore.awsrequest import AWSResponse

    shown = {"service": service, "operation": model.name, "request": context.get("kennel_asked", {})}
    # In one piece: photos are sent by several threads, and print writes its newline by itself.
    sys.stdout.write(json.dumps(shown, indent=2, default=_opaque) + "\n")
    sys.stdout.flush()
    made = model.output_shape
    members = {name: "dry-run" for name, shape in made.members.items() if shape.type_name == "string"} if made else {}
    return AWSResponse("", 200, {}, None), members


def _opaque(value: Any) -> str:
    """What JSON cannot say: a date as ISO, a short text as that, other bytes and files by their kind."""
    body = value.getvalue() if isinstance(value, BytesIO) else value  # what botocore makes of S3's bodies
    if isinstance(body, bytes) and len(body) < _SHOWN and body.isascii():
        return body.decode()
    return value.isoformat() if hasattr(value, "isoformat") else f"<{type(value).__name__}>"


def _line(text: object) -> str:
    return " ".join(str(text).split()).rstrip(".")


@functools.cache
def _session(profile: str, region: str) -> Any:
    import boto3

    with translate_errors(f"AWS profile {profile or 'default'}"):
        made = boto3.Session(profile_name=profile or None, region_name=region or None)
    if not made.region_name:
        raise UserError(f"no AWS region: write --region, or region = ... in {FILE}")
    return made
