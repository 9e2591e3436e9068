"""kennel train, deploy, invoke and delete with --local, typed by a user who is not root and has no AWS account.

Whatever the command's processes look up or connect to outside this machine is written down and refused.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kennel_launch.machine.http_probe import free_port

from .conftest import DOCKER, answers

REPOSITORY = Path(__file__).parents[2]
SOCKET = Path("/var/run/docker.sock")
STRANGER = 54321  # a user that no machine knows, where the tests are root's
LIMIT = 180  # seconds before a test calls a command hung
TINY = (
    "--backbone",
    "test_resnet",
    "--pretrained",
    "false",
    "--image-size",
    "64",
    "--batch-size",
    "8",
    "--int8",
    "false",
    "--epochs",
)
COMMAND = """#!{python}
import sys

sys.path[:0] = {sources!r}
sys.path.append({packages!r})
from kennel_launch.cli import main

sys.exit(main())
"""
TRAP = """
import socket

def outside(host):
    return str(host) not in ("None", "", "localhost", "::1", "0.0.0.0", "::") and not str(host).startswith("127.")

def refuse(what):
    with open({notes!r}, "a") as notes:
        notes.write(what + "\\n")
    raise OSError("no way out of here: " + what)

connect, look_up = socket.socket.connect, socket.getaddrinfo

def trapped_connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and outside(address[0]):
        refuse(f"connects to {{address}}")
    return connect(self, address)

def trapped_look_up(host, *others, **more):
    if outside(host):
        refuse(f"looks up {{host}}")
    return look_up(host, *others, **more)

socket.socket.connect, socket.getaddrinfo = trapped_connect, trapped_look_up
"""


@dataclass(frozen=True)
class User:
    """A user who types commands, in a folder of their own; `become` is what subprocess makes a process theirs by."""

    folder: Path
    become: dict = field(default_factory=dict)

    @property
    def uid(self) -> int:
        return self.become.get("user", os.getuid())

    @property
    def out(self) -> Path:
        return self.folder / "build" / "local"

    @property
    def sent(self) -> Path:
        return self.folder / "sent"

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        environ = {
            "PATH": f"{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "PYTHONPATH": str(self.folder / "trap"),
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        return subprocess.Popen(command, cwd=self.folder, env=environ | env, **pipes, **self.become)

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        with self.start(*command, **env) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            except BaseException:
                process.terminate()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def kennel(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("kennel", *words)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path


def python_of(user: User) -> str:
    """This interpreter, or the system's of the same version where the user may not run this one."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        try:
            if user.run(python, "-c", f"import os; os.listdir({str(REPOSITORY)!r})").returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip(f"user {user.uid} can't run a Python {sys.version_info[:2]}, or can't read {REPOSITORY}")


@pytest.fixture
def user(image: str, photos: Path) -> Iterator[User]:
    """Their folder holds the photos; all of it, and nothing else, is theirs."""
    if not SOCKET.is_socket():
        pytest.skip(f"the engine does not listen on {SOCKET}")
    folder = Path(tempfile.mkdtemp(prefix="kennel-user-", dir="/tmp"))
    become = {"user": STRANGER, "group": STRANGER, "extra_groups": [SOCKET.stat().st_gid]} if os.getuid() == 0 else {}
    made = User(folder, become)
    try:
        shutil.copytree(photos, folder / "photos")
        made.write("trap/sitecustomize.py", TRAP.format(notes=str(made.sent)))
        (folder / "bin").mkdir()
        (folder / "bin" / "docker").symlink_to(str(shutil.which(DOCKER)))
        give(made)
        sources = [str(REPOSITORY / "scripts"), str(REPOSITORY / "container")]
        packages = sysconfig.get_path("purelib")
        made.write("bin/kennel", COMMAND.format(python=python_of(made), sources=sources, packages=packages))
        yield made
    finally:
        shutil.rmtree(folder)


def give(user: User) -> None:
    for path in (user.folder, *user.folder.rglob("*")) if user.become else ():
        os.chown(path, user.uid, user.uid, follow_symlinks=False)


@pytest.fixture
def left(docker: Callable, user: User) -> Iterator[Callable[[], list[str]]]:
    """What is there now of a run that was not before it: containers, networks, processes, scratch, files of others."""

    def there() -> set[str]:
        found = docker("ps", "-a", "--filter", "name=kennel-", "--format", "container {{.Names}}").stdout
        found += docker("network", "ls", "--filter", "name=kennel-", "--format", "network {{.Name}}").stdout
        return set(found.splitlines())

    def found() -> list[str]:
        clients = [path for path in Path("/proc").glob("[0-9]*") if working_folder(path).is_relative_to(user.folder)]
        files = [path for path in user.out.rglob("*") if path.lstat().st_uid != user.uid]
        return [*sorted(there() - before), *map(str, clients), *map(str, files)]

    before = there()
    yield found
    for kind, name in (line.split() for line in there() - before):
        docker(*(("rm", "-f", name) if kind == "container" else ("network", "rm", name)))


def working_folder(process: Path) -> Path:
    """Other tests start such processes at the same time, in folders of their own."""
    try:
        return (process / "cwd").readlink()
    except OSError:
        return Path("/")


def test_from_photos_to_answers_on_one_host(user: User, docker: Callable, image: str, left: Callable) -> None:
    done = user.kennel("train", "--local", "--data", "photos", "--image", image, *TINY, "20", "--learning-rate", "0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "build/local/model"
    assert done.stderr.splitlines()[-1] == "report: build/local/output/data/report.html"
    assert "<html" in (user.out / "output" / "data" / "report.html").read_text()
    assert left() == []

    port = free_port()
    done = user.kennel("deploy", "--local", "--port", str(port))  # of the image that trained it
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"http://127.0.0.1:{port}\n"
    assert (
        docker("ps", "--filter", "name=kennel-serve", "--format", "{{.Ports}}").stdout
        == f"127.0.0.1:{port}->8080/tcp\n"
    )
    refused = user.kennel("deploy", "--local", "--port", str(free_port()))
    assert refused.returncode == 2
    assert f"an endpoint runs from build/local already, on port {port}" in refused.stderr
    other = ("--out", "other", "--model", str(user.out / "model"), "--image", image)
    refused = user.kennel("deploy", "--local", "--port", str(port), *other)
    assert refused.returncode == 2
    assert f"something listens on port {port} already" in refused.stderr

    done = user.kennel("invoke", "--local", "photos", "--top-k", "1", "--json")
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == 30
    assert all(len(row["predictions"]) == 1 for row in said)
    assert sum(row["photo"].startswith(row["predictions"][0]["label"] + "/") for row in said) >= 25
    done = user.kennel("invoke", "--local", "photos/red/1.jpg", "bin/kennel")
    assert done.returncode == 1
    assert "photos/red/1.jpg" in done.stdout
    assert "refused: bin/kennel (not a readable photo" in done.stderr

    done = user.kennel("delete", "--local")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"removed the endpoint on port {port}\n"
    assert left() == []
    assert not answers(port)
    assert [path.name for path in (user.out / "endpoint").iterdir()] == ["serve.log"]
    for words in (["delete", "--local"], ["invoke", "--local", "photos"]):
        done = user.kennel(*words)
        assert done.returncode == 2
        assert (
            done.stderr == f"kennel {words[0]}: no endpoint runs from build/local: kennel deploy --local starts one\n"
        )

    with tarfile.open(user.folder / "mine.tar.gz", "w:gz") as archive:  # as SageMaker packs it
        archive.add(user.out / "model", ".")
    assert (
        user.kennel("deploy", "--local", "--port", str(port), "--model", "mine.tar.gz", "--image", image).returncode
        == 0
    )
    os.killpg(json.loads((user.out / "endpoint" / "endpoint.json").read_text())["pid"], signal.SIGKILL)
    done = user.kennel("invoke", "--local", "photos")
    assert "no endpoint runs from build/local" in done.stderr
    assert user.kennel("delete", "--local").stdout == f"removed the endpoint on port {port}, which had ended\n"
    assert left() == []
    assert not user.sent.exists(), user.sent.read_text()


def test_two_hosts_train_one_model(user: User, image: str, left: Callable) -> None:
    strategy = ("--strategy", "probe-then-finetune", "--probe-epochs", "2")
    done = user.kennel(
        "train", "--local", "--instance-count", "2", "--data", "photos", "--image", image, *TINY, "2", *strategy
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (user.folder / done.stdout.splitlines()[-1] / "manifest.json").is_file()
    said = dict(re.findall(r"weights of process (\d) of 2: (\w+)", done.stdout))
    assert set(said) == {"0", "1"}
    assert said["0"] == said["1"]
    assert done.stdout.count("epoch=4 ") == 1, "rank 0 alone prints metrics"
    assert left() == []
    assert not user.sent.exists(), user.sent.read_text()


def test_a_failed_job_says_why_and_leaves_nothing(user: User, image: str, left: Callable) -> None:
    shutil.rmtree(user.folder / "photos" / "red")
    shutil.rmtree(user.folder / "photos" / "blue")
    done = user.kennel("train", "--local", "--data", "photos", "--image", image, *TINY, "2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("kennel train: training failed: ")
    assert "has one class only (green)" in done.stderr.splitlines()[-1]
    assert left() == []
    assert not list((user.out / "model").iterdir())
    assert not user.sent.exists(), user.sent.read_text()


@pytest.mark.parametrize(
    ("sent", "after", "code"),
    [(signal.SIGINT, "backbone: ", 130), (signal.SIGTERM, "epoch=1 ", 143)],
    ids=["Ctrl-C before training", "SIGTERM in training"],
)
def test_a_stopped_job_leaves_its_model_and_nothing_that_runs(
    user: User, image: str, left: Callable, sent: signal.Signals, after: str, code: int
) -> None:
    slow = ("--strategy", "finetune")
    with user.start("kennel", "train", "--local", "--data", "photos", "--image", image, *TINY, "10000", *slow) as job:
        assert job.stdout is not None
        seen = next((line for line in job.stdout if after in line), "")
        job.send_signal(sent)
        job.communicate(timeout=LIMIT)
    assert seen
    assert job.returncode == code
    assert left() == []
    if sent == signal.SIGTERM:  # of the epochs that it came to, as on SageMaker
        assert (user.out / "model" / "manifest.json").is_file()


def test_an_endpoint_that_cannot_start_says_why(user: User, image: str, left: Callable) -> None:
    with tarfile.open(user.folder / "broken.tar.gz", "w:gz") as archive:
        archive.add(user.folder / "photos" / "red" / "1.jpg", "model.onnx")
    port = free_port()
    done = user.kennel("deploy", "--local", "--model", "broken.tar.gz", "--image", image, "--port", str(port))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "see build/local/endpoint/serve.log" in done.stderr
    assert "manifest.json" in done.stderr
    assert left() == []
    assert not answers(port)
    assert not (user.out / "endpoint" / "endpoint.json").exists()


def test_the_trap_notices_who_looks_outside(user: User) -> None:
    done = user.run(python_of(user), "-c", "import socket; socket.create_connection(('s3.amazonaws.com', 443))")
    assert done.returncode == 1
    assert "amazonaws.com" in user.sent.read_text()
