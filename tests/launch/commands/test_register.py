"""`kennel register`: a version of a group with its job's own figures; which one is deployed; what goes with it."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kennel_launch.models import model_quality, package_requests

from ...emulated_aws.client import Aws
from ..conftest import REPOSITORY, Command
from ..deployments import NOTHING, Kennel, images, of, shown
from .test_pipeline import EMPTY, about, registry
from .test_status import train

JUDGED = {
    "photos": 10,
    "loss": 0.25,
    "top1": 0.8,
    "top5": None,
    "temperature": 1.5,
    "calibration_error": 0.2,
    "calibration_error_scaled": 0.05,
    "classes": {
        "ant": {"photos": 6, "precision": 1.0, "recall": 0.67},
        "bee, queen": {"photos": 4, "precision": 0.5, "recall": 1.0},
    },
    "confusion": [[4, 2], [0, 4]],
}
REPORT = {
    "class_names": ["ant", "bee, queen"],
    "hyperparameters": {"backbone": "resnet18,own"},
    "evaluation": {"validation": JUDGED | {"top1": 0.9}, "test": JUDGED},
}
HTML = b"<html>a report</html>"


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    """With a training job that has ended well, its model and its output; nothing is run."""
    with of(aws, command, tmp_path) as kennel:
        kennel.settings["image"] = images(kennel.front)[0]
        kennel.put("data/ant/0.jpg")
        kennel.put("out/pets-1/output/model.tar.gz")
        leave(kennel, {"report.json": json.dumps(REPORT).encode(), "report.html": HTML})
        aws.hold()
        train(aws, "pets-1")
        finals = [{"MetricName": f"{split}:accuracy", "Value": 0.8, "Timestamp": 0} for split in ("validation", "test")]
        aws.change("TrainingJob", "pets-1", TrainingJobStatus="Completed", FinalMetricDataList=finals)
        yield kennel


def leave(kennel: Kennel, files: dict[str, bytes]) -> None:
    """The job's output.tar.gz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    kennel.put("out/pets-1/output/output.tar.gz", packed.getvalue())


def register(kennel: Kennel, *words: str) -> Any:
    done = kennel("register", "pets", "--job", "pets-1", "--yes", *words)
    assert done.returncode == 0, done.stderr
    return done


def read(kennel: Kennel, uri: str) -> bytes:
    key = uri.removeprefix(f"s3://{kennel.aws.bucket}/")
    body: bytes = kennel.aws.client("s3").get_object(Bucket=kennel.aws.bucket, Key=key)["Body"].read()
    return body


def test_a_version_has_the_figures_of_its_job(kennel: Kennel) -> None:
    done = register(kennel, "--instance-type", "ml.m5.large", "--instance-type", "ml.g5.xlarge")
    assert done.stdout.splitlines() == [
        "registered pets/1: PendingManualApproval",
        "serve it:   kennel deploy --from-registry pets/1",
    ]
    found = about(kennel, "pets/1")
    spec = found["InferenceSpecification"]
    model = f"s3://{kennel.aws.bucket}/out/pets-1/output/model.tar.gz"
    assert spec["Containers"] == [{"Image": kennel.settings["image"], "ModelDataUrl": model}]
    assert spec["SupportedRealtimeInferenceInstanceTypes"] == ["ml.m5.large", "ml.g5.xlarge"]
    assert spec["SupportedTransformInstanceTypes"] == ["ml.m5.large", "ml.g5.xlarge"]
    properties = found["CustomerMetadataProperties"]
    report = properties.pop("report")
    assert properties == {
        "kennel": "1",
        "training_job": "pets-1",
        "validation:accuracy": "0.8",
        "test:accuracy": "0.8",
        "backbone": "resnet18 own",  # a property has no comma
        "classes": "2",
        "judged_by": "10 test photos",
        "temperature": "1.5",
        "calibration_error": "0.05",
    }
    assert read(kennel, report) == HTML
    statistics = found["ModelMetrics"]["ModelQuality"]["Statistics"]
    assert statistics["ContentType"] == "application/json"
    figures = json.loads(read(kennel, statistics["S3Uri"]))
    assert figures["dataset"] == {"item_count": 10, "split": "test"}
    found = figures[model_quality.GROUP]
    assert found.pop("confusion_matrix") == {
        "ant": {"ant": 4, "bee, queen": 2},
        "bee, queen": {"ant": 0, "bee, queen": 4},
    }
    assert {name: row["value"] for name, row in found.items()} == {
        "accuracy": 0.8,
        "weighted_recall": 0.8,
        "weighted_precision": 0.8,  # (6 × 1.0 + 4 × 0.5) / 10
        "cross_entropy": 0.25,
        "expected_calibration_error": 0.05,
        "temperature": 1.5,
    }


@pytest.mark.filterwarnings("ignore")  # the SDK's own
def test_the_statistics_are_of_the_form_that_sagemakers_sdk_reads() -> None:
    from sagemaker.model_card.evaluation_metric_parsers import EVALUATION_METRIC_PARSERS, EvaluationMetricTypeEnum

    parser = EVALUATION_METRIC_PARSERS[EvaluationMetricTypeEnum.MULTICLASS_CLASSIFICATION]
    (group,) = parser.run(model_quality.statistics(REPORT, {}))["metric_groups"]
    assert {row["name"]: row["type"] for row in group["metric_data"]} == {
        "accuracy": "number",
        "weighted_recall": "number",
        "weighted_precision": "number",
        "cross_entropy": "number",
        "expected_calibration_error": "number",
        "temperature": "number",
        "confusion_matrix": "matrix",
    }


def test_the_content_types_are_those_of_the_endpoint() -> None:
    page = (REPOSITORY / "serve" / "openapi.yaml").read_text()
    for kind in (*package_requests.CONTENT_TYPES, *package_requests.RESPONSE_TYPES):
        assert f"{kind}: {{" in page or f"{kind}:\n" in page, kind


def test_a_dry_run_shows_each_request_and_sends_none(kennel: Kennel) -> None:
    done = register(kennel, "--dry-run", "--approve")
    (_, statistics), (_, report), (_, group), (_, package) = calls = shown(done.stdout)
    assert [name for name, _ in calls] == ["PutObject", "PutObject", "CreateModelPackageGroup", "CreateModelPackage"]
    assert json.loads(statistics["Body"])[model_quality.GROUP]["accuracy"]["value"] == 0.8
    assert report["ContentType"] == "text/html"
    assert group["Tags"] == [{"Key": "kennel", "Value": "1"}]
    assert package["ModelApprovalStatus"] == "Approved"
    assert "Tags" not in package  # a version has its group's
    assert kennel.made() == []


def test_the_newest_approved_version_is_deployed_or_the_one_that_is_named(kennel: Kennel) -> None:
    for words in (["--approve"], ["--approve"], []):
        register(kennel, *words)
    arns = {text: about(kennel, text)["ModelPackageArn"] for text in ("pets/1", "pets/2", "pets/3")}
    for text, version in (("pets", "pets/2"), ("pets/1", "pets/1")):
        done = kennel("deploy", "--from-registry", text, "--dry-run")
        assert done.returncode == 0, done.stderr
        made = dict(shown(done.stdout))["CreateModel"]
        assert made["PrimaryContainer"] == {"ModelPackageName": arns[version]}
        assert f"  of model package {arns[version]}" in done.stderr
        assert "is not what it was registered for" not in done.stderr
    other = kennel("deploy", "--from-registry", "pets", "--instance-type", "ml.m5.large", "--dry-run")
    assert "  ml.m5.large is not what it was registered for: ml.c7i.large" in other.stderr
    done = kennel("register", "pets/2", "--reject", "--yes")
    assert (done.returncode, done.stdout) == (0, "pets/2: Rejected\n"), done.stderr
    done = kennel("deploy", "--from-registry", "pets", "--dry-run")
    assert dict(shown(done.stdout))["CreateModel"]["PrimaryContainer"] == {"ModelPackageName": arns["pets/1"]}
    lines = [line.split() for line in kennel("status", "pets").stdout.splitlines() if line.startswith("version")]
    assert [line[1:] for line in lines] == [["3:", "PendingManualApproval"], ["2:", "Rejected"], ["1:", "Approved"]]


def test_a_model_of_the_registry_in_every_mode(kennel: Kennel) -> None:
    register(kennel, "--approve")
    package = {"ModelPackageName": about(kennel, "pets/1")["ModelPackageArn"]}
    asynchronous = kennel("deploy", "--from-registry", "pets", "--mode", "async", "--engine", "fp32", "--dry-run")
    container = dict(shown(asynchronous.stdout))["CreateModel"]["PrimaryContainer"]
    assert container == package | {"Environment": {"KENNEL_ENGINE": "fp32", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}}
    many = kennel("deploy", "--from-registry", "pets", "--mode", "multi-model", "--dry-run")
    calls = dict(shown(many.stdout))
    assert calls["CopyObject"]["CopySource"] == f"{kennel.aws.bucket}/out/pets-1/output/model.tar.gz"
    assert calls["CreateModel"]["PrimaryContainer"]["Mode"] == "MultiModel"
    batch = kennel("transform", "--from-registry", "pets", "--data", f"s3://{kennel.aws.bucket}/data/", "--dry-run")
    assert batch.returncode == 0, batch.stderr
    assert dict(shown(batch.stdout))["CreateModel"]["PrimaryContainer"] == package


def test_a_job_that_left_no_report_has_what_its_log_said(kennel: Kennel) -> None:
    kennel.aws.client("s3").delete_object(Bucket=kennel.aws.bucket, Key="out/pets-1/output/output.tar.gz")
    done = register(kennel)
    assert "has left no output" in done.stderr
    found = about(kennel, "pets/1")
    figures = json.loads(read(kennel, found["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]))
    assert figures == {model_quality.GROUP: {"accuracy": {"value": 0.8, "standard_deviation": "NaN"}}}
    assert "report" not in found["CustomerMetadataProperties"]


def test_a_package_that_is_refused_leaves_nothing(kennel: Kennel) -> None:
    before = kennel.keys()
    kennel.front.denied.add("CreateModelPackage")
    done = kennel("register", "pets", "--job", "pets-1", "--yes")
    assert done.returncode == 2
    assert "create model package pets: AWS refuses (AccessDeniedException: not yours)" in done.stderr
    assert registry(kennel) == EMPTY
    assert kennel.keys() == before


def test_what_is_deleted_is_kennels_own(kennel: Kennel) -> None:
    before = kennel.keys()
    register(kennel)
    register(kennel)
    kept = kennel.keys("kennel/registry/pets/")
    client = kennel.aws.client("sagemaker")
    spec = {
        "Containers": [{"Image": kennel.settings["image"]}],
        "SupportedContentTypes": [],
        "SupportedResponseMIMETypes": [],
    }
    client.create_model_package(ModelPackageGroupName="pets", InferenceSpecification=spec)
    assert "pets/3 was not made by kennel" in kennel("delete", "--registry", "pets/3", "--yes").stderr
    done = kennel("delete", "--registry", "pets/1", "--data", "--yes")
    assert done.returncode == 0, done.stderr
    assert registry(kennel)["versions"] == ["pets/3", "pets/2"]
    assert len(kennel.keys("kennel/registry/pets/")) == len(kept) // 2
    done = kennel("delete", "--registry", "pets", "--data", "--yes")
    assert done.stdout.splitlines()[0] == "removed model package pets/2"
    assert "model package group pets stays, 1 of its versions were not made by kennel" in done.stderr
    assert registry(kennel) == EMPTY | {"groups": ["pets"], "versions": ["pets/3"]}
    assert kennel.keys() == before
    refused = kennel("delete", "--registry", "pets", "--yes")
    assert refused.returncode == 2
    assert "nothing of the name pets is in eu-west-1 (model package group pets stays" in refused.stderr


def test_all_takes_the_registry_with_it_and_asks_first(kennel: Kennel) -> None:
    register(kennel, "--approve")
    assert kennel("deploy", "--from-registry", "pets", "--yes", "--dry-run").returncode == 0
    asked = kennel("delete", "--all")
    assert asked.returncode == 2
    assert asked.stderr.splitlines()[:2] == ["removes model package pets/1", "removes model package group pets"]
    assert kennel("delete", "--all", "--yes").returncode == 0
    assert registry(kennel) == EMPTY
    assert kennel.left() == NOTHING


def test_status_and_delete_work_without_rights_to_the_registry(kennel: Kennel) -> None:
    for operation in ("ListPipelines", "ListModelPackageGroups"):
        kennel.front.denied.add(operation)
    client = kennel.aws.client("sagemaker")
    container = {"Image": kennel.settings["image"]}
    tags = [{"Key": "kennel", "Value": "1"}]
    client.create_model(ModelName="zoo", ExecutionRoleArn=kennel.aws.role, PrimaryContainer=container, Tags=tags)
    kennel.aws.client("sagemaker").add_tags(ResourceArn=about(kennel, "pets-1")["TrainingJobArn"], Tags=tags)
    done = kennel("status")
    assert done.returncode == 0, done.stderr
    assert "pets-1" in done.stdout
    assert "not known: whether there are pipelines: AWS refuses (AccessDeniedException" in done.stderr
    assert "not known: whether there are model package groups" in done.stderr
    done = kennel("delete", "--all", "--yes")
    assert (done.returncode, done.stdout) == (0, "removed model zoo\n"), done.stderr
    assert "not known: what there is of pipelines and model packages" in done.stderr


def test_an_endpoints_data_does_not_take_a_registered_model_with_it(kennel: Kennel) -> None:
    model = kennel.put("kennel/jobs/pets-1/output/model.tar.gz")
    kennel.aws.change("TrainingJob", "pets-1", ModelArtifacts={"S3ModelArtifacts": model})
    register(kennel, "--approve")
    client = kennel.aws.client("sagemaker")
    package = {"ModelPackageName": about(kennel, "pets/1")["ModelPackageArn"]}
    client.create_model(ModelName="zoo-20260101-120000", ExecutionRoleArn=kennel.aws.role, PrimaryContainer=package)
    done = kennel("delete", "zoo", "--data", "--yes")
    assert done.returncode == 0, done.stderr
    assert "kennel/jobs/pets-1/output/model.tar.gz" in kennel.keys("kennel/jobs/")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["register", "pets"], "say whose model: --job NAME or --tuning-job NAME"),
        (["register", "pets", "--job", "none"], "there is no training job 'none'"),
        (["register", "pe_ts", "--job", "pets-1"], "model package group 'pe_ts': a name is up to 63"),
        (["register", "pets/x", "--approve"], "'pets/x': name a group of the model registry, or one of its versions"),
        (["register", "pets/1"], "say what is to become of pets/1: --approve or --reject"),
        (["register", "pets/1", "--approve", "--job", "pets-1"], "pets/1 is a version that is there: leave its number"),
        (["register", "pets/1", "--approve"], "there is no model package group 'pets' in eu-west-1"),
        (["register", "pets", "--job", "pets-1", "--reject"], "--reject is said of a version"),
        (["register", "pets", "--job", "pets-1", "--instance-type", "ml.m5.huge"], "no instance type 'ml.m5.huge'"),
        (["deploy", "--from-registry", "pets"], "there is no model package group 'pets' in eu-west-1"),
        (["delete", "--registry", "pets"], "nothing of the name pets is in eu-west-1"),
        (["delete", "--pipeline", "pets"], "nothing of the name pets is in eu-west-1"),
        (["delete", "--pipeline", "pets", "--data"], "--pipeline leaves S3 as it is"),
        (["delete", "pets", "--registry", "pets"], "name an endpoint, or write --all"),
        (["status", "pets/1"], "there is no model package group 'pets' in eu-west-1"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(kennel: Kennel, words: list[str], said: str) -> None:
    yes = [] if words[0] == "status" else ["--yes"]
    assert said in kennel.refused(*words, *yes)


def test_a_version_that_may_not_be_served_says_what_would_help(kennel: Kennel) -> None:
    register(kennel)
    before = kennel.made()
    for text, said in (
        ("pets", "(pets/1 is PendingManualApproval): kennel register pets/1 --approve"),
        ("pets/1", "pets/1 is PendingManualApproval: kennel register pets/1 --approve, then deploy it"),
        ("pets/7", "has no version 7 (it has 1): name one of those"),
    ):
        done = kennel("deploy", "--from-registry", text, "--yes")
        assert done.returncode == 2
        assert said in done.stderr.splitlines()[-1]
    kennel("register", "pets/1", "--approve", "--yes")
    done = kennel("deploy", "--from-registry", "pets", "--image", kennel.aws.image, "--yes")
    assert "pets/1 names its own" in done.stderr
    assert kennel.made() == [*before, "UpdateModelPackage"]
