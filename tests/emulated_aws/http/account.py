"""The emulated account's state: what exists, what was asked, what runs. One for each test; no HTTP."""

import json
import shutil
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from ..runners.background import Background
from .resources import ACCOUNT, Store

REGION = "eu-west-1"
OWN_KEY = "EMULATOR"  # signs the server's own calls: not recorded, not judged
ROLE = "kennel-execution"
BUCKET = "kennel-test-bucket"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
IMAGE = f"{REGISTRY}/kennel:dev"
_TRUST = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}

_MAKING = threading.Lock()  # a boto3 session is not to be shared by threads that make clients


@cache
def _session() -> Any:
    return boto3.session.Session()


@cache  # all accounts are of one server, and a client takes longer to make than most tests
def _client(url: str, service: str) -> Any:
    return _session().client(
        service,
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id=OWN_KEY,
        aws_secret_access_key="none",
        config=Config(proxies={}, retries={"max_attempts": 1}),
    )


class Account:
    """One account of one test."""

    def __init__(self, url: str, scratch: Path) -> None:
        self.url = url
        self.folder = Path(tempfile.mkdtemp(dir=scratch))
        self.store = Store(REGION)
        self.background = Background()
        self.quotas: dict[str, float] = {}  # "ml.g5.xlarge for training job usage" -> instances
        self.prices: dict[tuple[str, str], float] = {}  # (instance type, component) -> USD an hour
        self.stops: dict[str, threading.Event] = {}  # job -> set when it is to stop
        self.hosts: dict[str, Any] = {}  # endpoint -> hosting.Host
        self.scaling: dict[str, list[dict[str, Any]]] = {"target": [], "policy": [], "action": []}
        self.denied: set[tuple[str, str]] = set()  # (service, operation) that the caller may not do
        self.interrupted: set[str] = set()  # spot jobs whose machine is taken away
        self.held = False  # what is created stays as it is, nothing is run
        self.at_once = False  # and endpoints are in service, though nothing would answer
        self._requests: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def client(self, service: str) -> Any:
        """For the server's own use of moto."""
        with _MAKING:
            return _client(self.url, service)

    @property
    def child_env(self) -> dict[str, str]:
        """What a job finds of AWS: the emulated one, with its role's credentials."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": OWN_KEY,
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "*",
        }

    def record(self, service: str, operation: str, params: dict[str, Any]) -> None:
        with self._lock:
            self._requests.append({"service": service, "operation": operation, "params": params})

    def requests(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._requests)

    def furnish(self) -> None:
        """The role, the bucket and the image that every test may count on."""
        trust = {"Version": "2012-10-17", "Statement": [_TRUST]}
        self.client("iam").create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))
        place = {"LocationConstraint": REGION}
        self.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
        repository, tag = IMAGE.partition("/")[2].split(":")
        self.client("ecr").create_repository(repositoryName=repository)
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
        image = {"imageManifest": json.dumps(manifest | {"config": {"digest": "sha256:" + "0" * 64}, "layers": []})}
        self.client("ecr").put_image(repositoryName=repository, imageTag=tag, **image)

    def close(self) -> None:
        """Ends what runs, and removes what it left.

        Raises:
            RuntimeError: something would not end.
        """
        stubborn = self.background.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if stubborn:
            raise RuntimeError(f"these did not end when the account was closed: {', '.join(stubborn)}")
