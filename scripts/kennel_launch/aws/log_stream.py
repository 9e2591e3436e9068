"""What a job or an endpoint wrote to CloudWatch, and how a followed job ends."""

import sys
import time
from collections.abc import Iterator
from typing import Any

from kennel_launch import settings as kennel_settings
from kennel_launch.aws import inventory, session
from kennel_launch.aws.inventory import ENDPOINT, Resource
from kennel_launch.settings import Settings

_POLL = 2.0  # seconds; CloudWatch answers 25 of such requests a second
_LATE = 2  # polls after the end of a job, in which its last lines may come


class Log:
    """All streams of a job or an endpoint, and how far each was read."""

    def __init__(self, found: Resource, settings: Settings) -> None:
        self._client = session.client("logs", settings)
        one = found.kind is ENDPOINT
        self._group = f"{found.kind.log_group}/{found.name}" if one else found.kind.log_group
        self._prefix = "" if one else f"{found.name}/"
        self._tokens: dict[str, str] = {}  # stream -> where to go on
        self.found = False

    def new(self) -> Iterator[str]:
        """The lines since the last time, by stream; with the host's name where there are several.

        Raises:
            UserError: AWS refuses.
        """
        with session.translate_errors(f"the log {self._group}"):
            streams = self._streams()
            for stream in streams:
                host = stream.removeprefix(self._prefix)
                for message in self._messages(stream):
                    self.found = True
                    yield f"{host} | {message}" if len(streams) > 1 else message

    def _streams(self) -> list[str]:
        asked: dict[str, str] = {"logGroupName": self._group}
        asked |= {"logStreamNamePrefix": self._prefix} if self._prefix else {}
        try:
            pages = list(self._client.get_paginator("describe_log_streams").paginate(**asked))
        except self._client.exceptions.ResourceNotFoundException:
            return []  # the first job of an account makes the group, once it says something
        return [row["logStreamName"] for page in pages for row in page["logStreams"]]

    def _messages(self, stream: str) -> Iterator[str]:
        asked: dict[str, Any] = {"logGroupName": self._group, "logStreamName": stream, "startFromHead": True}
        while True:
            token = self._tokens.get(stream)
            answer = self._client.get_log_events(**asked, **({"nextToken": token} if token else {}))
            yield from (row["message"].rstrip("\n") for row in answer["events"])
            self._tokens[stream] = answer["nextForwardToken"]
            if self._tokens[stream] == token:  # a page may be empty, and others follow
                return


def follow(found: Resource, settings: Settings) -> int:
    """Prints the log until the job ends, then how it ended: 0 completed, 1 failed or stopped.

    Raises:
        UserError: AWS refuses.
    """
    log, late = Log(found, settings), 0
    try:
        while True:
            now = inventory.find(found.name, settings, (found.kind,))
            for line in log.new():
                print(line, flush=True)
            if now.ended:
                if late == _LATE:
                    return ended(now)
                late += 1
            time.sleep(kennel_settings.pause(_POLL))
    except KeyboardInterrupt:
        if found.kind is not ENDPOINT:
            stop = f"aws sagemaker stop-{found.kind.snake.replace('_', '-')} "
            stop += f"--{found.kind.snake.replace('_', '-')}-name {found.name}"
            print(f"{found.name} goes on: kennel logs {found.name} --follow, or end it: {stop}", file=sys.stderr)
        raise


def ended(now: Resource) -> int:
    """Says how a job ended; its exit code."""
    print(f"{now.kind.shown} job {now.name}: {now.status}", file=sys.stderr)
    if now.status == "Completed":
        return 0
    if reason := now.about.get("FailureReason"):
        print(reason, file=sys.stderr)
    return 1
