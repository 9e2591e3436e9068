"""What names a tracking server, and what a log shows of it."""

import pytest

from kennel import hyperparameters, mlflow_uri
from kennel.errors import UserError

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/pets"


@pytest.mark.parametrize(
    "uri", ["", "http://127.0.0.1:5000", "https://mlflow.example.com/prefix", "file:///mnt/runs", ARN]
)
def test_a_server_is_named_by_uri_or_arn(uri):
    assert hyperparameters.parse({"mlflow": uri}).mlflow == uri


@pytest.mark.parametrize(
    "uri", ["pets", "http://", "http://host:port", "file://runs", "ftp://host", ARN[:-5], "s3://b"]
)
def test_what_names_none_is_refused(uri):
    with pytest.raises(UserError, match="names no tracking server: write http"):
        hyperparameters.parse({"mlflow": uri})


@pytest.mark.parametrize(
    "uri", ["https://me:secret@host/x", "https://secret@host", "htp://me:sec/secret@host", "//u:secret@h"]
)
def test_a_password_is_refused_and_not_repeated(uri):
    with pytest.raises(UserError, match=r"holds a user or a password.*MLFLOW_TRACKING_PASSWORD") as raised:
        hyperparameters.parse({"mlflow": uri})
    assert "secret" not in str(raised.value)


def test_a_texts_passwords_are_hidden():
    text = "API request to http://me:secret@host:80/api failed (see https://host/help@page)"
    assert mlflow_uri.shown(text) == "API request to http://***@host:80/api failed (see https://host/help@page)"
    assert mlflow_uri.is_arn(ARN)
    assert not mlflow_uri.is_arn("https://host")
