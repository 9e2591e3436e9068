"""The emulated AWS runs real jobs and endpoints, and leaves nothing behind."""

import contextlib
import io
import json
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..emulated_aws.asking import PATIENCE, appears, caller, ended, job, keys, log, put, put_photos, refused, wait
from ..emulated_aws.client import Aws, server
from ..emulated_aws.runners import pictures

_END = ("Stopping", "Uploading", "Stopped")


def test_a_job_that_fails_says_why(aws: Aws, programs: Path) -> None:
    put(aws, "photos/train/red/0.png", b"x")
    settings = {**pictures.TINY, "epochs": "many"}
    caller(aws, "sagemaker").create_training_job(**job(aws, HyperParameters=settings))
    done = ended(aws, "job")
    assert done["TrainingJobStatus"] == "Failed"
    assert done["FailureReason"].startswith("AlgorithmError: ")
    assert "epochs" in done["FailureReason"]
    assert done["FailureReason"].endswith(", exit code: 1")
    states = [row["Status"] for row in done["SecondaryStatusTransitions"]]
    assert states == ["Downloading", "Training", "Uploading", "Failed"]
    assert keys(aws, "out/job/output/model") == []


def test_a_job_goes_on_from_its_checkpoints_and_is_stopped_with_its_model(
    aws: Aws, programs: Path, tmp_path: Path
) -> None:
    put_photos(aws, tmp_path, {"train/red": 8, "train/green": 8})
    settings = {**pictures.TINY, "epochs": "10000", "strategy": "finetune"}
    saved = {"S3Uri": f"s3://{aws.bucket}/checkpoints"}
    sagemaker = caller(aws, "sagemaker")
    sagemaker.create_training_job(**job(aws, HyperParameters=settings, CheckpointConfig=saved))
    end = time.monotonic() + PATIENCE
    while not keys(aws, "checkpoints/"):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert sagemaker.describe_training_job(TrainingJobName="job")["SecondaryStatus"] == "Training"
    aws.interrupt("job")
    while "resumed from a checkpoint" not in log(aws, "/aws/sagemaker/TrainingJobs", "job/"):
        assert time.monotonic() < end
        time.sleep(0.2)
    sagemaker.stop_training_job(TrainingJobName="job")
    done = ended(aws, "job")
    assert (done["TrainingJobStatus"], done["SecondaryStatus"]) == ("Stopped", "Stopped")
    states = [row["Status"] for row in done["SecondaryStatusTransitions"]]
    assert states == [*["Downloading", "Training"], "Interrupted", *["Downloading", "Training"], *_END]
    assert keys(aws, "out/job/output/model") == ["out/job/output/model.tar.gz"]
    _, message = refused(sagemaker.stop_training_job, TrainingJobName="job")
    assert message == "The request was rejected because the training job is in status Stopped."


def test_a_search_runs_its_trials_and_names_the_best(aws: Aws, programs: Path, tmp_path: Path) -> None:
    put_photos(aws, tmp_path, {"train/red": 8, "train/green": 8})
    plan = job(aws, HyperParameters=None, TrainingJobName=None)
    ranges = {
        "ContinuousParameterRanges": [
            {"Name": "learning_rate", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
        ]
    }
    sagemaker = caller(aws, "sagemaker")
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="search",
        HyperParameterTuningJobConfig={
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:accuracy"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": ranges,
        },
        TrainingJobDefinition=plan | {"StaticHyperParameters": pictures.TINY},
    )

    def describe() -> dict[str, Any]:
        found: dict[str, Any] = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="search")
        return found

    done = wait(describe, "HyperParameterTuningJobStatus", "InProgress")
    assert done["HyperParameterTuningJobStatus"] == "Completed", done
    assert done["TrainingJobStatusCounters"]["Completed"] == 2
    assert done["ObjectiveStatusCounters"]["Succeeded"] == 2
    rows = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="search", SortBy="FinalObjectiveMetricValue", SortOrder="Descending"
    )["TrainingJobSummaries"]
    assert len(rows) == 2
    values = [row["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for row in rows]
    assert done["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == max(values) == values[0]
    rates = [float(row["TunedHyperParameters"]["learning_rate"]) for row in rows]
    assert all(0.001 <= rate <= 0.1 for rate in rates)
    assert rates[0] != rates[1]
    trial = sagemaker.describe_training_job(TrainingJobName=rows[0]["TrainingJobName"])
    assert trial["HyperParameters"]["learning_rate"] == rows[0]["TunedHyperParameters"]["learning_rate"]
    assert trial["TuningJobArn"] == done["HyperParameterTuningJobArn"]


def endpoint(aws: Aws, container: dict[str, Any], **config: Any) -> dict[str, Any]:
    """Endpoint e, in service or failed."""
    sagemaker = caller(aws, "sagemaker")
    container = {"Image": aws.image, **container}
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=aws.role, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": "m", "InstanceType": "ml.c7i.large", "InitialInstanceCount": 1}
    variant = config.pop("variant", variant)
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant], **config)
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    return wait(lambda: sagemaker.describe_endpoint(EndpointName="e"), "EndpointStatus", "Creating")


def test_an_endpoint_of_many_models(aws: Aws, trained: bytes) -> None:
    put(aws, "models/one.tar.gz", trained)
    put(aws, "models/two.tar.gz", trained)
    up = endpoint(aws, {"ModelDataUrl": f"s3://{aws.bucket}/models/", "Mode": "MultiModel"})
    assert up["EndpointStatus"] == "InService", up
    invoke = caller(aws, "sagemaker-runtime").invoke_endpoint
    asked = {"EndpointName": "e", "Body": pictures.photo("red", 99), "ContentType": "image/png"}
    for name in ("one.tar.gz", "two.tar.gz", "one.tar.gz"):
        assert len(json.load(invoke(**asked, TargetModel=name)["Body"])["predictions"]) == 2
    _, message = refused(invoke, **asked, TargetModel="three.tar.gz")
    assert message.startswith(f"Failed to download model data(bucket: {aws.bucket}, key: models/three.tar.gz).")
    code, _ = refused(invoke, **asked)
    assert code == "ValidationError"


def test_an_asynchronous_endpoint(aws: Aws, trained: bytes) -> None:
    put(aws, "m.tar.gz", trained)
    put(aws, "in/photo.png", pictures.photo("red", 99))
    put(aws, "in/none.png", b"nonsense")
    paths = {"S3OutputPath": f"s3://{aws.bucket}/answers", "S3FailurePath": f"s3://{aws.bucket}/failures"}
    endpoint(aws, {"ModelDataUrl": f"s3://{aws.bucket}/m.tar.gz"}, AsyncInferenceConfig={"OutputConfig": paths})
    invoke = caller(aws, "sagemaker-runtime").invoke_endpoint_async
    good, bad = (
        invoke(EndpointName="e", ContentType="image/png", InputLocation=f"s3://{aws.bucket}/in/{name}.png")
        for name in ("photo", "none")
    )
    assert len(json.loads(appears(aws, good["OutputLocation"]))["predictions"]) == 2
    assert b"Received client error (400)" in appears(aws, bad["FailureLocation"])
    code, _ = refused(caller(aws, "sagemaker-runtime").invoke_endpoint, EndpointName="e", Body=b"x")
    assert code == "ValidationError"


def test_a_serverless_endpoint_takes_four_megabytes(aws: Aws, trained: bytes) -> None:
    put(aws, "m.tar.gz", trained)
    size = {"MemorySizeInMB": 2048, "MaxConcurrency": 1}
    variant = {"VariantName": "AllTraffic", "ModelName": "m", "ServerlessConfig": size}
    up = endpoint(aws, {"ModelDataUrl": f"s3://{aws.bucket}/m.tar.gz"}, variant=variant)
    assert up["ProductionVariants"][0]["CurrentServerlessConfig"] == size
    invoke = caller(aws, "sagemaker-runtime").invoke_endpoint
    code, _ = refused(invoke, EndpointName="e", Body=bytes(5 << 20), ContentType="image/png")
    assert code == "413"
    assert invoke(EndpointName="e", Body=pictures.photo("red", 9), ContentType="image/png")["Body"].read()


def test_an_endpoint_whose_container_dies(aws: Aws, programs: Path) -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("nothing.txt"))
    put(aws, "m.tar.gz", body.getvalue())
    up = endpoint(aws, {"ModelDataUrl": f"s3://{aws.bucket}/m.tar.gz"})
    assert up["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in up["FailureReason"]
    assert "manifest" in log(aws, "/aws/sagemaker/Endpoints/e")


def test_a_batch_transform(aws: Aws, trained: bytes) -> None:
    put(aws, "m.tar.gz", trained)
    put(aws, "in/a/1.png", pictures.photo("red", 1))
    put(aws, "in/b/2.png", pictures.photo("green", 2))
    sagemaker = caller(aws, "sagemaker")
    container = {"Image": aws.image, "ModelDataUrl": f"s3://{aws.bucket}/m.tar.gz"}
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=aws.role, PrimaryContainer=container)
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{aws.bucket}/in/"}}
    asked = {
        "ModelName": "m",
        "TransformInput": {"DataSource": source, "ContentType": "image/png"},
        "TransformOutput": {"S3OutputPath": f"s3://{aws.bucket}/answers"},
        "TransformResources": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
    }

    def result(name: str) -> dict[str, Any]:
        sagemaker.create_transform_job(TransformJobName=name, **asked)
        return wait(lambda: sagemaker.describe_transform_job(TransformJobName=name), "TransformJobStatus", "InProgress")

    done = result("good")
    assert done["TransformJobStatus"] == "Completed", done
    assert keys(aws, "answers/") == ["answers/a/1.png.out", "answers/b/2.png.out"]
    put(aws, "in/c/3.png", b"nonsense")
    done = result("bad")
    assert done["TransformJobStatus"] == "Failed"
    assert "in/c/3.png: 400" in done["FailureReason"]


def test_nothing_is_left_behind(programs: Path, trained: bytes, tmp_path: Path) -> None:
    before = {path.name for path in Path(tempfile.gettempdir()).glob("kennel-aws-*")}
    with server(tmp_path / "log") as url:
        (folder,) = (p for p in Path(tempfile.gettempdir()).glob("kennel-aws-*") if p.name not in before)
        aws = Aws(url, tmp_path)
        aws.reset()
        put_photos(aws, tmp_path, {"train/red": 8, "train/green": 8})
        put(aws, "m.tar.gz", trained)
        settings = {**pictures.TINY, "epochs": "10000", "strategy": "finetune"}
        caller(aws, "sagemaker").create_training_job(**job(aws, HyperParameters=settings))
        endpoint(aws, {"ModelDataUrl": f"s3://{aws.bucket}/m.tar.gz"})
        assert {"train", "serve"} <= {word for process in family(folder) for word in names(process)}
        aws.reset()
        assert family(folder) == []
        (fresh,) = folder.iterdir()  # the new account's own folder
        assert list(fresh.iterdir()) == []
        assert aws.client("sagemaker").list_endpoints()["Endpoints"] == []
        put(aws, "m.tar.gz", trained)
        endpoint(aws, {"ModelDataUrl": f"s3://{aws.bucket}/m.tar.gz"})
        (front,) = (process for process in family(folder) if "serve" in names(process))
        front.kill()
        describe = aws.client("sagemaker").describe_endpoint
        assert wait(lambda: describe(EndpointName="e"), "EndpointStatus", "InService")["EndpointStatus"] == "Failed"
        assert family(folder) == []
        caller(aws, "sagemaker").create_endpoint(EndpointName="f", EndpointConfigName="c")
        wait(lambda: describe(EndpointName="f"), "EndpointStatus", "Creating")
        assert family(folder) != []
    assert family(folder) == []
    assert not folder.exists()
    with pytest.raises(OSError, match="refused"):
        aws.reset()


def family(folder: Path) -> list[psutil.Process]:
    """Every process that runs on an /opt/ml below a server's folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SAGEMAKER_BASE_DIR", "").startswith(str(folder)):
                found.append(process)
    return found


def names(process: psutil.Process) -> list[str]:
    """A command's words without their folders."""
    return [Path(word).name for word in process.cmdline()]


def test_a_job_trains_and_a_photo_is_asked(aws: Aws, programs: Path, tmp_path: Path) -> None:
    put_photos(aws, tmp_path, {"train/red": 8, "train/green": 8})
    sagemaker = caller(aws, "sagemaker")
    sagemaker.create_training_job(**job(aws))
    done = ended(aws, "job")
    assert done["TrainingJobStatus"] == "Completed", done
    assert [row["MetricName"] for row in done["FinalMetricDataList"]] == ["validation:accuracy"]
    assert "validation:accuracy=" in log(aws, "/aws/sagemaker/TrainingJobs", "job/algo-1-")
    model = done["ModelArtifacts"]["S3ModelArtifacts"]
    assert model == f"s3://{aws.bucket}/out/job/output/model.tar.gz"
    body = aws.client("s3").get_object(Bucket=aws.bucket, Key="out/job/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert {"manifest.json", "model.onnx"} <= set(archive.getnames())
    container = {"Image": aws.image, "ModelDataUrl": model}
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=aws.role, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": "m", "InstanceType": "ml.c7i.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    up = wait(lambda: sagemaker.describe_endpoint(EndpointName="e"), "EndpointStatus", "Creating")
    assert up["EndpointStatus"] == "InService", up
    runtime = caller(aws, "sagemaker-runtime")
    answer = runtime.invoke_endpoint(
        EndpointName="e", Body=pictures.photo("red", 99), ContentType="image/png", CustomAttributes="top_k=1"
    )
    guess = json.load(answer["Body"])["predictions"]
    assert [row["label"] for row in guess] in (["red"], ["green"])
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    code, message = refused(runtime.invoke_endpoint, EndpointName="e", Body=b"nonsense", ContentType="image/png")
    assert code == "ModelError"
    assert "Received client error (400) from primary" in message
    sagemaker.delete_endpoint(EndpointName="e")
    end = time.monotonic() + PATIENCE
    while sagemaker.list_endpoints()["Endpoints"]:
        assert time.monotonic() < end
        time.sleep(0.2)
    _, message = refused(runtime.invoke_endpoint, EndpointName="e", Body=b"x", ContentType="image/png")
    assert message == "Endpoint e of account 123456789012 not found."
