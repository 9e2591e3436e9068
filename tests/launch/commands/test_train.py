"""`kennel train`: what is asked of SageMaker and what is not, what is refused before; real jobs; AWS is emulated."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kennel import metrics
from kennel_launch.advice import image_fit
from kennel_launch.console import flags
from kennel_launch.settings import Settings

from ...emulated_aws.client import Aws
from ...emulated_aws.runners import pictures
from .. import front
from ..conftest import Command

MakePhotos = Callable[[dict[str, int]], Path]
Env = dict[str, str]
TINY = [word for name, value in pictures.TINY.items() for word in (flags.flag(name), value)]
CHANGES = ("Create", "Put", "Delete", "Update", "Start", "Stop", "Add", "Upload", "Complete")


@pytest.fixture
def env(aws: Aws, command: Command) -> Iterator[Env]:
    """The environment of a caller for whom IAM's simulator answers, too."""
    with front.before(aws, command) as account:
        client = aws.client("s3")
        client.put_object(Bucket=aws.bucket, Key="kennel/data/pets/ant/0.jpg", Body=b"a photo")
        client.create_bucket(Bucket="other", CreateBucketConfiguration={"LocationConstraint": aws.region})
        for key in ("val/ant/1.jpg", "test/ant/2.jpg", "model.tar.gz", "weights/w.pth"):
            client.put_object(Bucket="other", Key=key, Body=b"something")
        yield account.env | {"KENNEL_IMAGE": account.put_image("full")}


def words(aws: Aws, *more: str, data: str = "") -> list[str]:
    """A command that has all that it needs."""
    place = data or f"s3://{aws.bucket}/kennel/data/pets/"
    settings = ["--role", aws.role, "--bucket", aws.bucket]
    return ["train", "--data", place, *settings, *more]


def changes(aws: Aws) -> list[str]:
    return [one.operation for one in aws.requests if one.operation.startswith(CHANGES)]


def test_from_a_folder_to_a_report(aws: Aws, env: Env, programs: Path, command: Command, tmp_path: Path) -> None:
    data = pictures.photos(tmp_path / "colours", {"train/red": 8, "train/green": 8})
    done = command("cli", *words(aws, *TINY, "--wait", "--yes", data=str(data)), **env)
    assert done.returncode == 0, done.stderr + done.stdout
    name, *log = done.stdout.splitlines()
    assert name.startswith("kennel-20")
    assert sum("validation:accuracy=" in line for line in log) >= 2
    assert len(set(log)) > 0.9 * len(log), "each line is shown once"
    assert done.stderr.splitlines()[-1] == f"training job {name}: Completed"
    assert changes(aws) == ["PutObject"] * 16 + ["CreateTrainingJob"]

    output = command("cli", "status", name, **env).stdout
    assert f"s3://{aws.bucket}/kennel/jobs/{name}/output/model.tar.gz" in output
    assert "validation:accuracy:" in output
    assert re.search("^hyperparameters: +backbone=test_resnet batch_size=8 epochs=2", output, re.MULTILINE)
    assert command("cli", "logs", name, **env).stdout.splitlines() == log
    done = command("cli", "report", name, "--out", str(tmp_path / "r" / "it.html"), **env)
    assert done.returncode == 0, done.stderr
    assert "<html" in (tmp_path / "r" / "it.html").read_text()


def test_a_job_that_fails_says_why_and_is_exit_code_1(
    aws: Aws, env: Env, programs: Path, command: Command, tmp_path: Path
) -> None:
    data = pictures.photos(tmp_path / "colours", {"red": 4})
    done = command("cli", *words(aws, *TINY, "--name", "lonely", "--wait", "--yes", data=str(data)), **env)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[-2] == "training job lonely: Failed"
    assert "has one class only (red)" in said[-1]
    assert re.search("^reason: +AlgorithmError: ", command("cli", "status", "lonely", **env).stdout, re.MULTILINE)


def request(aws: Aws, **changes: Any) -> dict[str, Any]:
    """All that is asked for a job, where nothing more is wanted."""
    source = {
        "S3DataType": "S3Prefix",
        "S3Uri": f"s3://{aws.bucket}/kennel/data/pets/",
        "S3DataDistributionType": "FullyReplicated",
    }
    return {
        "TrainingJobName": "pets-1",
        "AlgorithmSpecification": {
            "TrainingImage": aws.image.replace(":dev", ":full"),
            "TrainingInputMode": "File",
            "MetricDefinitions": metrics.definitions(),
        },
        "RoleArn": aws.role,
        "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": f"s3://{aws.bucket}/kennel/jobs"},
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.g5.xlarge", "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
        "Tags": [{"Key": "kennel", "Value": "1"}],
        "ProfilerConfig": {"DisableProfiler": True},
    } | changes


def test_a_plain_job_asks_for_nothing_that_absent_wanted(aws: Aws, env: Env, command: Command) -> None:
    aws.hold()
    done = command("cli", *words(aws, "--name", "pets-1", "--yes"), **env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "pets-1\n"
    assert "kennel logs pets-1 --follow" in done.stderr
    assert aws.asked("sagemaker", "CreateTrainingJob") == [request(aws)]
    assert changes(aws) == ["CreateTrainingJob"]


MORE = {
    "spot": ["--spot", "--max-run", "3600"],
    "warm": ["--keep-alive", "600", "--instance-count", "2", "--instance-type", "ml.g4dn.12xlarge"],
    "inside": [
        "--subnets",
        "subnet-1,subnet-2",
        "--security-groups",
        "sg-1",
        "--network-isolation",
        "--encrypt-traffic",
    ],
    "kms": ["--kms-key", "alias/photos", "--tags", "team=vision,owner=me", "--volume-size", "100"],
    "ebs": ["--instance-type", "ml.p3.2xlarge"],
    "stream": ["--input-mode", "FastFile", "--val", "s3://other/val", "--test", "s3://other/test", "--env", "A_B=c=d"],
    "hyperparameters": ["--epochs", "5", "--trivial-augment", "--profile", "false", "--pretrained", "false"],
    "earlier": ["--from-model", "s3://other/model.tar.gz", "--pretrained", "s3://other/weights/"],
    "debugger": ["--debugger"],
    "watched": ["--remote-debug", "--infra-check", "--retries", "3"],
}


@pytest.mark.parametrize(
    "names", [("spot", "hyperparameters", "earlier"), ("inside", "kms", "stream"), ("debugger", "warm", "watched")]
)
def test_a_dry_run_prints_what_is_sent_without_it(aws: Aws, env: Env, command: Command, names: tuple[str]) -> None:
    aws.hold()
    asked = words(aws, "--name", "pets-1", *(word for name in names for word in MORE[name]))
    shown = command("cli", *asked, "--dry-run", **env)
    assert shown.returncode == 0, shown.stderr
    assert changes(aws) == []
    output = json.loads(shown.stdout)
    assert (output["service"], output["operation"]) == ("sagemaker", "CreateTrainingJob")
    done = command("cli", *asked, "--yes", **env)
    assert done.returncode == 0, done.stderr
    assert aws.asked("sagemaker", "CreateTrainingJob") == [output["request"]]
    assert output["request"] != request(aws)


def dry(aws: Aws, env: Env, command: Command, *more: str) -> dict[str, Any]:
    done = command("cli", *words(aws, "--name", "pets-1", "--dry-run", *more), **env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["request"]
    return found


def test_spare_machines_have_checkpoints(aws: Aws, env: Env, command: Command) -> None:
    assert dry(aws, env, command, *MORE["spot"]) == request(
        aws,
        EnableManagedSpotTraining=True,
        CheckpointConfig={"S3Uri": f"s3://{aws.bucket}/kennel/checkpoints/pets-1"},
        StoppingCondition={"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
    )
    asked = dry(aws, env, command, "--spot", "--max-wait", "90000", "--checkpoints", "s3://b/earlier")
    assert asked["CheckpointConfig"] == {"S3Uri": "s3://b/earlier"}
    assert asked["StoppingCondition"]["MaxWaitTimeInSeconds"] == 90000


def test_every_other_switch_reaches_the_request(aws: Aws, env: Env, command: Command) -> None:
    assert dry(aws, env, command, *MORE["inside"]) == request(
        aws,
        VpcConfig={"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
        EnableNetworkIsolation=True,
        EnableInterContainerTrafficEncryption=True,
    )
    machines = dry(aws, env, command, *MORE["warm"])["ResourceConfig"]
    assert (machines["KeepAlivePeriodInSeconds"], machines["InstanceCount"]) == (600, 2)
    asked = dry(aws, env, command, *MORE["kms"])
    assert asked["OutputDataConfig"]["KmsKeyId"] == "alias/photos"
    assert "VolumeKmsKeyId" not in asked["ResourceConfig"]  # its own disks take no key
    asked = dry(aws, env, command, *MORE["kms"], *MORE["ebs"])
    assert asked["ResourceConfig"]["VolumeKmsKeyId"] == "alias/photos"
    assert {tag["Key"]: tag["Value"] for tag in asked["Tags"]} == {"kennel": "1", "team": "vision", "owner": "me"}
    assert dry(aws, env, command, *MORE["watched"]) == request(
        aws,
        RemoteDebugConfig={"EnableRemoteDebug": True},
        InfraCheckConfig={"EnableInfraCheck": True},
        RetryStrategy={"MaximumRetryAttempts": 3},
    )
    asked = dry(aws, env, command, *MORE["hyperparameters"])
    given = {"epochs": "5", "trivial_augment": "true", "profile": "false", "pretrained": "false"}
    assert asked["HyperParameters"] == given
    asked = dry(aws, env, command, *MORE["stream"])
    assert asked["AlgorithmSpecification"]["TrainingInputMode"] == "FastFile"
    assert [channel["ChannelName"] for channel in asked["InputDataConfig"]] == ["train", "validation", "test"]
    assert asked["Environment"] == {"A_B": "c=d"}
    channels = {
        row["ChannelName"]: row["DataSource"] for row in dry(aws, env, command, *MORE["earlier"])["InputDataConfig"]
    }
    assert channels["model"]["S3DataSource"]["S3Uri"] == "s3://other/model.tar.gz"
    assert channels["pretrained"]["S3DataSource"]["S3Uri"] == "s3://other/weights/"


def test_the_debugger_is_a_switch(aws: Aws, env: Env, command: Command) -> None:
    asked = dry(aws, env, command, "--debugger")
    assert asked["DebugHookConfig"]["S3OutputPath"] == f"s3://{aws.bucket}/kennel/jobs"
    assert [row["RuleConfigurationName"] for row in asked["DebugRuleConfigurations"]] == [
        "VanishingGradient",
        "Overfit",
        "Overtraining",
        "PoorWeightInitialization",
        "LossNotDecreasing",
    ]
    assert [row["RuleConfigurationName"] for row in asked["ProfilerRuleConfigurations"]] == [
        "LowGPUUtilization",
        "ProfilerReport",
    ]
    assert asked["ProfilerConfig"]["ProfilingIntervalInMilliseconds"] == 500
    assert asked["ProfilerConfig"]["DisableProfiler"] is False


def test_the_mlflow_server_is_a_setting_of_every_job(aws: Aws, env: Env, command: Command) -> None:
    aws.hold()
    arn = f"arn:aws:sagemaker:{aws.region}:123456789012:mlflow-tracking-server/pets"
    named = {"KENNEL_MLFLOW": arn}
    done = command("cli", *words(aws, "--name", "pets-1", "--mlflow-experiment", "cats", "--yes"), **env, **named)
    assert done.returncode == 0, done.stderr
    made = aws.client("sagemaker").describe_training_job(TrainingJobName="pets-1")
    assert made["HyperParameters"] == {"mlflow": arn, "mlflow_experiment": "cats"}
    assert made["MlflowConfig"] == {
        "MlflowResourceArn": arn,
        "MlflowExperimentName": "cats",
        "MlflowRunName": "pets-1",
    }
    asked = dry(aws, env | named, command, "--mlflow", "https://mlflow.example.com")
    assert asked["HyperParameters"] == {"mlflow": "https://mlflow.example.com"}
    assert "MlflowConfig" not in asked
    search = ["--name", "s", "--search-space", "learning_rate", "--hyperparameters", "epochs=3", "--dry-run"]
    done = command("cli", "tune", *words(aws, *search)[1:], **env, **named)
    assert done.returncode == 0, done.stderr
    shared = json.loads(done.stdout)["request"]["TrainingJobDefinition"]["StaticHyperParameters"]
    assert {"mlflow": arn, "epochs": "3"}.items() <= shared.items()


def test_the_settings_of_a_tuning_jobs_best_are_taken(aws: Aws, env: Env, command: Command) -> None:
    aws.hold()
    tuned = ["--name", "search", "--search-space", "learning_rate batch_size=8,16", "--epochs", "3", "--yes"]
    done = command("cli", "tune", *words(aws, *tuned)[1:], **env)
    assert done.returncode == 0, done.stderr
    done = command("cli", *words(aws, "--from-tuning-job", "search", "--dry-run"), **env)
    assert done.returncode == 2
    assert "tuning job search has no best training job yet (InProgress)" in done.stderr
    best = {
        "TrainingJobName": "search-001",
        "TunedHyperParameters": {"learning_rate": "0.004", "batch_size": '"16"'},
        "TrainingJobStatus": "Completed",
    }
    aws.change("HyperParameterTuningJob", "search", BestTrainingJob=best)
    asked = dry(aws, env, command, "--from-tuning-job", "search", "--epochs", "9")
    assert asked["HyperParameters"] == {"learning_rate": "0.004", "batch_size": "16", "epochs": "9"}


def manifest(aws: Aws, name: str, lines: list[dict[str, Any]]) -> str:
    """An augmented manifest in S3; its address."""
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    aws.client("s3").put_object(Bucket=aws.bucket, Key=name, Body=body)
    return f"s3://{aws.bucket}/{name}"


def test_pipe_mode_streams_a_manifest(aws: Aws, env: Env, programs: Path, command: Command, tmp_path: Path) -> None:
    data = pictures.photos(tmp_path / "colours", {"red": 8, "green": 8})
    lines = []
    for path in sorted(data.rglob("*.png")):
        aws.client("s3").put_object(
            Bucket=aws.bucket, Key=f"any/{path.parent.name}-{path.name}", Body=path.read_bytes()
        )
        lines.append({"source-ref": f"s3://{aws.bucket}/any/{path.parent.name}-{path.name}", "class": path.parent.name})
    place = manifest(aws, "lists/train.manifest", lines)
    done = command("cli", *words(aws, *TINY, "--input-mode", "Pipe", "--wait", "--yes", data=place), **env)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "16 photos from the pipe" in done.stdout
    (asked,) = aws.asked("sagemaker", "CreateTrainingJob")
    (channel,) = asked["InputDataConfig"]
    assert channel["DataSource"]["S3DataSource"] == {
        "S3DataType": "AugmentedManifestFile",
        "S3Uri": place,
        "S3DataDistributionType": "FullyReplicated",
        "AttributeNames": ["source-ref", "class"],
    }
    assert (channel["InputMode"], channel["RecordWrapperType"]) == ("Pipe", "RecordIO")


def test_pipe_mode_is_of_the_photos_alone_and_of_a_search_too(aws: Aws, env: Env, command: Command) -> None:
    truth = {"source-ref": "s3://b/a.jpg", "pets": 0, "pets-metadata": {"class-name": "ant"}, "weight": 1}
    place = manifest(aws, "train.manifest", [{key: truth[key] for key in truth if key != "weight"}])
    more = ["--input-mode", "Pipe", "--val", place, "--pretrained", "s3://other/weights/"]
    channels = dry(aws, env, command, *more, "--data", place)["InputDataConfig"]
    assert [row.get("InputMode", "File") for row in channels] == ["Pipe", "Pipe", "File"]
    assert channels[0]["DataSource"]["S3DataSource"]["AttributeNames"] == ["source-ref", "pets", "pets-metadata"]
    search = ["tune", *words(aws, *more, "--name", "s", "--search-space", "learning_rate", "--dry-run", data=place)[1:]]
    done = command("cli", *search, **env)
    assert done.returncode == 0, done.stderr
    definition = json.loads(done.stdout)["request"]["TrainingJobDefinition"]
    assert [row.get("InputMode", "File") for row in definition["InputDataConfig"]] == ["Pipe", "Pipe", "File"]
    odd = manifest(aws, "odd.manifest", [truth])
    done = command("cli", *words(aws, "--input-mode", "Pipe", "--yes", data=odd), **env)
    assert "odd.manifest: the first line has 2 labels (pets, weight): write lines as" in done.stderr.splitlines()[-1]
    assert changes(aws) == []


def test_photos_that_do_not_fit_are_refused_before_they_are_sent(
    aws: Aws, env: Env, command: Command, make_photos: MakePhotos
) -> None:
    data = make_photos({"ant": 150, "bee": 150})
    asked = ["--image-size", "1024", "--volume-size", "1", "--yes", "--dry-run"]
    done = command("cli", *words(aws, *asked, *MORE["ebs"], data=str(data)), **env)
    assert done.returncode == 2
    said = (
        "300 photos take about 1.2 GB decoded and their files 0.0 GB on each machine, more than the 1 GB of its volume"
    )
    assert f"{said}: write --volume-size 7" in done.stderr.splitlines()[-1]
    assert changes(aws) == []


@pytest.mark.parametrize(
    ("kind", "machines", "volume"), [("ml.p3.2xlarge", 1, 7), ("ml.p3.2xlarge", 2, 1), ("ml.g5.xlarge", 1, 1)]
)
def test_photos_fit_on_more_disk_more_machines_or_disks_of_their_own(kind: str, machines: int, volume: int) -> None:
    image_fit.check_volume(Settings(instance_type=kind, instance_count=machines), 300, 10**6, 1024, volume)


def test_nothing_is_made_without_a_yes(aws: Aws, env: Env, command: Command, make_photos: MakePhotos) -> None:
    data = make_photos({"ant": 2, "bee": 2})
    done = command("cli", *words(aws, "--epochs", "5", data=str(data)), **env)
    assert done.returncode == 2
    assert "add --yes" in done.stderr.splitlines()[-1]
    assert "hyperparameters: epochs=5" in done.stderr
    assert "channel train: upload 4 files, 0.0 MB, to s3://" in done.stderr
    assert "an hour" in done.stderr
    assert changes(aws) == []


def test_a_dry_run_uploads_nothing(aws: Aws, env: Env, command: Command, make_photos: MakePhotos) -> None:
    data = make_photos({"ant": 2, "bee": 2})
    aws.client("s3").put_object(Bucket=aws.bucket, Key="kennel/data/photos/ant/2.jpg", Body=b"of an earlier upload")
    done = command("cli", *words(aws, "--dry-run", data=str(data)), **env)
    assert "1 others there are not in the folder, kennel upload --delete removes them" in done.stderr
    source = json.loads(done.stdout)["request"]["InputDataConfig"][0]["DataSource"]["S3DataSource"]
    assert source["S3Uri"] == f"s3://{aws.bucket}/kennel/data/photos/"
    assert changes(aws) == []


REFUSED = [
    (["--epoch", "5"], "unknown argument --epoch: did you mean '--epochs'?"),
    (["--mlflow", "pets"], "mlflow='pets' names no tracking server: write http(s)://host"),
    (["--mlflow", "https://me:secret@host"], "mlflow=https://***@host holds a user or a password: leave them out"),
    (["--epochs", "0"], "hyperparameter epochs='0': write a whole number between 1 and 10000"),
    (["--optimizer", "sdg"], "write one of sgd, adamw (did you mean 'sgd'?)"),
    (["--keep-alive", "600", "--spot"], "SageMaker keeps no spare machines warm"),
    (["--max-wait", "9"], "add --spot"),
    (["--retries", "31"], "--retries 31: write up to 30"),
    (["--remote-debug", "--network-isolation"], "a shell needs a way in: leave one of them out"),
    (["--spot", "--max-wait", "9"], "--max-wait 9: it holds --max-run, 86400 seconds: write more"),
    (["--max-run", "9999999"], "28 days"),
    (["--checkpoints", "here"], "write where in S3"),
    (["--env", "1=2"], "--env 1=: write NAME=VALUE"),
    (["--name", "a_b"], "--name a_b: letters, digits and single hyphens"),
    (["--val", "nowhere"], "--val nowhere is no folder here"),
    (["--val", "s3://other/nothing"], "nothing lies in s3://other/nothing/: kennel upload FOLDER says where"),
    (
        ["--input-mode", "Pipe"],
        "--input-mode Pipe streams the photos of an augmented manifest, and --data s3://kennel-",
    ),
    (["--test", "s3://b/t.manifest"], "SageMaker reads an augmented manifest in Pipe mode: add --input-mode Pipe"),
    (["--instance-type", "ml.g5.xlage"], "ml.g5.xlarge"),
    (["--role", "arn:aws:iam::123456789012:role/absent"], "absent"),
    (["--bucket", "kennel-none"], "kennel-none"),
]


@pytest.mark.parametrize(("more", "said"), REFUSED, ids=[" ".join(more) for more, _ in REFUSED])
def test_what_cannot_work_is_refused_in_one_sentence(
    aws: Aws, env: Env, command: Command, more: list[str], said: str
) -> None:
    done = command("cli", *words(aws, "--yes", *more), **env)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert changes(aws) == []


def test_a_setting_that_is_missing_is_named(aws: Aws, env: Env, command: Command) -> None:
    done = command("cli", *words(aws, "--yes"), **env | {"KENNEL_IMAGE": ""})
    assert done.returncode == 2
    assert "the image is missing" in done.stderr
    assert "--image URI, or image = ... in kennel.toml" in done.stderr


def test_what_sagemaker_refuses_is_said_in_its_words(aws: Aws, env: Env, command: Command) -> None:
    aws.hold()
    assert command("cli", *words(aws, "--name", "pets-1", "--yes"), **env).returncode == 0
    done = command("cli", *words(aws, "--name", "pets-1", "--yes"), **env)
    assert done.returncode == 2
    assert "training job pets-1: AWS refuses (ResourceInUse" in done.stderr.splitlines()[-1]
    assert "choose another name" in done.stderr.splitlines()[-1]


def test_settings_come_from_the_file_beside_the_work(aws: Aws, env: Env, command: Command, tmp_path: Path) -> None:
    output = f'role = "{aws.role}"\nbucket = "{aws.bucket}"\nprefix = "team/pets"\n'
    (tmp_path / "cwd" / "kennel.toml").write_text(output)
    done = command("cli", "train", "--data", "s3://b/c/", "--dry-run", KENNEL_INSTANCE_TYPE="ml.g4dn.xlarge", **env)
    asked = json.loads(done.stdout)["request"]
    assert asked["OutputDataConfig"] == {"S3OutputPath": f"s3://{aws.bucket}/team/pets/jobs"}
    assert asked["ResourceConfig"]["InstanceType"] == "ml.g4dn.xlarge"


def test_every_hyperparameter_is_listed_with_its_flag(command: Command) -> None:
    output = command("cli", "train", "--help-hyperparameters").stdout
    assert "--learning-rate  (default 0.01; 1e-08 to 10)\n      of the head" in output
    assert "--int8  (default true; true, false)" in output
    assert "--trials" in output
    assert "--trials" not in command("cli", "tune", "--help-hyperparameters").stdout
