"""The tests' side: starts the server for a session, gives each test a fresh account, and says what was asked of it."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
ACCOUNT, REGION, BUCKET = "123456789012", "eu-west-1", "kennel-test-bucket"
VARIABLE = "KENNEL_TEST_ENV"  # names the environment with the image's executables
_OPTED_OUT = "SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def executables() -> Path:
    """The folder where the image's `train` and `serve` should lie."""
    return Path(os.environ.get(VARIABLE) or REPOSITORY / "build" / "venv") / "bin"


@dataclass(frozen=True)
class Request:
    """One request that the commands made, as AWS understood it."""

    service: str  # botocore's name: "s3", "sagemaker", "sagemaker-runtime"
    operation: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Aws:
    """An emulated account with one role, one bucket and one image in it."""

    url: str
    home: Path  # the caller's, empty but for the SDK's configuration

    role = f"arn:aws:iam::{ACCOUNT}:role/kennel-execution"
    bucket = BUCKET
    region = REGION
    image = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/kennel:dev"

    @property
    def env(self) -> dict[str, str]:
        """The environment of a caller with credentials; none of this machine's own settings for AWS gets through."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "something",
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_MAX_ATTEMPTS": "2",
            "SAGEMAKER_USER_CONFIG_OVERRIDE": str(self.home / "sagemaker.yaml"),
            "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(self.home / "sagemaker.yaml"),
            "HOME": str(self.home),
            "NO_PROXY": "*",
            **dict.fromkeys(_PROXIES, ""),
        }

    def client(self, service: str) -> Any:
        """A client of the emulator's own key: what a test looks at is neither recorded nor judged."""
        return _client(self.url, service)

    @property
    def requests(self) -> list[Request]:
        """All that was asked since the test began, refused or not, in order."""
        return [Request(**row) for row in self._control("requests")["requests"]]

    def asked(self, service: str, operation: str) -> list[dict[str, Any]]:
        """The parameters of each request for one operation."""
        return [one.params for one in self.requests if (one.service, one.operation) == (service, operation)]

    def quota(self, name: str, value: float) -> None:
        """Sets a quota of SageMaker's, by its name: `ml.g5.xlarge for training job usage`."""
        self._control("quota", name=name, value=value)

    def price(self, instance_type: str, component: str, usd: float) -> None:
        """Sets a price an hour; the component is Training, Hosting, AsyncInf or BatchTransform."""
        self._control("price", instance_type=instance_type, component=component, usd=usd)

    def deny(self, service: str, operation: str) -> None:
        """From now on the caller may not do this: `deny("sagemaker", "CreateTrainingJob")`."""
        self._control("deny", service=service, operation=operation)

    def interrupt(self, job: str) -> None:
        """Takes the machine from a training job, as spot does; it starts again with its checkpoints."""
        self._control("interrupt", name=job)

    def fire(self, schedule: str) -> None:
        """Does now what an EventBridge schedule would do in its time, by its universal target.

        https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-targets-universal.html
        """
        target = self.client("scheduler").get_schedule(Name=schedule)["Target"]
        _, service, operation = target["Arn"].rsplit(":", 2)
        operation = "".join(f"_{c.lower()}" if c.isupper() else c for c in operation)
        getattr(self.client(service), operation)(**json.loads(target["Input"]))

    def hold(self, *, at_once: bool = False) -> None:
        """From now on what is created is recorded and stays as it is, InProgress or Creating; nothing is run.

        Args:
            at_once: endpoints are InService as soon as they are asked for; there is nothing to invoke.
        """
        self._control("hold", at_once=at_once)

    def change(self, kind: str, name: str, **members: Any) -> None:
        """Sets what a record shows, after `hold`: `change("TrainingJob", "j", TrainingJobStatus="Failed")`."""
        self._control("change", kind=kind, name=name, members=members)

    def reset(self) -> None:
        """Ends all that runs, and empties the account."""
        self._control("reset")
        (self.home / "sagemaker.yaml").write_text(_OPTED_OUT)

    def close(self) -> None:
        """Ends all that runs."""
        self._control("close")

    def _control(self, what: str, **fields: Any) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/_emulated/{what}", json.dumps(fields).encode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=90) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@cache
def _client(url: str, service: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": "EMULATOR", "aws_secret_access_key": "none"}
    return boto3.session.Session().client(service, region_name=REGION, endpoint_url=url, **keys)


@contextmanager
def server(log: Path) -> Iterator[str]:
    """The address of a server in a process of its own; its complaints go to `log`.

    Raises:
        RuntimeError: it did not start.
    """
    sources = [HERE.parent, *(REPOSITORY / folder for folder in ("scripts", "container"))]
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    env |= {"PYTHONPATH": os.pathsep.join(map(str, sources)), "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "*"}
    with log.open("wb") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "emulated_aws"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
    with process:
        assert process.stdin
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the emulated AWS did not start: {log.read_text()[-2000:]}")
            yield url
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
