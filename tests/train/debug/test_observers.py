"""SageMaker's own files on debugging, profiling and TensorBoard, through the real `train`; and a healthy training."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch

from kennel import artifact
from kennel.hyperparameters import Hyperparameters
from kennel.layout import Layout
from kennel_launch.make import samples
from kennel_train.context import Context
from kennel_train.debug import observers
from kennel_train.debug.rules import table
from kennel_train.debug.smdebug import offline
from kennel_train.distributed import device

from ..small_network import Net

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "hymenoptera"

# As https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-createtrainingjob-api.html has it for PyTorch.
HOOK = {
    "LocalPath": "/opt/ml/output/tensors",
    "S3OutputPath": "s3://bucket/debug",
    "HookParameters": {"save_interval": "5"},
    "CollectionConfigurations": [
        {"CollectionName": "gradients", "CollectionParameters": {"save_interval": "5"}},
        {"CollectionName": "weights", "CollectionParameters": {"save_interval": "5"}},
        {"CollectionName": "losses", "CollectionParameters": {"train.save_interval": "1", "eval.save_interval": "1"}},
    ],
}
PROFILER = {
    "S3OutputPath": "s3://bucket/profile",
    "ProfilingIntervalInMilliseconds": 500,
    "ProfilingParameters": {"DetailedProfilingConfig": '{"StartStep": 4, "NumSteps": 2}'},
}


def test_sagemakers_files_ask_for_tensors_a_trace_and_tensorboard(job):
    """Two stages, steps of two micro-batches' worth of photos, one count of steps over both."""
    job.photos("train", {"red": 20, "green": 20})
    job.photos("validation", {"red": 8, "green": 8})  # batches of 4: a mean of their means is the mean
    job.configure(strategy="probe-then-finetune", probe_epochs="1", epochs="2", batch_size="4")
    config = job.base / "input" / "config"
    (config / "debughookconfig.json").write_text(json.dumps(HOOK))
    (config / "profilerconfig.json").write_text(json.dumps(PROFILER))
    (config / "tensorboardoutputconfig.json").write_text('{"LocalPath": "/opt/ml/output/tensorboard"}')
    code, log = job.run()
    assert code == 0, log
    assert "warning: smdebug" not in log
    debug = json.loads((job.base / "output" / "data" / "report.json").read_text())["debug"]

    seen = offline.read(job.base / debug["tensors"])
    assert debug["tensors"] == "output/tensors"
    ours = [row for stage in debug["stages"] for row in zip(*stage["loss"].values(), strict=True)]
    assert len(ours) == 30
    assert list(zip(seen.loss.steps, seen.loss.values, strict=True)) == [
        (step, pytest.approx(loss, rel=1e-6)) for step, loss in ours
    ]
    assert seen.gradients["Linear_weight"].norm.steps == [0, 5]
    head = seen.gradients["Classifier_head.weight"].norm
    assert head.steps == [10, 15, 20, 25]
    ours = debug["stages"][1]["gradients"]["head.weight"]
    assert (ours["steps"], head.values[::2]) == ([10, 20], [pytest.approx(norm, rel=1e-5) for norm in ours["norm"]])
    assert [row.validation_loss for row in seen.evaluated] == [
        pytest.approx(row["validation_loss"], rel=1e-5) for stage in debug["stages"] for row in stage["evaluated"]
    ]

    assert Path(debug["trace"]).parent == Path("output/profiler")
    events = json.loads(gzip.decompress((job.base / debug["trace"]).read_bytes()))["traceEvents"]
    assert {"step 4", "step 5", "forward", "backward"} <= {str(event.get("name")) for event in events}
    profile = json.loads((job.base / "output" / "profiler" / "profile.json").read_text())
    assert [row["seconds"].keys() for row in profile["stages"]] == [row["seconds"].keys() for row in debug["stages"]]
    assert profile["machine"]["interval"] == 0.5
    assert list((job.base / "output" / "tensorboard").rglob("*tfevents*"))
    assert artifact.read_manifest(job.base / "model").class_names == ("green", "red")


@pytest.mark.parametrize("strict", [False, True])
def test_a_hook_that_fails_ends_a_strict_job_only(job, strict):
    job.photos("train")
    job.configure(debug_strict=str(strict).lower())
    collections = [{"CollectionName": "gradients", "CollectionParameters": {"save_interval": "often"}}]
    (job.base / "input" / "config" / "debughookconfig.json").write_text(
        json.dumps({**HOOK, "CollectionConfigurations": collections})
    )
    if strict:
        assert "smdebug" in job.fail()
    else:
        job.main()
        assert artifact.read_manifest(job.base / "model").class_names == ("green", "red")


def test_tensorboard_alone_is_written_where_nothing_else_watches(job):
    job.photos("train")
    job.configure(rules="none", profile="false", epochs="2")
    (job.base / "input" / "config" / "tensorboardoutputconfig.json").write_text("{}")
    job.main()
    (written,) = (job.base / "output" / "tensorboard").iterdir()
    assert written.read_bytes().count(b"epoch/train_loss") == 2


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_profile_that_cannot_be_written_changes_nothing_of_the_jobs_end(job, ends_well, capfd):
    job.photos("train")
    job.configure(**({} if ends_well else {"learning_rate": "10", "weight_decay": "1", "epochs": "60"}))
    (job.base / "input" / "config" / "profilerconfig.json").write_text(json.dumps(PROFILER))
    (job.base / "output" / "profiler" / "profile.json").mkdir(parents=True)
    if ends_well:
        job.main()
        assert artifact.read_manifest(job.base / "model").class_names == ("green", "red")
    else:
        assert job.fail().startswith("the loss is NaN or infinite")
    assert "warning: the profile could not be written: " in "".join(capfd.readouterr())


def test_a_broken_file_of_sagemakers_is_named(job):
    job.photos("train")
    (job.base / "input" / "config" / "profilerconfig.json").write_text("{")
    assert "profilerconfig.json" in job.fail()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no photos at {SHARED}")
@pytest.mark.parametrize("strategy", ["probe", "finetune"])
def test_no_rule_fires_on_a_healthy_training(job, strategy):
    (job.data / "train").symlink_to(SHARED / "train")
    (job.data / "val").symlink_to(SHARED / "val")
    (job.data / "pretrained").symlink_to(samples.weights())
    settings = {"probe": {"epochs": "20"}, "finetune": {"epochs": "2", "learning_rate": "0.01", "image_size": "128"}}[
        strategy
    ]
    common = {"backbone": samples.BACKBONE, "pretrained": "true", "image_size": "224", "batch_size": "32"}
    job.configure(strategy=strategy, **(common | settings))
    job.main()
    debug = json.loads((job.base / "output" / "data" / "report.json").read_text())["debug"]
    assert debug["findings"] == []
    assert debug["rules"] == list(table.TABLE)
    assert artifact.read_manifest(job.base / "model").metrics["validation:accuracy"] > 0.92


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of smdebug's file that was never open
def test_tensors_that_cannot_be_closed_are_a_warning_even_where_the_job_is_strict(job, caplog, monkeypatch):
    """By then the model is written."""
    monkeypatch.setattr(observers.log, "propagate", True)  # where caplog listens
    layout = Layout(job.base)
    hp = Hyperparameters(debug=True, debug_strict=True, rules="none", profile=False)
    with observers.observing(Context(hp, device.choose(""), layout=layout), print, None) as seen:
        with seen.debugger.stage("finetune", Net(), torch.device("cpu"), float, 1, pretrained=False, loaders=1):
            pass
        shutil.rmtree(job.base / "output" / "tensors", ignore_errors=True)
        (job.base / "output" / "tensors").write_text("no folder any more")
    assert "warning: smdebug's hook could not be closed: smdebug's hook failed (" in caplog.text
