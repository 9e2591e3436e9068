"""`kennel transform`: a real batch over a folder and over a prefix with other files in it, and what it asks for."""

import csv
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel_launch.console import terminal
from kennel_launch.console.steps import Steps
from kennel_launch.inference import predictions
from kennel_launch.inference.predictions import PhotoPrediction
from kennel_launch.machine.http_probe import Guess

from ...emulated_aws.client import Aws
from ...emulated_aws.runners import pictures
from ..conftest import Command
from ..deployments import JOB, NOTHING, Kennel, images, of, shown, trained


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    with of(aws, command, tmp_path) as kennel:
        yield kennel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pictures.photos(tmp_path / "new", {"red": 2, "green": 1})


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_sent_transformed_and_told(kennel: Kennel, programs: Path, folder: Path) -> None:
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz", trained())
    done = kennel("transform", "--model", model, "--data", str(folder), "--wait", "--yes")
    assert done.returncode == 0, done.stderr
    assert "creates transform job kennel-pets-" in done.stderr
    assert "3 of 3 photos have an answer: predictions.csv" in done.stdout
    rows = table(kennel.cwd / "predictions.csv")
    assert [row["photo"] for row in rows] == ["green/0.png", "red/0.png", "red/1.png"]
    assert {row["label_1"] for row in rows} | {row["label_2"] for row in rows} == {"green", "red"}
    assert all(float(row["probability_1"]) >= float(row["probability_2"]) for row in rows)
    (request,) = kennel.aws.asked("sagemaker", "CreateTransformJob")
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    assert source == {"S3DataType": "S3Prefix", "S3Uri": f"s3://{kennel.aws.bucket}/kennel/data/new/"}
    assert kennel.left() == NOTHING  # the model is gone again


def test_other_files_of_a_prefix_are_left_out_and_a_bad_photo_is_said(
    kennel: Kennel, programs: Path, folder: Path
) -> None:
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz", trained())
    for path in folder.rglob("*.png"):
        kennel.put(f"asked/{path.relative_to(folder)}", path.read_bytes())
    kennel.put("asked/notes.txt")
    kennel.put("asked/red/")
    kennel.put("asked/broken.jpg", b"no photo")
    data, out = (f"s3://{kennel.aws.bucket}/{name}" for name in ("asked", "said"))
    words = ["--data", data, "--out", out, "--name", "batch", "--csv", "all.csv", "--engine", "fp32"]
    done = kennel("transform", "--model", model, *words, "--wait", "--yes")
    assert done.returncode == 1
    assert "kennel transform: batch is Failed: ClientError" in done.stderr.splitlines()[-1]
    assert "3 of 4 photos have an answer: all.csv" in done.stdout
    assert len(table(kennel.cwd / "all.csv")) == 3
    assert "said/batch/red/0.png.out" in kennel.keys("said")
    (request,) = kennel.aws.asked("sagemaker", "CreateTransformJob")
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    assert source["S3DataType"] == "ManifestFile"
    body = kennel.aws.client("s3").get_object(Bucket=kennel.aws.bucket, Key="kennel/transform/batch/photos.manifest")
    names = ["broken.jpg", "green/0.png", "red/0.png", "red/1.png"]
    assert json.load(body["Body"]) == [{"prefix": f"{data}/"}, *names]
    (made,) = kennel.aws.asked("sagemaker", "CreateModel")
    assert made["PrimaryContainer"]["Environment"] == {"KENNEL_ENGINE": "fp32"}


def test_the_request_is_one_photo_a_request_and_a_key_for_all(kennel: Kennel, folder: Path) -> None:
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz")
    full = images(kennel.front)[0]
    words = ["--data", str(folder), "--kms-key", "alias/mine", "--name", "batch", "--dry-run"]
    done = kennel("transform", "--model", model, *words, "--image", full, "--instance-type", "ml.g4dn.xlarge")
    assert done.returncode == 0, done.stderr
    request = dict(shown(done.stdout))["CreateTransformJob"]
    assert request["BatchStrategy"] == "SingleRecord"
    assert request["TransformInput"]["ContentType"] == "application/x-image"
    assert request["TransformOutput"] == {
        "S3OutputPath": f"s3://{kennel.aws.bucket}/kennel/transform/batch/out/",
        "Accept": "application/jsonlines",
        "AssembleWith": "None",
        "KmsKeyId": "alias/mine",
    }
    resources = request["TransformResources"]
    assert resources.pop("TransformAmiVersion").startswith("al2-ami-sagemaker-batch-gpu-")
    assert resources == {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1}  # its own disks take no key
    assert {"Key": "kennel", "Value": "1"} in request["Tags"]
    done = kennel("transform", "--model", model, *words)
    assert dict(shown(done.stdout))["CreateTransformJob"]["TransformResources"]["VolumeKmsKeyId"] == "alias/mine"
    assert kennel.made() == []


def test_a_dry_run_of_a_folder_shows_what_is_sent_without_it(kennel: Kennel, folder: Path) -> None:
    kennel.aws.hold()
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz")
    words = ["transform", "--model", model, "--data", str(folder), "--name", "batch"]
    plain = dict(shown(kennel(*words, "--dry-run").stdout))["CreateTransformJob"]["TransformInput"]["DataSource"]
    assert plain["S3DataSource"] == {"S3DataType": "S3Prefix", "S3Uri": f"s3://{kennel.aws.bucket}/kennel/data/new/"}
    (folder / "red" / "notes.txt").write_text("no photo")
    kennel.put("kennel/data/new/red/gone.png")  # of an earlier upload: it is not asked about
    done = kennel(*words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [operation for operation, _ in shown(done.stdout)] == ["PutObject", "CreateModel", "CreateTransformJob"]
    assert "upload 4 files, " in done.stderr
    assert " sent" not in done.stderr
    assert kennel.made() == []
    request = dict(shown(done.stdout))["CreateTransformJob"]
    assert request["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"] == "ManifestFile"
    done = kennel(*words, "--yes")
    assert done.returncode == 0, done.stderr
    (sent,) = kennel.aws.asked("sagemaker", "CreateTransformJob")
    assert sent == request | {"ModelName": sent["ModelName"]}
    body = kennel.aws.client("s3").get_object(Bucket=kennel.aws.bucket, Key="kennel/transform/batch/photos.manifest")
    prefix = {"prefix": f"s3://{kennel.aws.bucket}/kennel/data/new/"}
    assert json.load(body["Body"]) == [prefix, "green/0.png", "red/0.png", "red/1.png"]


def test_without_waiting_it_says_where_the_answers_come(kennel: Kennel, folder: Path) -> None:
    kennel.aws.hold()
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz")
    done = kennel("transform", "--model", model, "--data", str(folder), "--name", "batch", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "started: kennel status batch",
        f"answers: s3://{kennel.aws.bucket}/kennel/transform/batch/out/",
        "then remove its model: kennel delete batch",
    ]
    assert kennel("delete", "batch", "--yes").returncode == 0
    assert kennel.left() == NOTHING


def test_a_job_that_is_refused_leaves_no_model(kennel: Kennel, folder: Path) -> None:
    kennel.front.denied.add("CreateTransformJob")
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz")
    done = kennel("transform", "--model", model, "--data", str(folder), "--yes")
    assert done.returncode == 2
    assert "AccessDeniedException" in done.stderr.splitlines()[-1]
    assert "CreateModel" in kennel.made()
    assert kennel.left() == NOTHING


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere"], "--data nowhere is no folder: name one with photos, or s3://BUCKET/PREFIX"),
        (["--data", "s3://kennel-test-bucket/empty"], "s3://kennel-test-bucket/empty holds no photos"),
        (["--data", "."], ". holds no photos"),
        (["--data", ".", "--name", "a_b"], "transform job 'a_b': a name is up to 63"),
        (["--data", ".", "--out", "here"], "'here' is no address in S3"),
        (["--data", ".", "--instance-type", "ml.x9.large"], "no instance type 'ml.x9.large' for batch transform"),
    ],
)
def test_what_cannot_be_transformed_is_one_sentence(kennel: Kennel, words: list[str], said: str) -> None:
    model = kennel.put(f"kennel/jobs/{JOB}/output/model.tar.gz")
    assert said in kennel.refused("transform", "--model", model, *words, "--yes")


def test_the_table_has_a_column_for_each_place(tmp_path: Path) -> None:
    one = PhotoPrediction("a, b.jpg", [Guess("ant", 0.75), Guess("bee", 0.25)])
    predictions.write(
        [one, PhotoPrediction("c.jpg", [Guess("bee", 1.0)]), PhotoPrediction("d.jpg", [])], tmp_path / "p.csv"
    )
    assert (tmp_path / "p.csv").read_text() == (
        'photo,label_1,probability_1,label_2,probability_2\n"a, b.jpg",ant,0.75,bee,0.25\nc.jpg,bee,1.0,,\nd.jpg,,,,\n'
    )
    counted = predictions.summary(
        [one, PhotoPrediction("c.jpg", [Guess("bee", 1.0)]), PhotoPrediction("d", [Guess("bee", 0.5)])]
    )
    assert [list(column.cells) for column in counted.columns] == [
        ["bee", "ant"],
        ["2", "1"],
        ["0.750", "0.750"],
        ["0.500", "0.750"],
    ]


def test_a_line_that_holds_an_error_is_that_photos(tmp_path: Path) -> None:
    good = '{"predictions": [{"label": "ant", "probability": 0.75}]}'
    bad = '{"error": "no photo:\\n it is cut"}'
    assert predictions.read(bad, "a.jpg", "s3://b/k") == [PhotoPrediction("a.jpg", error="no photo: it is cut")]
    assert predictions.read(json.dumps(json.loads(good), indent=1), "a.jpg", "s3://b/k")[0].guesses == [
        Guess("ant", 0.75)
    ]
    many = predictions.read(f"{good}\n{bad}\n\n{good}\n", "list.jsonl", "s3://b/k")
    assert [(row.photo, bool(row.guesses), row.error) for row in many] == [
        ("list.jsonl:1", True, ""),
        ("list.jsonl:2", False, "no photo: it is cut"),
        ("list.jsonl:3", True, ""),
    ]
    predictions.write(many, tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == (
        "photo,label_1,probability_1,error\n"
        "list.jsonl:1,ant,0.75,\nlist.jsonl:2,,,no photo: it is cut\nlist.jsonl:3,ant,0.75,\n"
    )


def test_answers_are_fetched_several_at_once_and_come_in_order(aws: Aws) -> None:
    names = [f"out/{number:03}.jpg" for number in range(24)]
    together = threading.Barrier(4, timeout=60)

    class Client:
        """S3's, that keeps each answer until four are asked for."""

        def get_object(self, **asked: str) -> object:
            together.wait()
            return aws.client("s3").get_object(**asked)

        def get_paginator(self, name: str) -> object:
            return aws.client("s3").get_paginator(name)

    for name in names:
        body = json.dumps({"predictions": [{"label": name, "probability": 1.0}]}).encode()
        aws.client("s3").put_object(Bucket=aws.bucket, Key=f"{name}.out", Body=body)
    found = predictions.fetch(Client(), f"s3://{aws.bucket}/out/", Steps(terminal.err()))
    assert [(row.photo, row.guesses[0].label) for row in found] == [(name.removeprefix("out/"), name) for name in names]


def test_an_answer_of_somebody_elses_is_named() -> None:
    with pytest.raises(UserError, match=r"s3://b/k.out holds no predictions \('yes'\)"):
        predictions.read("yes", "k", "s3://b/k.out")
