"""--local without a Docker engine: what is refused and why, and what docker is asked for; the rest is tests/image's."""

import fcntl
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import Command

# Has the image `here`; `up` ends as a compose that could not start a container.
DOCKER = """#!/bin/sh
echo "$@" >> {asked}
case "$*" in
    "compose version") echo "Docker Compose version v2.30.0";;
    "image inspect"*" here") echo "{{}}";;
    "image inspect"*) echo "Error: No such image" >&2; exit 1;;
    *" up "*) env | grep ^AWS_ | sort; exit ${{UP:-3}};;
esac
"""
Env = dict[str, str]
OUT = "build/sdk-local"


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """What docker was asked for, a line for each command."""
    return tmp_path / "asked"


@pytest.fixture
def env(tmp_path: Path, asked: Path) -> Env:
    """Of a caller with AWS credentials, which are not used here."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER.format(asked=asked))
    docker.chmod(0o755)
    mine = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "mine", "AWS_PROFILE": "mine"}
    return {"PATH": f"{docker.parent}:/usr/bin:/bin", "DOCKER": "docker", **mine}


@pytest.fixture
def cwd(cwd: Path) -> Path:
    """The folder that commands run in, with photos and a model."""
    for name in ("photos/ant/0.jpg", "photos/bee/0.jpg", f"{OUT}/model.tar.gz"):
        path = cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return cwd


def test_a_compose_that_cannot_start_is_no_failed_job(process: Command, env: Env, cwd: Path, asked: Path) -> None:
    done = process("cli", "train", "--local", "--data", "photos", "--image", "here", "--epochs", "5", **env)
    assert done.returncode == 2
    assert done.stderr == ("kennel train: docker compose could not start the job: its last lines above say why\n"), (
        done.stderr
    )
    assert "AWS_ACCESS_KEY_ID=none" in done.stdout
    assert "mine" not in done.stdout
    assert " up " in asked.read_text()
    assert "login" not in asked.read_text()
    assert "network rm sagemaker-local" in asked.read_text()
    assert [path.name for path in (cwd / OUT).iterdir()] == ["model.tar.gz"], "an earlier job's"


def test_a_compose_that_calls_a_failed_job_a_success_is_not_believed(process: Command, env: Env, cwd: Path) -> None:
    (cwd / OUT / "job.json").write_text('{"image": "earlier"}')
    done = process("cli", "train", "--local", "--data", "photos", "--image", "here", "--epochs", "5", **env, UP="0")
    assert done.returncode == 1, done.stdout + done.stderr
    earlier = f"{OUT}/model.tar.gz"
    assert done.stderr == f"kennel train: the job failed: it made no model ({earlier} is an earlier job's)\n"
    assert (cwd / earlier).read_text() == earlier
    assert json.loads((cwd / OUT / "job.json").read_text()) == {"image": "earlier"}
    assert (cwd / OUT / "output.tar.gz").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --data s3://b/c --image here", "--data s3://b/c: local mode reads a folder of this machine"),
        ("train --image here", "say where the photos are: --data FOLDER"),
        ("train --data photos", "the image is missing"),
        ("train --data photos --image gone", "image gone cannot be used here (docker image failed: Error: No such im"),
        ("train --data photos --image here --dry-run", "--dry-run prints what AWS would be sent, and --local sends"),
        ("train --data photos --image here --out photos/ant/0.jpg", "cannot be made (Not a directory): name another"),
        ("train --data photos --image here --epochs 0", "epochs='0'"),
        ("train --data photos --image here --spot", "--spot and --local: only SageMaker has that, leave one of them"),
        (
            "train --data photos --image here --spot --max-wait 9 --input-mode FastFile --role me",
            "--spot, --max-wait, --input-mode, --role and --local: only SageMaker has those, leave them, or --local,",
        ),
        ("train --data photos --image here --from-tuning-job dogs", "--from-tuning-job and --local: only SageMaker"),
        ("tune --data photos --image here --jobs 3", "--jobs and --local: only SageMaker has that"),
        (
            "tune --data photos --image here --one-job --env A=B",
            "--one-job, --env and --local: only SageMaker has those",
        ),
        ("tune --data photos --gpus all", "--gpus is docker's"),
        ("invoke photos --region eu-west-1", "--region and --local: only SageMaker has that"),
        ("deploy --image gone", "image gone cannot be used here"),
        ("deploy", "the image is missing"),
        ("deploy --image here --out none", "none/model.tar.gz is no file: kennel train --local makes one"),
        ("deploy --image here --model mine.tar.gz", "mine.tar.gz is no file"),
        ("deploy --image here --port 70000", "--port 70000: write 1 to 65535"),
        ("deploy --image here --port 0", "--port 0: write 1 to 65535"),
        ("deploy --image here --instance-type ml.c5.large", "--instance-type and --local: only SageMaker has that"),
        ("deploy --image here --ttl 2h", "--ttl and --local: only SageMaker has that"),
        ("deploy --image here --mode serverless", "--mode and --local: only SageMaker has that"),
        ("deploy --image here --job pets-1", "--job and --local: only SageMaker has that"),
        ("invoke photos", f"no endpoint runs from {OUT}: kennel deploy --local starts one"),
        ("invoke s3://b/c", "--local asks about photos of this machine, and s3://b/c is none"),
        ("invoke photos --target-model a.tar.gz", "an endpoint of --local has one model: leave --target-model out"),
        ("delete", f"no endpoint runs from {OUT}: kennel deploy --local starts one"),
        ("delete pets", "--local stands alone, with --out"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(command: Command, env: Env, cwd: Path, words: str, said: str) -> None:
    before = sorted(cwd.rglob("*"))
    name, *more = words.split()
    done = command("cli", name, "--local", *more, **env)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith(f"kennel {name}: ")
    assert len(done.stderr.splitlines()) == 1
    assert sorted(cwd.rglob("*")) == before


def test_a_busy_port_is_refused(command: Command, env: Env, cwd: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = command("cli", "deploy", "--local", "--image", "here", "--port", str(port), **env)
    assert done.returncode == 2
    assert f"something listens on port {port} already: write another --port" in done.stderr


@pytest.fixture
def log(cwd: Path) -> Iterator[Path]:
    """An endpoint's, held by us as its process would."""
    path = cwd / OUT / "endpoint.log"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def test_a_folder_has_one_endpoint(command: Command, env: Env, log: Path) -> None:
    deploy = ("deploy", "--local", "--image", "here")
    done = command("cli", *deploy, **env)
    assert done.returncode == 2
    assert f"an endpoint is just being deployed from {OUT}: wait until it is" in done.stderr
    log.with_name("endpoint.json").write_text(json.dumps({"pid": 0, "port": 81, "name": "a", "image": "here"}))
    done = command("cli", *deploy, **env)
    assert done.returncode == 2
    assert f"an endpoint runs from {OUT} already, on port 81: kennel delete --local ends it" in done.stderr


def test_an_endpoint_whose_compose_cannot_start_says_so(process: Command, env: Env, cwd: Path, dead_port: int) -> None:
    done = process("cli", "deploy", "--local", "--image", "here", "--port", str(dead_port), **env)
    assert done.returncode == 1
    assert f"see {OUT}/endpoint.log" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in (cwd / OUT).iterdir()) == ["endpoint.log", "model.tar.gz"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --data photos --out mine", "kennel train: --out without --local: add --local, or leave it out"),
        (
            "deploy --job pets --out mine --port 80",
            "kennel deploy: --out, --port without --local: add --local, or leave",
        ),
        (
            "tune --data photos --gpus all --fresh",
            "kennel tune: --gpus, --fresh without --local: add --local, or leave",
        ),
        ("invoke pets photos --out mine", "kennel invoke: --out without --local: add --local, or leave it out"),
        ("delete pets --out mine", "kennel delete: --out without --local: add --local, or leave it out"),
    ],
)
def test_flags_of_local_mode_alone_are_refused_without_it(command: Command, words: str, said: str) -> None:
    done = command("cli", *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
