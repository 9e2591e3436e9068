"""The reading calls that advice rests on: they give up soon, and one that is not allowed is a line, not the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kennel_launch.aws import session
from kennel_launch.settings import Settings


def client(service: str, settings: Settings) -> Any:
    """A boto3 client for questions that may stay unanswered: inside a closed VPC some services are out of reach."""
    limits = {"connect_timeout": 5, "read_timeout": 20, "max_attempts": 2}
    return session.made_client(service, settings.profile, settings.region, **limits)


@contextmanager
def if_allowed(what: str, lines: list[str]) -> Iterator[None]:
    """Adds a line where AWS does not answer: the launch itself may be allowed all the same.

    Args:
        what: completes "... could not be checked".
    """
    try:
        yield
    except refusals() as error:
        said = getattr(error, "response", {}).get("Error", {})
        why = f"{said.get('Code')}: {said.get('Message')}" if said else str(error)
        why = "what answers is not AWS" if isinstance(error, refusals()[-1]) else " ".join(why.split()).rstrip(".")
        lines.append(f"{what} could not be checked ({why})")


def refusals() -> tuple[type[Exception], ...]:
    """What botocore raises where AWS does not answer, or something that is not AWS does: a proxy's page."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return BotoCoreError, ClientError, ResponseParserError
