"""One `serve` that runs: for an endpoint or a transform job, with its model in place; its models where it has many."""

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from kennel.layout import Layout
from kennel_launch.machine import processes
from kennel_launch.machine.http_probe import START_LIMIT, free_port

from ..apis import objects
from ..apis.logs import Stream
from ..http.account import Account
from ..http.errors import AwsError
from ..http.lookups import containers, s3_parts
from ..http.resources import Record
from . import programs

_POLL = 0.2  # seconds


class UnhealthyError(Exception):
    """The container did not become healthy, or died."""


@dataclass
class Host:
    """One running `serve`."""

    account: Account
    container: Record  # of the model: Image, ModelDataUrl, Mode, Environment
    base: Path
    port: int
    process: subprocess.Popen[bytes]
    stream: Stream
    loaded: dict[str, str] = field(default_factory=dict)  # TargetModel -> its name for the container
    lock: threading.Lock = field(default_factory=threading.Lock)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, limit: float = 60.0
    ) -> tuple[int, bytes, dict[str, str]]:
        """(status, body, headers in lower case).

        Raises:
            OSError, HTTPException: it does not answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=limit)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}
        finally:
            connection.close()

    def wait_healthy(self, stopped: Callable[[], bool]) -> None:
        """Until /ping is 200.

        Raises:
            UnhealthyError: not in SageMaker's eight minutes, or it ended, or we are stopped.
        """
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and not stopped():
            self.stream.pump()
            if self.process.poll() is not None:
                break
            try:
                if self.request("GET", "/ping", limit=2.0)[0] == http.HTTPStatus.OK:
                    return
            except (OSError, http.client.HTTPException):
                pass  # not listening yet
            time.sleep(_POLL)
        raise UnhealthyError

    def path(self, target: str) -> str:
        """Where an invocation goes; a model of many is loaded first.

        Raises:
            AwsError: there is no such model, or the container refuses it.
        """
        many = self.container.get("Mode") == "MultiModel"
        if many != bool(target):
            must = "requires" if many else "does not support"
            raise AwsError("ValidationError", f"The endpoint {must} a TargetModel header.")
        if not many:
            return "/invocations"
        with self.lock:
            if target not in self.loaded:
                self._load(target)
            return f"/models/{self.loaded[target]}/invoke"

    def _load(self, target: str) -> None:
        url = f"{self.container['ModelDataUrl'].rstrip('/')}/{target.lstrip('/')}"
        body = objects.read_url(self.account, url)
        if body is None:
            bucket, key = s3_parts(url)
            raise AwsError(
                "ValidationError",
                f"Failed to download model data(bucket: {bucket}, key: {key}). Please ensure that there is an object "
                "located at the URL and that the role passed to CreateModel has permissions to download the model.",
            )
        name = sha256(target.encode()).hexdigest()[:32]
        folder = self.base / "models" / name / "model"
        objects.unpack(body, folder)
        body = json.dumps({"model_name": name, "url": str(folder)}).encode()
        status = self._post_model(body)
        while status == http.HTTPStatus.INSUFFICIENT_STORAGE and self.loaded:  # the one that came first makes room
            self.request("DELETE", f"/models/{self.loaded.pop(next(iter(self.loaded)))}", limit=START_LIMIT)
            status = self._post_model(body)
        if status not in (http.HTTPStatus.OK, http.HTTPStatus.CONFLICT):
            raise model_error(self.account, status, f"loading {target} failed")
        self.loaded[target] = name

    def _post_model(self, body: bytes) -> int:
        return self.request("POST", "/models", body, {"Content-Type": "application/json"}, START_LIMIT)[0]


@contextmanager
def started(
    account: Account, model: Record, name: str, log: tuple[str, str], env: Mapping[str, str] | None = None
) -> Iterator[Host]:
    """`serve` with a model's data, not healthy yet; ended with SIGTERM and a grace, or at once with the account.

    Args:
        name: of a folder of its own.
        log: group and stream.

    Raises:
        UnhealthyError: its data cannot be had, or there is no `serve` here.
    """
    container, base = containers(model)[0], account.folder / name
    layout = Layout(base)
    _fetch(account, container, layout.model)
    if not programs.executable("serve").is_file():
        raise UnhealthyError(f"there is no {programs.executable('serve')}")
    port = free_port()
    many = {"SAGEMAKER_MULTI_MODEL": "true"} if container.get("Mode") == "MultiModel" else {}
    environ = {"SAGEMAKER_BIND_TO_PORT": str(port), "PYTHONUNBUFFERED": "1", **many, **container.get("Environment", {})}
    run = programs.run(account, "serve", base, processes.GRACE, {**environ, **(env or {})})
    file = base.with_name(base.name + ".log")
    stream = Stream(account, *log, file)
    try:
        with processes.started(run, file) as process:
            try:
                yield Host(account, container, base, port, process, stream)
            finally:
                if account.background.closing.is_set():
                    programs.kill(base)
    finally:
        programs.kill(base)  # what outlived its SIGTERM, or a front that died
        if not account.background.closing.is_set():
            stream.pump(ended=True)


def model_error(account: Account, status: int, body: str, stream: str = "") -> AwsError:
    """What a caller reads where the container's answer was no 2xx."""
    side = "client" if 400 <= status < 500 else "server"
    message = f'Received {side} error ({status}) from primary with message "{body}".'
    return AwsError("ModelError", message, 424, OriginalStatusCode=status, OriginalMessage=body, LogStreamArn=stream)


def _fetch(account: Account, container: Record, folder: Path) -> None:
    """The model's data, unpacked; of a multi-model endpoint nothing yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if container.get("Mode") == "MultiModel":
        return
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    if source and source["CompressionType"] == "None":
        objects.download(account, source["S3Uri"], folder)
        return
    url = source["S3Uri"] if source else container.get("ModelDataUrl")
    if url:
        body = objects.read_url(account, url)
        if body is None:
            raise UnhealthyError(f"Failed to download model data from {url}")
        objects.unpack(body, folder)
