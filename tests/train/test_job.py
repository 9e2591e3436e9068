"""The training contract through its public doors: the real `train` executable and the function that it calls."""

import json
import re
import shutil

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy

from kennel import artifact, metrics
from kennel.photos import decoder, preprocessing


def test_photos_become_a_model_that_tells_them_apart(job):
    job.photos("train", {"002.red": 14, "001.green": 14})
    job.photos("valid", {"002.red": 4, "001.green": 4})
    job.photos("test", {"002.red": 4, "001.green": 4})
    job.configure(epochs='"3"', learning_rate="0.05", int8="true")  # the tuner sends JSON inside the string
    code, log = job.run()
    assert code == 0, log
    assert not (job.base / "output" / "failure").exists()

    first = next(line for line in log.splitlines() if "sagemaker-training-toolkit" not in line)
    assert first.startswith("device: ")
    assert "CUDA compatibility" in first
    for metric in metrics.METRICS:
        found = re.findall(metric.regex, log)
        assert len(found) == (1 if metric.name.startswith("test") else 4), metric  # each epoch's, then the model's

    model = job.base / "model"
    manifest = artifact.read_manifest(model)
    for name in ("train:loss", "validation:loss", "validation:accuracy"):
        (last,) = re.findall(re.escape(name) + r"=(\S+)", log)[-1:]
        assert float(last) == pytest.approx(manifest.metrics[name], rel=1e-5), name
    assert manifest.int8["kept"] == ("model.int8.onnx" in manifest.files)
    assert {path.name for path in model.iterdir()} == {"manifest.json", *manifest.files}
    assert manifest.evaluation["test"]["confusion"] == [[4, 0], [0, 4]]
    out = job.base / "output" / "data"
    assert {path.name for path in out.iterdir()} == {"audit.json", "report.html", "report.json"}
    assert [row["epoch"] for row in json.loads((out / "report.json").read_text())["epochs"]] == [1, 2, 3]
    assert list((job.base / "checkpoints").glob("checkpoint-*.pt"))
    assert manifest.class_names == ("001.green", "002.red")
    assert manifest.data["photos"] == {"train": 28, "validation": 8, "test": 8}
    assert manifest.metrics["test:accuracy"] == float(re.findall(metrics.TEST_ACCURACY.regex, log)[0]) == 1.0
    assert safetensors.numpy.load_file(model / "model.safetensors")["head.weight"].shape[0] == 2

    session = onnxruntime.InferenceSession(model / "model.onnx")
    for folder in ("001.green", "002.red"):
        image = decoder.decode(job.data / "test" / folder / "0.jpg", manifest.preprocessing)
        (logits,) = session.run(["logits"], {"photos": preprocessing.square(image, manifest.preprocessing)[None]})
        assert manifest.class_names[logits.argmax()] == folder


@pytest.mark.slow
def test_the_model_that_is_written_is_the_best_epochs(job):
    """Against swapped labels every epoch is worse than the first; the exported file has the loss that was its best."""
    job.photos("train")
    for mine, theirs in (("red", "green"), ("green", "red")):
        for i in range(4):
            job.paint(f"val/{theirs}/{i}.jpg", mine, seed=1000 + i)
    job.configure(epochs="6", learning_rate="0.1")
    job.main()
    model = job.base / "model"
    manifest = artifact.read_manifest(model)
    assert manifest.metrics["epoch"] < 6
    session = onnxruntime.InferenceSession(model / "model.onnx")
    losses = []
    for label, name in enumerate(manifest.class_names):
        for path in sorted((job.data / "val" / name).glob("*.jpg")):
            square = preprocessing.square(decoder.decode(path, manifest.preprocessing), manifest.preprocessing)
            ((logits,),) = session.run(["logits"], {"photos": square[None]})
            losses.append(np.log(np.exp(logits - logits.max()).sum()) - (logits[label] - logits.max()))
    assert np.mean(losses) == pytest.approx(manifest.metrics["validation:loss"], rel=1e-3)


@pytest.mark.slow
def test_finetune_trains_the_backbone_and_splits_validation_from_train(job):
    job.photos("train", {"red": 9, "green": 9})  # 7 of each are left: the last batch of 5 would do, 1 would not
    job.configure(strategy="finetune", learning_rate="0.01", batch_size="13")
    job.main()
    manifest = artifact.read_manifest(job.base / "model")
    assert manifest.data["photos"] == {"train": 14, "validation": 4}
    assert manifest.hyperparameters["strategy"] == "finetune"


@pytest.mark.slow
def test_one_channel_may_hold_all_splits_and_the_same_seed_gives_the_same_model(job):
    job.photos("train/train", {"1.red": 8, "2.green": 8})
    job.photos("train/valid", {"1.red": 3, "2.green": 3})
    weights = []
    for _ in range(2):
        job.main()
        weights.append((job.base / "model" / "model.safetensors").read_bytes())
    assert artifact.read_manifest(job.base / "model").data["photos"] == {"train": 16, "validation": 6}
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_sigterm_ends_the_job_with_a_usable_model(job):
    job.photos("train")
    job.configure(epochs="10000")
    code, log, _ = job.run_until("epoch=3 ")
    assert code == 0, log
    assert "stopping: SIGTERM" in log
    assert artifact.read_manifest(job.base / "model").class_names == ("green", "red")
    assert len(re.findall(metrics.VALIDATION_ACCURACY.regex, log)) < 10000


@pytest.mark.slow
def test_the_executable_fails_with_the_same_sentence_in_failure_file_and_log(job):
    job.photos("train")
    job.configure(learning_rate="10.5")
    code, log = job.run()
    assert code == 1
    assert job.failure == "hyperparameter learning_rate='10.5': write a number between 1e-08 and 10"
    assert job.failure in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("hyperparameters", "said"),
    [
        ({"learning-rate": "fast"}, "hyperparameter learning_rate='fast': write a number between"),
        ({"learning_rat": "0.1"}, "unknown hyperparameter 'learning_rat': did you mean 'learning_rate'?"),
        ({"backbone": "resnet51"}, "hyperparameter backbone='resnet51' is no torchvision or timm model: did you mean"),
        ({"sagemaker_program": "absent.py"}, "entry point absent.py is not in"),
    ],
)
def test_a_bad_hyperparameter_is_named_with_its_value(job, hyperparameters, said):
    job.photos("train")
    job.configure(**hyperparameters)
    assert job.fail().startswith(said)


def test_hyperparameters_that_are_no_json_are_named(job):
    (job.base / "input" / "config" / "hyperparameters.json").write_text("{epochs: 3")
    assert "hyperparameters.json cannot be read as JSON" in job.fail()


def test_an_empty_channel_is_named_with_what_it_should_hold(job):
    (job.data / "train").mkdir()
    assert job.fail() == "channel 'train' has no photos: expected train/<class>/*.jpg (or .png, .webp, ...)"


def test_a_missing_channel_is_named_with_those_that_are_there(job):
    job.photos("trian")
    assert job.fail().startswith("there is no channel 'train' (channels: trian)")


def test_photos_outside_class_folders_are_refused(job):
    job.photos("train")
    (job.data / "train" / "red" / "0.jpg").rename(job.data / "train" / "loose.jpg")
    assert job.fail().startswith("1 photos lie directly in channel 'train' (loose.jpg): move each into a folder")


def test_one_class_is_no_classifier(job):
    job.photos("train", {"red": 5})
    assert job.fail().startswith("channel 'train' has one class only (red)")


@pytest.mark.parametrize("channel", ["val", "test"])
def test_a_class_that_training_lacks_is_named(job, channel):
    job.photos("train")
    job.photos(channel, {"red": 2, "blue": 2})
    assert job.fail().startswith(f"channel '{channel}' has the class 'blue' that channel 'train' lacks: add photos of")


def test_two_names_for_one_split_are_refused(job):
    job.photos("train")
    job.photos("val")
    job.photos("validation")
    assert job.fail() == "'val' and 'validation' in data both name the validation photos: keep one"


def test_missing_weights_name_the_three_ways(job):
    job.photos("train")
    job.configure(backbone="resnet50", pretrained="true")
    job.environ = {
        "TORCH_HOME": str(job.base / "no-cache"),
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    said = job.fail()
    assert said.startswith("no pretrained weights for 'resnet50': give them in a channel 'pretrained'")
    assert "make build WEIGHTS=" in said
    assert "reach the internet" in said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "channel 'pretrained' must hold one weights file (*.safetensors, *.pth, *.pt, *.bin), found: none"),
        ({"a.pth": b"x", "b.pth": b"x"}, "channel 'pretrained' must hold one weights file"),
        (
            {"a.pth": b"no file of torch's"},
            "weights file a.pth cannot be read as a state dict (it is no file",
        ),
    ],
)
def test_a_pretrained_channel_without_one_good_file_is_refused(job, files, said):
    job.photos("train")
    job.configure(pretrained="true")
    (job.data / "pretrained").mkdir()
    for name, content in files.items():
        (job.data / "pretrained" / name).write_bytes(content)
    assert job.fail().startswith(said)


@pytest.mark.slow
def test_a_few_corrupt_photos_are_left_out_and_named(job, capsys):
    job.photos("train", {"red": 60, "green": 60})
    (job.data / "train" / "red" / "7.jpg").write_bytes(b"this is no JPEG")
    (job.data / "train" / "red" / "notes.txt").write_text("not a photo either")
    job.main()
    log = capsys.readouterr().out
    assert "bad photo: " in log
    assert "left out, not a photo: train/red/notes.txt" in log
    (skipped,) = artifact.read_manifest(job.base / "model").data["skipped"]
    assert skipped["photo"] == "train/red/7.jpg"
    assert "not a readable photo" in skipped["reason"]


def test_the_first_corrupt_photo_fails_the_job_when_asked_to(job):
    job.photos("train", {"red": 60, "green": 60})
    job.configure(on_bad_image="fail")
    good = job.data / "train" / "green" / "3.jpg"
    good.write_bytes(good.read_bytes()[:300])  # truncated
    assert re.match(r"\S+train/green/3.jpg: not a readable photo .*on_bad_image=fail", job.fail())


def test_nothing_but_corrupt_photos_fails_the_job(job):
    job.photos("train", {"red": 3, "green": 3})
    for path in (job.data / "train").rglob("*.jpg"):
        path.write_bytes(b"junk")
    assert job.fail().startswith("6 of 6 photos cannot be read, more than 1%: remove or replace them")


def test_a_report_that_cannot_be_written_fails_no_job_that_has_its_model(job, capsys):
    job.photos("train")
    shutil.rmtree(job.base / "output" / "data", ignore_errors=True)
    (job.base / "output").mkdir(exist_ok=True)
    (job.base / "output" / "data").write_text("in the way")
    (job.base / "input" / "config" / "inputdataconfig.json").write_text("")
    job.main()
    log = capsys.readouterr().out
    assert "warning: audit.json could not be written" in log
    assert "warning: the report could not be written" in log
    assert artifact.read_manifest(job.base / "model").class_names == ("green", "red")


def hooked(job, body: str) -> None:
    """A job with a user's entry point, sent as the SDK sends it."""
    source = job.base / "input" / "source"
    source.mkdir()
    (source / "mine.py").write_text(body)
    job.photos("train")
    job.configure(sagemaker_program='"mine.py"', sagemaker_submit_directory=json.dumps(str(source)))


@pytest.mark.slow
def test_a_users_hook_is_called_after_each_epoch(job):
    out = job.base / "seen.json"
    write = f"pathlib.Path({str(out)!r}).write_text(json.dumps(seen))"
    hooked(job, f"import json, pathlib\ndef on_epoch_end(*seen):\n    {write}\n")
    job.main()
    epoch, seen = json.loads(out.read_text())
    assert epoch == 2
    assert set(seen) == {"train:loss", "validation:loss", "validation:accuracy"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys\ndef on_epoch_end(epoch, metrics):\n    sys.exit(0)\n", "sys.exit(0) was called at mine.py:3"),
        ("def on_epoch_end(epoch, metrics):\n    raise KeyError('speed')\n", "KeyError: 'speed' (at mine.py:2"),
        ("def on_epoch_end(epoch, metrics):\n    raise MemoryError\n", "out of memory at mine.py:2"),
        ("def on_epoch_end(epoch, metrics):\n    raise KeyboardInterrupt\n", "the job was interrupted"),
        ("def on_epoch_end(epoch, metrics):\n    raise OSError(28, 'No space left')\n", "the disk is full"),
        (
            "import nothing_of_that_name\ndef on_epoch_end(e, m): ...\n",
            "entry point mine.py cannot be imported: ModuleNotFoundError",
        ),
        ("import sys\nsys.exit(3)\ndef on_epoch_end(e, m): ...\n", "sys.exit(3) was called at mine.py:2"),
    ],
)
def test_whatever_a_users_hook_raises_fails_the_job_with_its_cause_first(job, body, said):
    hooked(job, body)
    first = job.fail().splitlines()[0]
    assert first.startswith(said)
    assert len(first) <= 1000


@pytest.mark.slow
def test_sys_exit_in_a_hook_ends_the_executable_with_1(job):
    hooked(job, "import sys\ndef on_epoch_end(epoch, metrics):\n    sys.exit(0)\n")
    code, log = job.run()
    assert code == 1, log
    assert job.failure.startswith("sys.exit(0) was called at mine.py:3, in on_epoch_end")
    assert not list((job.base / "model").glob("*"))


def test_a_loss_that_is_no_number_fails_the_job(job):
    job.photos("train")
    job.configure(strategy="finetune", learning_rate="10", momentum="0.999", epochs="40", weight_decay="1")
    assert re.match(r"the loss is NaN or infinite in epoch \d+: lower learning_rate", job.fail())


def test_a_photo_is_seen_alike_in_training_and_serving(job):
    """The middle of the cached square is the square that serving cuts."""
    from kennel.photos.preprocessing import Preprocessing
    from kennel_train.data import decoding
    from kennel_train.data.image_folder import Photo
    from kennel_train.engine import crops

    row = Preprocessing(image_size=64, resize=73, interpolation="bicubic")
    job.photos("train", {"red": 1})
    path = job.data / "train" / "red" / "0.jpg"
    decoded, _ = decoding.decode([Photo(path, 0)], row, "fail", print)
    (cached,) = crops.middle(decoded.images, decoded.local, 64)
    assert (cached.transpose(2, 0, 1) == preprocessing.square(decoder.decode(path, row), row)).all()
