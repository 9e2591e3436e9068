"""kennel invoke asks an endpoint on this machine as it asks SageMaker's, by a client of the same call: plain HTTP."""

import argparse
import http.client
import io
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kennel.errors import UserError
from kennel_launch.console import flags
from kennel_launch.hosting import specs
from kennel_launch.hosting.endpoint_info import EndpointInfo
from kennel_launch.inference import invocation
from kennel_launch.inference.invocation import Question
from kennel_launch.local_mode import local_endpoint
from kennel_launch.machine import http_probe
from kennel_launch.settings import Settings

_KNOWN = ("local", "out", "top_k", "json", "target_model", "load", "load_seconds", "p99", "yes")


class Client:
    """The one call of SageMaker's runtime that an endpoint on this machine needs."""

    def __init__(self, port: int, log: Path) -> None:
        self._port, self._log = port, log

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        """
        Args:
            request: by AWS's names; of them EndpointName alone says nothing here.

        Raises:
            RefusedPhotoError: another status than 200.
            UserError: it does not answer.
        """
        headers = {"Content-Type": request["ContentType"], "Accept": request["Accept"]}
        headers["X-Amzn-SageMaker-Custom-Attributes"] = request["CustomAttributes"]
        try:
            status, answer = http_probe.request(self._port, "POST", "/invocations", request["Body"], headers)
        except (OSError, http.client.HTTPException) as error:
            said = error or type(error).__name__
            raise UserError(f"the endpoint on port {self._port} does not answer ({said}): see {self._log}") from error
        if status != HTTPStatus.OK:
            raise invocation.refused(status, answer.decode(errors="replace"))
        return {"Body": io.BytesIO(answer)}


def question(options: argparse.Namespace, note: Callable[[str], None]) -> Question:
    """What is the same for all photos that the endpoint of --out is asked about.

    Raises:
        UserError: no endpoint runs from there, or more is asked than it has.
    """
    out = options.out
    flags.refuse_elsewhere(options, _KNOWN)
    if options.target_model:
        raise UserError("an endpoint of --local has one model: leave --target-model out")
    if s3 := next((place for place in options.photos if place.startswith("s3://")), ""):
        raise UserError(f"--local asks about photos of this machine, and {s3} is none: name a file or a folder")
    here = local_endpoint.running(out)
    if here is None:
        raise UserError(f"no endpoint runs from {out}: kennel deploy --local starts one")
    served = EndpointInfo("here", "InService", "", specs.REAL_TIME)
    return Question(served, Settings(), options.top_k, "", note, Client(here.port, local_endpoint.log_of(out)), None)
