"""What SageMaker's SDKs send: version 2's in the tests' own environment, version 3's in one of its own."""

import json
import os
import subprocess
from typing import Any

import pytest

from .conftest import REPOSITORY, SDK_V3


def printed(text: str) -> list[dict[str, Any]]:
    """What a dry run printed: a row for each call, with its operation and request."""
    decoder, at, rows = json.JSONDecoder(), 0, []
    while (at := text.find("{", at)) >= 0:
        row, at = decoder.raw_decode(text, at)
        rows.append(row)
    return rows


def run_v3(script: str, given: object) -> str:
    """What a script printed that reads `given` as JSON from standard input; AWS cannot be reached from it."""
    if not SDK_V3.exists():
        pytest.skip(f"there is no {SDK_V3}: make {SDK_V3.parent.parent}/.ready")
    env = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "SAGEMAKER_VALIDATE_ROLE": "false",
        "PYTHONPATH": os.pathsep.join(str(REPOSITORY / folder) for folder in ("scripts", "container")),
    }
    done = subprocess.run(
        [SDK_V3, "-W", "ignore", "-c", script],
        input=json.dumps(given),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
