"""Where an MLflow tracking server is, as users write it: judged, and shown without its password."""

import re
from urllib.parse import urlsplit

from kennel.errors import UserError

# MlflowConfig$MlflowResourceArn of CreateTrainingJob (botocore's service model; Amazon SageMaker API Reference,
# "MlflowConfig", 2026-11).
_ARN = re.compile(r"arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:mlflow-[a-zA-Z-]*/.+")
_USER_INFO = re.compile(r"//[^/\s]*@|//\S*:\S*@")


def is_arn(uri: str) -> bool:
    """Whether it is the ARN of a tracking server, or of an app, of SageMaker's."""
    return bool(_ARN.fullmatch(uri))


def check(uri: str) -> None:
    """
    Raises:
        UserError: it names no tracking server, or holds a password, which a job's settings would show to everyone.
    """
    if not uri or is_arn(uri):
        return
    try:
        parts = urlsplit(uri)
        known = bool(parts.hostname) if parts.scheme in ("http", "https") else uri.startswith("file:///")
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        known = False
    if shown(uri) != uri:
        raise UserError(
            f"mlflow={shown(uri)} holds a user or a password: leave them out, and give the job "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in its environment"
        )
    if not known:
        raise UserError(
            f"mlflow={uri[:80]!r} names no tracking server: write http(s)://host, file:///folder, or an ARN, "
            "arn:aws:sagemaker:REGION:ACCOUNT:mlflow-tracking-server/NAME"
        )


def shown(text: str) -> str:
    """A URI, or a text that holds some, with *** in place of user and password."""
    return _USER_INFO.sub("//***@", text)
