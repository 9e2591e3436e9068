"""--local without a Docker engine: what is refused and why, what docker is asked for; the rest is tests/image's."""

import fcntl
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kennel_launch.local_mode import local_job

from ..conftest import Command

# Has the image `here`; of a container it runs what JOB says, where its /opt/ml lies in $base.
DOCKER = """#!/bin/sh
echo "$@" >> {asked}
case "$*" in
    "image inspect here") echo "{{}}";;
    "image inspect"*) echo "Error: No such image" >&2; exit 1;;
    run*)
        for word; do case "$word" in *:/opt/ml|*:/opt/ml/model:ro) base="${{word%%:/opt/ml*}}";; esac; done
        eval "$JOB";;
esac
"""
TRAINS = 'echo "{}" > $base/model/manifest.json; mkdir -p $base/output/data; echo page > $base/output/data/report.html'
Env = dict[str, str]
OUT = "build/local"
TRAIN = ("cli", "train", "--local", "--data", "photos", "--image", "here", "--epochs", "5")


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """What docker was asked for, a line for each command."""
    return tmp_path / "asked"


@pytest.fixture
def env(tmp_path: Path, asked: Path) -> Env:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER.format(asked=asked))
    docker.chmod(0o755)
    return {"PATH": f"{docker.parent}:/usr/bin:/bin", "DOCKER": "docker"}


@pytest.fixture
def cwd(cwd: Path) -> Path:
    """The folder that commands run in, with photos and an earlier job's model."""
    for name in ("photos/ant/0.jpg", "photos/bee/0.jpg", f"{OUT}/model/manifest.json"):
        path = cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (cwd / OUT / "input/config").mkdir(parents=True)
    (cwd / OUT / "input/config/resourceconfig.json").write_text("{}")
    (cwd / OUT / "job.json").write_text('{"image": "earlier"}')
    return cwd


def test_a_job_leaves_its_model_its_report_and_its_image(command: Command, env: Env, cwd: Path, asked: Path) -> None:
    job = f'{TRAINS}; echo "$SECRET $TRAINING_JOB_NAME" > $base/model/said'
    done = command(*TRAIN, "--name", "pets", "--env", "SECRET=hush", **env, JOB=job)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{OUT}/model\n"
    assert done.stderr == f"report: {OUT}/output/data/report.html\n"
    assert (cwd / OUT / "model" / "said").read_text() == "hush pets\n"
    assert json.loads((cwd / OUT / "job.json").read_text()) == {"name": "pets", "image": "here"}
    assert json.loads((cwd / OUT / "input/config/hyperparameters.json").read_text()) == {"epochs": "5"}
    assert "hush" not in asked.read_text(), "every user of the machine sees a command's words"
    assert "network" not in asked.read_text().replace("--network-alias", "")


@pytest.mark.parametrize(
    ("job", "code", "said"),
    [
        ("exit 125", 2, "docker could not start the container, and says why above"),
        ("exit 3", 1, f"training ended with exit code 3 and left no failure file ({OUT}/model is an earlier job's)"),
        (
            'echo "no photos" > $base/output/failure; exit 1',
            1,
            f"training failed: no photos ({OUT}/model is an earlier job's)",
        ),
    ],
)
def test_a_failed_job_leaves_an_earlier_ones_model(
    command: Command, env: Env, cwd: Path, job: str, code: int, said: str
) -> None:
    done = command(*TRAIN, **env, JOB=job)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == f"kennel train: {said}"
    assert (cwd / OUT / "model" / "manifest.json").read_text() == f"{OUT}/model/manifest.json"
    assert json.loads((cwd / OUT / "job.json").read_text()) == {"image": "earlier"}


def test_a_failed_first_job_speaks_of_no_earlier_one(command: Command, env: Env, cwd: Path) -> None:
    done = command(*TRAIN, "--out", "new", **env, JOB="exit 3")
    assert done.returncode == 1
    assert done.stderr == "kennel train: training ended with exit code 3 and left no failure file\n"


def test_each_host_is_a_container_in_a_network_of_the_job(
    command: Command, env: Env, cwd: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_job, "_PATIENCE", 0.5)
    job = 'case $base in *algo-2) echo "host 2" > $base/output/failure; exit 1;; esac; sleep 60'
    done = command(*TRAIN, "--instance-count", "2", **env, JOB=job)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("kennel train: training failed: host 2")
    lines = asked.read_text().splitlines()
    [made] = [line.split()[-1] for line in lines if line.startswith("network create")]
    assert lines[-1] == f"network rm {made}"
    runs = [line for line in lines if line.startswith("run")]
    for host, folder, line in zip(("algo-1", "algo-2"), ("", "/hosts/algo-2"), sorted(runs), strict=True):
        assert f"--hostname {host} " in line
        assert f"--network {made} --network-alias {host} " in line
        assert f"{OUT}{folder}:/opt/ml " in line
        resources = json.loads((cwd / f"{OUT}{folder}/input/config/resourceconfig.json").read_text())
        assert resources["current_host"] == host
        assert resources["hosts"] == ["algo-1", "algo-2"]
        assert resources["network_interface_name"] == "eth0"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --data s3://b/c --image here", "--data s3://b/c: --local reads a folder of this machine"),
        ("train --image here", "say where the photos are: --data FOLDER"),
        ("train --data photos", "no `train` lies beside "),
        ("train --data photos --gpus all", "--gpus is docker's"),
        ("train --data photos --instance-count 2", "each host of --instance-count is a container: name an image"),
        ("train --data photos --image gone", "image gone cannot be used here (docker image failed: Error: No such im"),
        ("train --data photos --image here --dry-run", "--dry-run prints what AWS would be sent, and --local sends"),
        ("train --data photos --image here --out photos", "photos holds other files"),
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
        ("deploy --model photos", "no `serve` lies beside "),
        ("deploy", "image earlier cannot be used here"),
        ("deploy --image here --out none", "none/model is no model: kennel train --local makes one"),
        ("deploy --image here --model mine.tar.gz", "mine.tar.gz is no model"),
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
    path = cwd / OUT / "endpoint" / "serve.log"
    path.parent.mkdir()
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def test_a_folder_has_one_endpoint(command: Command, env: Env, log: Path) -> None:
    deploy = ("deploy", "--local", "--image", "here")
    done = command("cli", *deploy, **env)
    assert done.returncode == 2
    assert f"an endpoint is just being deployed from {OUT}: wait until it is" in done.stderr
    log.with_name("endpoint.json").write_text(json.dumps({"pid": 0, "port": 81, "container": "a"}))
    done = command("cli", *deploy, **env)
    assert done.returncode == 2
    assert f"an endpoint runs from {OUT} already, on port 81: kennel delete --local ends it" in done.stderr


def test_an_endpoint_that_cannot_start_says_so(command: Command, env: Env, cwd: Path, dead_port: int) -> None:
    words = ("deploy", "--local", "--image", "here", "--port", str(dead_port))
    done = command("cli", *words, **env, JOB="cat $base/manifest.json; echo; echo no such runtime; exit 125")
    assert done.returncode == 1
    assert done.stderr == (
        "kennel deploy: the server ended with exit code 125 before it was healthy: "
        f"see {OUT}/endpoint/serve.log ({OUT}/model/manifest.json / no such runtime)\n"
    )
    assert [path.name for path in (cwd / OUT / "endpoint").iterdir()] == ["serve.log"]


def test_a_model_that_is_no_archive_is_refused(command: Command, env: Env, cwd: Path, dead_port: int) -> None:
    words = ("deploy", "--local", "--image", "here", "--port", str(dead_port), "--model", "photos/ant/0.jpg")
    done = command("cli", *words, **env)
    assert done.returncode == 2
    assert done.stderr.startswith("kennel deploy: photos/ant/0.jpg cannot be unpacked to ")
    assert [path.name for path in (cwd / OUT / "endpoint").iterdir()] == ["serve.log"]


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
