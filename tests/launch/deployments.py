"""What the tests of endpoints share: a command with an account's settings, a model's file in S3, photos."""

import json
import os
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..emulated_aws.client import Aws, executables
from ..emulated_aws.runners import pictures
from .conftest import REPOSITORY, Command
from .front import FULL, Front, before

SLIM = ("PYTHONUNBUFFERED=1",)
JOB = "kennel-pets"
READS = ("Get", "List", "Describe", "Head", "Batch", "Simulate")
LEAVING_NOTHING = {"Models": "list_models", "EndpointConfigs": "list_endpoint_configs", "Endpoints": "list_endpoints"}


@dataclass
class Kennel:
    """`kennel` as somebody with an account types it; the settings lie in kennel.toml."""

    front: Front
    command: Command
    cwd: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def aws(self) -> Aws:
        return self.front.aws

    def __call__(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        self.write()
        return self.command("cli", *words, **(self.front.env | env))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command that is still running."""
        self.write()
        sources = os.pathsep.join(str(REPOSITORY / folder) for folder in ("scripts", "container"))
        return subprocess.Popen(
            [sys.executable, "-m", "kennel_launch.cli", *words],
            cwd=self.cwd,
            env={**os.environ, "PYTHONPATH": sources, **self.front.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self) -> None:
        given = {"role": self.aws.role, "bucket": self.aws.bucket} | self.settings
        (self.cwd / "kennel.toml").write_text("".join(f"{name} = {json.dumps(v)}\n" for name, v in given.items()))

    def refused(self, *words: str, **env: str) -> str:
        """The one sentence of a refusal that made nothing."""
        done = self(*words, **env)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.splitlines()[-1].startswith(f"kennel {words[0]}: "), done.stderr
        assert "Traceback" not in done.stderr
        assert self.made() == []
        return done.stderr.splitlines()[-1]

    def made(self) -> list[str]:
        """The operations that changed something, in order."""
        return [one.operation for one in self.aws.requests if not one.operation.startswith(READS)]

    def put(self, key: str, body: bytes = b"x") -> str:
        """An object in the account's bucket; its address."""
        self.aws.client("s3").put_object(Bucket=self.aws.bucket, Key=key, Body=body)
        return f"s3://{self.aws.bucket}/{key}"

    def keys(self, prefix: str = "") -> list[str]:
        found = self.aws.client("s3").list_objects_v2(Bucket=self.aws.bucket, Prefix=prefix)
        return [row["Key"] for row in found.get("Contents", [])]

    def left(self) -> dict[str, list[str]]:
        """The names of the models, configurations and endpoints that there are."""
        client = self.aws.client("sagemaker")
        return {
            kind: sorted(row[f"{kind.removesuffix('s')}Name"] for row in getattr(client, operation)()[kind])
            for kind, operation in LEAVING_NOTHING.items()
        }

    def schedules(self) -> list[str]:
        return [row["Name"] for row in self.aws.client("scheduler").list_schedules()["Schedules"]]


@contextmanager
def of(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    """With the slim image in the settings."""
    with before(aws, command) as front:
        yield Kennel(front, command, tmp_path / "cwd", {"image": images(front)[1]})


NOTHING: dict[str, list[str]] = {kind: [] for kind in LEAVING_NOTHING}


def shown(stdout: str) -> list[tuple[str, dict[str, Any]]]:
    """(operation, request) of each call that --dry-run printed."""
    rows = json.loads("[" + stdout.replace("}\n{", "},{") + "]")
    return [(row["operation"], row["request"]) for row in rows]


def images(front: Front) -> tuple[str, str]:
    """The addresses of a full and of a slim image."""
    return front.put_image("full", FULL), front.put_image("slim", SLIM)


def trained() -> bytes:
    """The model.tar.gz of a real, tiny network."""
    return pictures.model(executables())


def noise(side: int) -> bytes:
    """A PNG of random pixels, three bytes each, which nothing makes smaller."""
    rows = b"".join(b"\0" + os.urandom(3 * side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def in_service(kennel: Kennel, *words: str) -> str:
    """Deploys the trained model and waits; what was said."""
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz", trained())
    done = kennel("deploy", "--model", model, "--yes", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packed(tmp_path: Path, files: dict[str, bytes]) -> bytes:
    """A .tar.gz."""
    path = tmp_path / "packed.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, body in files.items():
            (tmp_path / "packed").write_bytes(body)
            archive.add(tmp_path / "packed", arcname=name)
    return path.read_bytes()


def trust_the_scheduler(aws: Aws) -> None:
    """From now on `--ttl` may delete by the account's role."""
    services = ["sagemaker.amazonaws.com", "scheduler.amazonaws.com"]
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": services}}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    aws.client("iam").update_assume_role_policy(RoleName="kennel-execution", PolicyDocument=policy)


def wait_until_gone(kennel: Kennel) -> None:
    """SageMaker takes its time to delete an endpoint."""
    end = time.monotonic() + 60
    while kennel.left()["Endpoints"]:
        assert time.monotonic() < end
        time.sleep(0.2)
