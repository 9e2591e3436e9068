"""Whole jobs: every recipe setting reaches training, early stops, strategies, input modes, incremental training."""

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import tarfile
import threading

import pytest
import safetensors.torch
import timm
import torch

from kennel import artifact

pytestmark = pytest.mark.slow

FINETUNE = {"strategy": "finetune", "epochs": "4", "learning_rate": "0.02", "backbone_learning_rate_scale": "1"}


def manifest(job):
    return artifact.read_manifest(job.base / "model")


def report(job):
    return json.loads((job.base / "output" / "data" / "report.json").read_text())


def weights(job):
    return safetensors.torch.load_file(job.base / "model" / "model.safetensors")


def afresh(job):
    """The same job with nothing of an earlier start."""
    for name in ("model", "checkpoints", "output"):
        shutil.rmtree(job.base / name, ignore_errors=True)


def swapped(job) -> None:
    """Validation photos with each other's labels: the more is learned the worse they are told apart."""
    job.photos("train", {"red": 12, "green": 12})
    for mine, theirs in (("red", "green"), ("green", "red")):
        for i in range(4):
            job.paint(f"val/{theirs}/{i}.jpg", mine, seed=1000 + i)


def test_a_recipe_of_everything_learns_the_colours(job):
    job.photos("train", {"red": 16, "green": 30})
    job.photos("val", {"red": 5, "green": 5})
    recipe = {
        "optimizer": "adamw",
        "schedule": "one-cycle",
        "label_smoothing": "0.1",
        "class_weights": "balanced",
        "trivial_augment": "true",
        "gradient_clip": "1.0",
        "ema_decay": "0.7",
    }
    job.configure(**{**FINETUNE, **recipe, "learning_rate": "0.005", "epochs": "6"})
    job.main()
    made = manifest(job)
    assert made.metrics["validation:accuracy"] >= 0.9
    rates = [row["learning_rate"] for row in report(job)["epochs"]]
    assert rates[0] < rates[1] < max(rates) == pytest.approx(0.005, rel=0.1)
    assert rates[-1] < rates[-2] < max(rates)
    assert {key: str(made.hyperparameters[key]).lower() for key in recipe} == recipe


def test_each_of_these_settings_makes_another_model(job):
    """What is handed over outside the loop, or acts only where it is set."""
    job.photos("train", {"red": 20, "green": 12})
    job.photos("val", {"red": 3, "green": 3})
    ends = []
    for other in (
        {},
        {"class_weights": "balanced"},
        {"trivial_augment": "true"},
        {"gradient_clip": "0.001"},
        {"label_smoothing": "0.2"},
        {"backbone_learning_rate_scale": "0.5"},
        {"backbone_learning_rate_scale": "0"},
    ):
        job.configure(**{**FINETUNE, "epochs": "1", "batch_size": "16", **other})
        job.main()
        ends.append(weights(job))
        afresh(job)
    for at, ours in enumerate(ends):
        for other in ends[:at]:
            assert any(not torch.equal(ours[name], tensor) for name, tensor in other.items()), at
    frozen = [name for name in ends[0] if name.startswith("backbone.") and name.endswith("weight")]
    assert any(not torch.equal(ends[0][name], ends[-1][name]) for name in frozen)


def test_patience_stops_early_and_the_rest_goes_on(job, capsys):
    """Against swapped labels no epoch after the first is better."""
    swapped(job)
    job.configure(epochs="60", learning_rate="0.1", patience="2")
    job.main()
    epochs = re.findall(r"^epoch=(\d+) ", capsys.readouterr().out, re.MULTILINE)
    assert len(epochs) == manifest(job).metrics["epoch"] + 2 < 60
    assert report(job)["outcome"].startswith("completed: patience=2 ended probe after")
    assert manifest(job).temperature == report(job)["temperature"] > 1.0, "surely wrong answers are cooled"


def test_finetuning_never_ends_worse_than_its_probe(job):
    """Against swapped labels fine-tuning only makes it worse: the model is the probe's, with its figures."""
    swapped(job)
    job.configure(strategy="probe-then-finetune", probe_epochs="2", epochs="3", learning_rate="0.05")
    job.main()
    rows = report(job)["epochs"]
    assert [row["stage"] for row in rows] == ["probe"] * 2 + ["finetune"] * 3
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert report(job)["best"]["stage"] == "probe"
    best = rows[report(job)["best"]["epoch"] - 1]
    judged = manifest(job).evaluation["validation"]
    assert judged["top1"] == manifest(job).metrics["validation:accuracy"] == best["validation:accuracy"]
    assert judged["loss"] == pytest.approx(best["validation:loss"], rel=1e-3)
    assert best["validation:loss"] < min(row["validation:loss"] for row in rows if row["stage"] == "finetune")


def test_a_finetune_that_is_only_surer_leaves_the_probe(job):
    job.photos("train", {"red": 12, "green": 12})
    job.configure(strategy="probe-then-finetune", probe_epochs="40", epochs="3", learning_rate="0.05")
    job.main()
    rows = report(job)["epochs"]
    best = rows[report(job)["best"]["epoch"] - 1]
    assert report(job)["best"]["stage"] == "probe"
    assert all(row["validation:accuracy"] == best["validation:accuracy"] == 1.0 for row in rows[40:])
    assert rows[-1]["validation:loss"] < best["validation:loss"]


def test_a_restart_counts_on_where_the_last_checkpoint_stood(job, capsys):
    """Patience, the numbers of the epochs and their rows: as if there had been no restart."""
    swapped(job)
    job.configure(strategy="probe-then-finetune", probe_epochs="2", epochs="20", learning_rate="0.05", patience="2")
    job.main()
    first, rows = weights(job), report(job)["epochs"]
    max((job.base / "checkpoints").glob("checkpoint-*.pt")).unlink()
    shutil.rmtree(job.base / "model")
    capsys.readouterr()
    job.main()
    log = capsys.readouterr().out
    assert "resumed from a checkpoint: finetune, " in log
    assert len(re.findall(r"^epoch=", log, re.MULTILINE)) == 1
    for key in ("stage", "epoch", "validation:loss"):
        assert [row[key] for row in report(job)["epochs"]] == [row[key] for row in rows]
    assert all(torch.equal(first[name], tensor) for name, tensor in weights(job).items())


def test_the_image_size_is_the_backbones_own_unless_it_is_given(job, capsys):
    """test_resnet's is 160; all that comes after the settings sees the number, and a search's trials share it."""
    job.photos("train", {"red": 8, "green": 8})
    job.configure(image_size="0", epochs="1", trials="2", search_space="learning_rate=0.01,0.02")
    job.main()
    assert " image_size=160 " in capsys.readouterr().out
    made = manifest(job)
    assert (made.preprocessing.image_size, made.hyperparameters["image_size"]) == (160, 160)
    best = json.loads((job.base / "output" / "data" / "best-hyperparameters.json").read_text())
    assert best["image_size"] == "160"
    phases = [name for name, _ in report(job)["phases"]]
    assert phases.index("trace network") < phases.index("decode")


def test_what_no_backbone_can_be_is_said_before_a_photo_is_decoded(job):
    """None of these photos could be decoded, which would be the reason if one had been tried."""
    for name in ("red/a.jpg", "red/b.jpg", "green/a.jpg", "green/b.jpg"):
        file = job.data / "train" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\xff\xd8\xff\xe0 torn " + name.encode())
    job.configure(backbone="maxvit_t", image_size="64")
    assert job.fail().startswith("backbone 'maxvit_t' cannot take image_size=64 (")
    job.configure(backbone="test_vit", pretrained="true", image_size="0")
    weights = job.data / "pretrained"
    weights.mkdir()
    torch.save(timm.create_model("test_resnet").state_dict(), weights / "a.pth")
    assert job.fail().startswith("weights file a.pth does not fit backbone 'test_vit': ")
    job.configure()
    assert "a.jpg" in job.fail()


def test_a_batch_larger_than_the_data_is_clamped_and_runs(job, capsys):
    job.photos("train", {"red": 30, "green": 30})
    job.configure(strategy="finetune", epochs="1", batch_size="512")
    job.main()
    assert "warning: batch_size=512 is more than the 48 training photos and becomes that" in capsys.readouterr().out
    assert manifest(job).hyperparameters["batch_size"] == 48
    audit = json.loads((job.base / "output" / "data" / "audit.json").read_text())
    assert audit["counts"] == {"train": {"green": 24, "red": 24}, "validation": {"green": 6, "red": 6}}
    assert manifest(job).metrics["epoch"] == 1


def again(job, capsys) -> str:
    """The log of the same job, started anew with what its checkpoint folder holds but no checkpoint."""
    for path in (job.base / "checkpoints").glob("checkpoint-*"):
        path.unlink()
    capsys.readouterr()
    job.main()
    return capsys.readouterr().out


def test_a_second_start_takes_the_features_and_other_photos_need_others(job, capsys):
    job.photos("train", {"red": 12, "green": 12})
    job.photos("val", {"red": 4, "green": 4})
    job.configure(epochs="1")
    folder = job.base / "checkpoints"

    def kept():
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("features-*")}

    job.main()
    first = kept()
    assert len(first) == 2
    again(job, capsys)
    assert kept() == first, "they were extracted again"

    job.paint("train/red/0.jpg", "red", seed=4711)
    shutil.rmtree(job.base / "model")
    assert "holds checkpoints of another job, its data fingerprint was" in job.fail()
    again(job, capsys)
    second = kept()
    assert len(second) == 2
    assert not set(first) & set(second)

    job.configure(epochs="1", seed="1")  # random weights of another seed: another backbone
    again(job, capsys)
    assert not set(second) & set(kept())
    third = kept()
    job.configure(epochs="1", seed="1", image_size="48")
    again(job, capsys)
    assert not set(third) & set(kept())

    torn = max(folder.glob("features-*"))
    torn.write_bytes(torn.read_bytes()[:-9])
    assert f"{torn.name} is torn and is passed over" in again(job, capsys)


def test_the_next_job_of_a_warm_pool_takes_the_features(job, tmp_path, capsys):
    job.photos("train", {"red": 8, "green": 8})
    job.configure(epochs="1")
    job.environ["SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY"] = str(tmp_path / "warm")
    job.main()
    assert "an earlier job's" not in capsys.readouterr().out
    first = {path.name for path in (tmp_path / "warm" / "kennel").iterdir()}
    assert len(first) == 2

    other = type(job)(tmp_path / "other", job.environ)
    shutil.copytree(job.data, other.data)
    other.configure(epochs="2")
    other.main()
    assert capsys.readouterr().out.count("an earlier job's, from the warm pool's") == 2
    assert {path.name for path in (other.base / "checkpoints").glob("features-*")} == first


@contextlib.contextmanager
def read_only(folder):
    """The folder as FastFile mode shows it: nothing can be written there."""
    done = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True).returncode
    done = done or subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], capture_output=True).returncode
    if done:
        pytest.skip("a read-only folder needs the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_channels_that_cannot_be_written_to_are_enough(job):
    job.photos("train")
    (job.base / "input" / "config" / "inputdataconfig.json").write_text('{"train": {"TrainingInputMode": "FastFile"}}')
    with read_only(job.base / "input"):
        job.main()
    assert manifest(job).data["photos"] == {"train": 16, "validation": 4}


def record(content: bytes) -> bytes:
    return struct.pack("<II", 0xCED7230A, len(content)) + content + b"\0" * (-len(content) % 4)


def test_pipe_mode_trains_on_what_is_streamed(job):
    job.photos("train", {"red": 10, "green": 10})
    job.photos("validation", {"red": 3, "green": 3})
    threads = []
    for channel in ("train", "validation"):
        folder = job.data / channel
        content = b"".join(
            record(path.read_bytes()) + record(path.parent.name.encode()) for path in sorted(folder.rglob("*.jpg"))
        )
        shutil.rmtree(folder)
        fifo = job.data / f"{channel}_0"
        os.mkfifo(fifo)
        threads.append(threading.Thread(target=fifo.write_bytes, args=(content,), daemon=True))
    modes = {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO", "S3DistributionType": "FullyReplicated"}
    config = {"train": modes, "validation": modes}
    (job.base / "input" / "config" / "inputdataconfig.json").write_text(json.dumps(config))
    for thread in threads:
        thread.start()
    job.main()
    assert manifest(job).data["photos"] == {"train": 20, "validation": 6}
    assert manifest(job).class_names == ("green", "red")


def test_the_same_photo_in_train_and_validation_fails(job):
    job.photos("train")
    job.photos("val", {"red": 3, "green": 3})
    shutil.copy(job.data / "train" / "red" / "4.jpg", job.data / "val" / "red" / "other.jpg")
    said = job.fail()
    assert "train" in said
    assert "val/red/other.jpg" in said


def test_a_class_missing_in_validation_fails_unless_it_may(job):
    job.photos("train", {"red": 8, "green": 8, "blue": 8})
    job.photos("val", {"red": 3, "green": 3})
    assert "allow_missing_classes" in job.fail()
    afresh(job)
    job.configure(epochs="1", allow_missing_classes="true")
    job.main()
    assert manifest(job).class_names == ("blue", "green", "red")
    assert manifest(job).evaluation["validation"]["top1"] >= 0


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
def test_incremental_training_goes_on_from_the_earlier_model(job, capsys, packed):
    job.photos("train", {"red": 10, "green": 10})
    job.configure(epochs="6", learning_rate="0.05")
    job.main()
    before, first = weights(job), manifest(job)
    channel = job.data / "model"
    channel.mkdir()
    if packed:
        with tarfile.open(channel / "model.tar.gz", "w:gz") as archive:
            for path in (job.base / "model").iterdir():
                archive.add(path, path.name)
    else:
        shutil.copytree(job.base / "model", channel, dirs_exist_ok=True)
    afresh(job)
    job.photos("train", {"blue": 10})
    config = job.base / "input" / "config" / "hyperparameters.json"
    config.write_text(json.dumps({"epochs": "1", "learning_rate": "1e-8", "int8": "false", "image_size": "0"}))
    job.main()
    assert "head: 2 classes of the earlier model, 1 new ones" in capsys.readouterr().out
    now, second = weights(job), manifest(job)
    assert second.class_names == ("blue", "green", "red")
    assert second.preprocessing == first.preprocessing
    assert second.backbone["weights"].startswith("channel 'model', trained ")
    assert second.hyperparameters["backbone"] == "test_resnet"
    for at, name in enumerate(second.class_names[1:], 1):
        row = before["head.weight"][first.class_names.index(name)]
        assert torch.allclose(now["head.weight"][at], row, atol=1e-5)
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items() if name.startswith("backbone."))
    afresh(job)
    config.write_text(json.dumps({"image_size": "96"}))
    assert job.fail().startswith("hyperparameter image_size=96: the model in channel 'model' has 64")


def test_a_probe_is_solved_where_nothing_asks_for_sgd(job, capsys):
    """In one epoch, by the L2 that cross-validation chose; the reported accuracy is of photos that were held out."""
    job.photos("train", {"red": 20, "green": 20})
    job.configure(strategy="probe", epochs=None, batch_size=None)
    job.main()
    assert " solver=lbfgs " in capsys.readouterr().out
    made, (row,) = manifest(job), report(job)["epochs"]
    assert made.hyperparameters["l2"] == row["l2"] > 0
    assert "learning_rate" not in row
    assert report(job)["outcome"] == "completed"
    assert made.data["head"] == "train and validation"
    whole = weights(job)
    afresh(job)
    job.configure(strategy="probe", solver="lbfgs", final="train", l2=str(row["l2"]))
    job.main()
    assert "warning: solver=lbfgs has no use for batch_size, epochs" in capsys.readouterr().out
    other = manifest(job)
    assert "head" not in other.data
    assert other.metrics == pytest.approx(made.metrics, rel=1e-3, abs=1e-4)
    assert not torch.allclose(weights(job)["head.weight"], whole["head.weight"], rtol=1e-3)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(job).items() if name.startswith("backbone"))


@pytest.mark.parametrize(
    ("collections", "solver"), [(None, "lbfgs"), ([{"CollectionName": "gradients"}], "sgd")], ids=["none", "gradients"]
)
def test_tensors_that_are_asked_for_need_steps(job, capsys, collections, solver):
    """SDK v2 sends a DebugHookConfig that names none, by default."""
    job.photos("train", {"red": 8, "green": 8})
    job.configure(strategy="probe", epochs=None, batch_size=None)
    hook = {"S3OutputPath": "s3://bucket/", **({"CollectionConfigurations": collections} if collections else {})}
    (job.base / "input" / "config" / "debughookconfig.json").write_text(json.dumps(hook))
    job.main()
    assert f" solver={solver} " in capsys.readouterr().out


def test_a_probe_by_sgd_learns_from_all_in_the_end(job):
    job.photos("train", {"red": 20, "green": 20})
    heads = []
    for final in ("all", "train"):
        afresh(job)
        job.configure(strategy="probe", epochs="3", final=final)
        job.main()
        heads.append((manifest(job).metrics, weights(job)["head.weight"]))
        assert len(report(job)["epochs"]) == 3
    (metrics, whole), (others, less) = heads
    assert metrics == others
    assert not torch.allclose(whole, less)


def test_photos_of_a_validation_channel_are_never_learned(job):
    job.photos("train", {"red": 12, "green": 12})
    job.photos("val", {"red": 4, "green": 4})
    job.configure(strategy="probe", solver="lbfgs")
    job.main()
    assert "head" not in manifest(job).data
