"""What is sent to SageMaker is what its own SDK sends for the same job, field by field."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from kennel.errors import UserError
from kennel.search.sagemaker_tuner import Options, tuning_request
from kennel_launch.aws import session
from kennel_launch.jobs import requests
from kennel_launch.jobs.requests import Training
from kennel_launch.sdks import v2
from kennel_launch.settings import Settings

from ..sdks import printed, run_v3

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("credentials")]  # warnings: the SDK's own
SETTINGS = Settings(
    role="arn:aws:iam::123456789012:role/kennel",
    region="eu-west-1",
    bucket="photos",
    image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/kennel:dev",
)
INSIDE = replace(
    SETTINGS, subnets=("subnet-1", "subnet-2"), security_groups=("sg-1",), kms_key="key", tags={"team": "vision"}
)
TRAINING = Training(
    "pets", {"train": "s3://photos/train/", "test": "s3://photos/test/"}, {"epochs": "3", "backbone": "resnet50"}
)
SPOT = replace(TRAINING, spot=True, checkpoints="s3://photos/c/pets", max_run=3600, max_wait=7200)
CLOSED = replace(TRAINING, network_isolation=True, encrypt_traffic=True)
JOBS = {
    "plain": (SETTINGS, replace(TRAINING, hyperparameters={})),
    "spot": (SETTINGS, SPOT),
    "warm": (
        replace(SETTINGS, instance_count=2),
        replace(TRAINING, keep_alive=600, volume_size=100, environment={"A": "b"}),
    ),
    "inside": (replace(INSIDE, instance_type="ml.m5.xlarge"), CLOSED),
    "own-disk": (INSIDE, TRAINING),
    "debugger": (SETTINGS, replace(TRAINING, debugger=True)),
    "debugger-in-china": (replace(SETTINGS, region="cn-north-1"), replace(TRAINING, debugger=True)),
    "watched": (SETTINGS, replace(TRAINING, retries=3, remote_debug=True, infra_check=True)),
    "fast-file": (SETTINGS, replace(TRAINING, input_mode="FastFile")),
    "streamed": (SETTINGS, replace(TRAINING, input_mode="Pipe", streamed={"train": ("source-ref", "class")})),
}
SEARCHES = {
    "bayesian": (
        SETTINGS,
        SPOT,
        Options(jobs=6, parallel=2, target=0.9, no_improvement=4, convergence=True, max_runtime=7200, seed=7),
    ),
    "hyperband": (INSIDE, replace(CLOSED, retries=2), Options("Hyperband", jobs=9)),
    "warm-start": (
        SETTINGS,
        replace(TRAINING, environment={"A": "b"}),
        Options("Random", parents=("a", "b"), warm_start="TransferLearning", early_stopping=False),
    ),
}


def sent(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The request that a dry run printed."""
    (row,) = printed(capsys.readouterr().out)
    found: dict[str, Any] = row["request"]
    return found


def ordered(request: dict[str, Any]) -> dict[str, Any]:
    """Without the order of what the SDK keeps as sets, collections and parents, and without empty lists."""
    parents = request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", [])
    parents.sort(key=lambda row: row["HyperParameterTuningJobName"])
    request.get("DebugHookConfig", {}).get("CollectionConfigurations", []).sort(key=lambda row: row["CollectionName"])
    ranges = request.get("HyperParameterTuningJobConfig", {}).get("ParameterRanges", {})
    for empty in [name for name, rows in ranges.items() if not rows]:
        del ranges[empty]
    return request


@pytest.mark.parametrize("name", JOBS)
def test_a_training_job(capsys: pytest.CaptureFixture[str], name: str) -> None:
    settings, training = JOBS[name]
    session.dry_run(settings)
    v2.estimator_of(settings, training).fit(v2.inputs(training), job_name=training.name, wait=False)
    assert ordered(requests.training_job(settings, training)) == ordered(sent(capsys))


def searched(name: str) -> tuple[Settings, Training, dict[str, Any]]:
    """Settings, what all jobs share, and tuning_request's of one of SEARCHES."""
    settings, training, options = SEARCHES[name]
    space = "learning_rate=0.001..0.1 batch_size=8,16" if name != "warm-start" else "epochs=2..9 momentum=0.5..0.9"
    request = tuning_request({"backbone": "resnet18"}, space, options)
    static = request["TrainingJobDefinition"]["StaticHyperParameters"]
    return settings, replace(training, hyperparameters=static), request


@pytest.mark.parametrize("name", SEARCHES)
def test_a_tuning_job(capsys: pytest.CaptureFixture[str], name: str) -> None:
    settings, training, request = searched(name)
    session.dry_run(settings)
    tuner = v2.tuner_of(settings, training, request)
    tuner.fit(v2.inputs(training), job_name=training.name, include_cls_metadata=False, wait=False)
    assert ordered(requests.tuning_job(settings, training, request)) == ordered(sent(capsys))


V3 = """
import json, sys
from kennel_launch.jobs.requests import Training
from kennel_launch.sdks import v3
from kennel_launch.settings import Settings
shown = []
for settings, training in json.load(sys.stdin):
    trainer = v3.trainer_of(Settings(**settings), Training(**training))
    shown.append(trainer._create_training_job_args(boto3=True))
given = {name: getattr(Settings(**settings), name) for name in ("role", "region", "bucket", "image")}
tuner = v3.tuner({"epochs": "3"}, "learning_rate batch_size=8,16", **given)
made = v3.model_trainer({"epochs": "3"}, instance_type="ml.g4dn.xlarge", **given)
print(json.dumps([sorted(tuner._hyperparameter_ranges), tuner.max_jobs, made.compute.instance_type]))
print(json.dumps(shown))
"""


def test_version_3_differs_in_what_it_cannot_leave_out() -> None:
    """By its own code: it says the service's default of compression and of the checkpoints' place, and no profiler."""
    names = [name for name in JOBS if name not in ("debugger", "debugger-in-china", "streamed")]  # v3 has none of it
    asked = [(asdict(settings), asdict(replace(training, channels={}))) for settings, training in map(JOBS.get, names)]
    *_, users, shown = map(json.loads, run_v3(V3, asked).splitlines())
    assert users == [["batch_size", "learning_rate"], 20, "ml.g4dn.xlarge"]
    for name, theirs in zip(names, shown, strict=True):
        settings, training = JOBS[name]
        ours = requests.training_job(settings, replace(training, channels={}))
        assert ours.pop("InputDataConfig") == []
        assert ours.pop("ProfilerConfig") == {"DisableProfiler": True}
        assert theirs["OutputDataConfig"].pop("CompressionType") == "GZIP"
        if "CheckpointConfig" in theirs:
            assert theirs["CheckpointConfig"].pop("LocalPath") == "/opt/ml/checkpoints"
        assert theirs.pop("TrainingJobName").startswith(f"{ours.pop('TrainingJobName')}-20")
        found = {key: value for key, value in theirs.items() if value not in (None, [], {})}
        assert found == ours, name


V3_TUNING = """
import json, sys
from kennel_launch.aws import session
from kennel_launch.jobs.requests import Training
from kennel_launch.sdks import v3
from kennel_launch.settings import Settings
for settings, training, request in json.load(sys.stdin):
    settings, training = Settings(**settings), Training(**training)
    session.dry_run(settings)
    try:
        v3.tuner_of(settings, training, request).tune(dict(training.channels), job_name=training.name, wait=False)
    except Exception as error:  # it asks for the job then, of an account that cannot be reached
        assert "127.0.0.1:9" in str(error), error
"""


def test_version_3s_tuning_job() -> None:
    """It says two defaults, has the older of two fields for the hosts, and leaves out what only its trainer has."""
    cases = [searched(name) for name in SEARCHES]
    given = [(asdict(settings), asdict(training), made) for settings, training, made in cases]
    rows = printed(run_v3(V3_TUNING, given))
    for (settings, training, made), row in zip(cases, rows, strict=True):
        ours, theirs = ordered(requests.tuning_job(settings, training, made)), ordered(row["request"])
        job, v3_job = ours["TrainingJobDefinition"], theirs["TrainingJobDefinition"]
        assert v3_job["OutputDataConfig"].pop("CompressionType") == "GZIP"
        if training.checkpoints:
            assert v3_job["CheckpointConfig"].pop("LocalPath") == "/opt/ml/checkpoints"
        v3_job["HyperParameterTuningResourceConfig"] = v3_job.pop("ResourceConfig")
        if training.network_isolation:
            assert job.pop("EnableNetworkIsolation")
            assert job.pop("EnableInterContainerTrafficEncryption")
        assert theirs == ours


def test_no_debugger_where_aws_has_none() -> None:
    with pytest.raises(UserError, match="no rules in eu-central-2: leave --debugger out"):
        requests.training_job(replace(SETTINGS, region="eu-central-2"), replace(TRAINING, debugger=True))


def test_users_objects_have_the_settings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("role", "region", "bucket", "image"):
        monkeypatch.setenv(f"KENNEL_{name.upper()}", getattr(SETTINGS, name))
    session.dry_run(SETTINGS)
    estimator = v2.estimator({"epochs": "3"}, instance_type="ml.g4dn.xlarge")
    estimator.fit({"train": "s3://photos/train/"}, wait=False)
    request = sent(capsys)
    assert request["ResourceConfig"]["InstanceType"] == "ml.g4dn.xlarge"
    assert request["HyperParameters"] == {"epochs": "3"}
    tuner = v2.tuner({"epochs": "3"}, "learning_rate", Options(jobs=4))
    tuner.fit({"train": "s3://photos/train/"}, include_cls_metadata=False, wait=False)
    assert sent(capsys)["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 4
    made = v2.model("s3://photos/model.tar.gz")
    assert (made.image_uri, made.model_data) == (SETTINGS.image, "s3://photos/model.tar.gz")
    with pytest.raises(UserError, match="epoch"):
        v2.estimator({"epoch": "3"})
