"""CloudWatch's part: the lines that a job or an endpoint prints become events of its log stream while it runs."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from ..http.account import Account

_KINDS = ("TrainingJobs", "TransformJobs", "Endpoints", "InferenceComponents")
TRAINING, TRANSFORM, ENDPOINTS, COMPONENTS = (f"/aws/sagemaker/{kind}" for kind in _KINDS)
_BATCH = 1000  # events in one call, of 10,000 that the service takes


class Stream:
    """One log stream, fed from a file that grows. The stream is made with its first line, as on SageMaker."""

    def __init__(self, account: Account, group: str, name: str, file: Path) -> None:
        self._client, self._group, self._name, self._file = account.client("logs"), group, name, file
        self._offset, self._made = 0, False

    def pump(self, ended: bool = False) -> list[str]:
        """Sends the lines that are new and whole (at the end, the last one too), and returns them."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text if ended else text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = whole.decode(errors="replace").splitlines()
        moment = int(time.time() * 1000)
        events = [{"timestamp": moment, "message": line} for line in lines if line]
        for start in range(0, len(events), _BATCH):
            self._put(events[start : start + _BATCH])
        return lines

    def _put(self, events: list[dict[str, Any]]) -> None:
        if not self._made:
            with suppress(ClientError):  # another job made it
                self._client.create_log_group(logGroupName=self._group)
            self._client.create_log_stream(logGroupName=self._group, logStreamName=self._name)
            self._made = True
        self._client.put_log_events(logGroupName=self._group, logStreamName=self._name, logEvents=events)
