"""What moto lacks, in front of the emulated AWS: ECR's layers, IAM's simulator, a caller who may not do all.

Everything else goes on to the emulator as it came.
"""

import hashlib
import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..emulated_aws.client import Aws
from .conftest import Command, serving

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OURS = ("python3", "-I", "-m", "kennel_image.entrypoint")
FULL = ("SAGEMAKER_TRAINING_MODULE=kennel_train.job:main", "CUDA_VERSION=12.8.1")
_XML = (
    '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><SimulatePrincipalPolicyResult>'
    "<IsTruncated>false</IsTruncated><EvaluationResults>{rows}</EvaluationResults></SimulatePrincipalPolicyResult>"
    "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></SimulatePrincipalPolicyResponse>"
)
_ROW = "<member><EvalActionName>{action}</EvalActionName><EvalDecision>{decision}</EvalDecision></member>"
_DENIED = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not yours</Message></Error></ErrorResponse>"


@dataclass
class Front:
    """One account with what a test put before it."""

    aws: Aws
    command: Command
    port: int = 0
    denied: set[str] = field(default_factory=set)  # operations that the caller may not call: "GetRole"
    garbled: set[str] = field(default_factory=set)  # operations to which a proxy answers with a page
    lost: set[str] = field(default_factory=set)  # operations that are done, but whose next answer does not arrive
    missing: set[str] = field(default_factory=set)  # rights that the role lacks: "s3:PutObject"
    empty_pages: bool = False  # a log begins with a page that is empty, as CloudWatch may answer
    blobs: dict[str, bytes] = field(default_factory=dict)  # digest -> an image's configuration

    @property
    def env(self) -> dict[str, str]:
        return {**self.aws.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def ask(self, *words: str, image: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """`kennel check`; a setting that no word names is the account's own."""
        image = image or self.put_image("full")
        named = {"--role": self.aws.role, "--image": image, "--bucket": self.aws.bucket}
        rest = [word for flag, value in named.items() if flag not in words for word in (flag, value)]
        return self.command("cli", "check", *words, *rest, **(self.env | env))

    def refused(self, *words: str, image: str = "", **env: str) -> str:
        """The one sentence of a refusal, before anything was made."""
        done = self.ask(*words, image=image, **env)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.startswith("kennel check: ")
        assert done.stderr.count("\n") == 1, done.stderr
        assert not self._made()
        return done.stderr

    def allowed(self, *words: str, image: str = "", **env: str) -> list[str]:
        """The lines of an advice, but the first, which says where."""
        done = self.ask(*words, image=image, **env)
        assert done.returncode == 0, done.stderr
        assert not self._made()
        first, *lines = done.stdout.splitlines()
        assert first.startswith("account 123456789012, region eu-west-1, image ")
        return lines

    def _made(self) -> list[str]:
        reads = ("Get", "List", "Describe", "Head", "Batch", "Simulate")
        return [one.operation for one in self.aws.requests if not one.operation.startswith(reads)]

    def put_image(
        self,
        tag: str,
        env: Sequence[str] = FULL,
        *,
        media_type: str = DOCKER_MANIFEST,
        architecture: str = "amd64",
        entrypoint: Sequence[str] = OURS,
        labels: Mapping[str, str] | None = None,
        size: int = 3_000_000_000,
    ) -> str:
        """An image in the account's repository; its address."""
        config = {"Env": list(env), "Entrypoint": list(entrypoint), "Labels": dict(labels or {})}
        content = json.dumps({"architecture": architecture, "os": "linux", "config": config}).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
        if "index" in media_type or "list" in media_type:
            manifest["manifests"] = [{"digest": digest, "size": 500, "platform": {"architecture": architecture}}]
        else:
            manifest |= {"config": {"digest": digest, "size": len(content)}}
            manifest["layers"] = [{"digest": digest, "size": size // 2}, {"digest": digest, "size": size - size // 2}]
        client = self.aws.client("ecr")
        with suppress(client.exceptions.ImageAlreadyExistsException):  # put by an earlier question of this test
            client.put_image(
                repositoryName="kennel",
                imageTag=tag,
                imageManifest=json.dumps(manifest),
                imageManifestMediaType=media_type,
            )
        return f"{self.aws.image.partition(':')[0]}:{tag}"


@contextmanager
def before(aws: Aws, command: Command) -> Iterator[Front]:
    """A front of its own for one test."""
    front = Front(aws, command)
    handler = type("Handler", (_Handler,), {"front": front})
    with serving(handler) as front.port:
        yield front


class _Handler(BaseHTTPRequestHandler):
    front: Front

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        form = parse_qs(body.decode()) if self.headers.get("Content-Type", "").startswith("application/x-www") else {}
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2] or form.get("Action", [""])[0]
        if self.command == "HEAD" and "HeadBucket" in self.front.denied:
            self._answer(403, b"", "text/xml")
        elif operation in self.front.garbled:
            self._answer(200 if form else 502, b"<html>a proxy's page<br></html>", "text/html")
        elif operation in self.front.denied:
            if form:
                self._answer(403, _DENIED.encode(), "text/xml")
            else:
                content = {"__type": "AccessDeniedException", "message": "not yours"}
                self._answer(400, json.dumps(content).encode(), "application/x-amz-json-1.1")
        elif operation == "GetLogEvents" and b"nextToken" not in body and self.front.empty_pages:
            content = {"events": [], "nextForwardToken": "f/-1", "nextBackwardToken": "b/0"}
            self._answer(200, json.dumps(content).encode(), "application/x-amz-json-1.1")
        elif self.path.startswith("/blobs/"):
            self._answer(200, self.front.blobs[self.path.rpartition("/")[2]], "application/octet-stream")
        elif operation == "GetDownloadUrlForLayer":
            digest = json.loads(body)["layerDigest"]
            content = {"downloadUrl": f"http://127.0.0.1:{self.front.port}/blobs/{digest}", "layerDigest": digest}
            self._answer(200, json.dumps(content).encode(), "application/x-amz-json-1.1")
        elif operation == "SimulatePrincipalPolicy":
            actions = [values[0] for key, values in form.items() if key.startswith("ActionNames.")]
            words = {True: "implicitDeny", False: "allowed"}
            rows = [_ROW.format(action=one, decision=words[one in self.front.missing]) for one in actions]
            self._answer(200, _XML.format(rows="".join(rows)).encode(), "text/xml")
        elif operation in self.front.lost:
            self.front.lost.remove(operation)
            self._forward(body, lost=True)
        else:
            self._forward(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 # http.server's names

    def _forward(self, body: bytes, lost: bool = False) -> None:
        there = http.client.HTTPConnection(urlsplit(self.front.aws.url).netloc, timeout=60)
        there.request(self.command, self.path, body, dict(self.headers.items()))
        answer = there.getresponse()
        content = answer.read()
        if lost:
            self._answer(502, b"<html>a proxy's page</html>", "text/html")
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        there.close()

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass
