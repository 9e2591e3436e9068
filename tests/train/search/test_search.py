"""Many trials in one job, through the real executable and the function that it calls: what is tried, kept, written."""

import csv
import json
import re
import shutil
import signal

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from kennel import artifact, metrics
from kennel.backbones import Backbone, Classifier
from kennel.hyperparameters import Hyperparameters, Tuning
from kennel.photos.preprocessing import Preprocessing
from kennel_train.context import Context
from kennel_train.data import image_folder
from kennel_train.data.splits import Splits
from kennel_train.distributed import device
from kennel_train.engine.checkpoint import Checkpoints
from kennel_train.engine.strategies import Training
from kennel_train.search.search import Search
from kennel_train.tracking.tracker import Tracker

pytestmark = pytest.mark.slow
SPACE = "learning_rate=0.001..0.1 batch_size=4,8"
FINETUNE = {"strategy": "finetune", "learning_rate": "0.02", "backbone_learning_rate_scale": "1"}


def table(job):
    return json.loads((job.base / "output" / "data" / "trials.json").read_text())


def weights(job) -> bytes:
    return (job.base / "model" / "model.safetensors").read_bytes()


def reported(job, number: int) -> dict[int, float]:
    """What was reported to the pruner of a trial: epoch of the fine-tune -> score."""
    backend = JournalFileBackend(str(job.base / "checkpoints" / "trials.journal"))
    study = optuna.load_study(study_name="kennel", storage=JournalStorage(backend))
    return study.trials[number].intermediate_values


def colours(job, count: int = 12) -> None:
    job.photos("train", {"red": count, "green": count})
    job.photos("val", {"red": 5, "green": 5})


@pytest.mark.parametrize("strategy", ["probe", "finetune"])
def test_the_best_trial_becomes_the_model_and_a_plain_job_with_its_settings_makes_the_same(job, tmp_path, strategy):
    colours(job)
    job.photos("test", {"red": 3, "green": 3})
    job.configure(strategy=strategy, trials="5", search_space=SPACE, epochs="3")
    code, log = job.run()
    assert code == 0, log

    out = job.base / "output" / "data"
    found = table(job)
    assert [row["number"] for row in found["trials"]] == [0, 1, 2, 3, 4]
    assert {row["state"] for row in found["trials"]} <= {"complete", "same", "pruned"}
    first = found["trials"][0]
    assert first["hyperparameters"] == {"learning_rate": 0.01, "batch_size": 8}, "the job's own settings come first"
    assert found["own"] == 0
    assert [row["epoch"] for row in first["curve"]] == [1, 2, 3]
    best = found["trials"][found["best"]]
    order = [(row["value"], -row["metrics"]["validation:loss"]) for row in found["trials"]]
    assert max(order) == order[found["best"]]

    for row in found["trials"]:
        (line,) = re.findall(rf"^trial={row['number']} state={row['state']} .*$", log, re.MULTILINE)
        for metric in metrics.METRICS[:3]:
            (value,) = re.findall(metric.regex, line)
            assert float(value) == pytest.approx(row["metrics"][metric.name], rel=1e-4)
    assert len(re.findall(metrics.TEST_ACCURACY.regex, log)) == 1, "the test photos are asked once"

    manifest = artifact.read_manifest(job.base / "model")
    assert manifest.metrics["validation:accuracy"] == best["value"]
    assert manifest.metrics["epoch"] == best["epoch"]
    assert manifest.metrics["validation:loss"] == pytest.approx(best["metrics"]["validation:loss"], rel=1e-4)
    assert manifest.hyperparameters["learning_rate"] == best["hyperparameters"]["learning_rate"]
    with (out / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["learning_rate"]) for row in rows] == [
        row["hyperparameters"]["learning_rate"] for row in found["trials"]
    ]
    assert json.loads((out / "report.json").read_text())["search"]["best"] == found["best"]

    plain = type(job)(tmp_path / "plain")
    shutil.copytree(job.base / "input", plain.base / "input")
    shutil.copy(out / "best-hyperparameters.json", plain.base / "input" / "config" / "hyperparameters.json")
    plain.main()
    assert weights(plain) == weights(job)
    again = artifact.read_manifest(plain.base / "model")
    assert (again.metrics, again.hyperparameters) == (manifest.metrics, manifest.hyperparameters)
    assert not (plain.base / "output" / "data" / "trials.json").exists()


def test_a_search_that_is_killed_half_way_goes_on_and_ends_like_one_that_never_was(job, tmp_path):
    colours(job)
    job.configure(**FINETUNE, trials="4", search_space=SPACE, epochs="3")
    killed = type(job)(tmp_path / "killed")
    shutil.copytree(job.base, killed.base)
    job.main()
    with killed.start() as process:
        for line in process.stdout:
            if line.startswith("trial=1 epoch=2 "):
                process.send_signal(signal.SIGKILL)
                break
    code, log = killed.run()
    assert code == 0, log
    assert "resumed a search: 1 of 4 trials are done" in log
    assert not re.search(r"^trial=0 ", log, re.MULTILINE), "a finished trial was run again"
    assert not re.search(r"^trial=1 epoch=1 ", log, re.MULTILINE), "the trial did not go on where it was"
    assert list(reported(killed, 1)) == list(reported(job, 1)) == [1, 2, 3]
    mine, theirs = table(killed), table(job)
    for row in (*mine["trials"], *theirs["trials"]):
        row.pop("seconds")
    assert mine["trials"] == theirs["trials"]
    assert weights(killed) == weights(job)


def test_the_record_of_a_killed_job_may_end_in_half_a_line(job):
    colours(job)
    job.configure(trials="3", search_space=SPACE, epochs="1")
    job.main()
    shutil.rmtree(job.base / "model")
    before = table(job)
    with (job.base / "checkpoints" / "trials.journal").open("ab") as file:
        file.write(b'{"op_code":5,"worker')
    job.configure(trials="4", search_space=SPACE, epochs="1")  # and one more is wanted
    job.main()
    assert [row["number"] for row in table(job)["trials"]] == [0, 1, 2, 3]
    assert table(job)["trials"][:3] == before["trials"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"epochs": "2"}, "its epochs was 1 and is now 2"),
        ({"search_space": "learning_rate=0.5..1"}, f"its search_space was {SPACE} and is now learning_rate=0.5..1"),
    ],
)
def test_a_record_of_other_settings_is_refused(job, other, said):
    colours(job)
    settings = {"trials": "2", "search_space": SPACE, "epochs": "1"}
    job.configure(**settings)
    job.main()
    shutil.rmtree(job.base / "model")
    job.configure(**(settings | other))
    assert f"holds checkpoints of another job, {said}: give" in job.fail()


def test_a_trial_that_diverges_is_marked_and_the_search_goes_on(job, capsys):
    colours(job)
    job.configure(trials="6", search="grid", search_space="learning_rate=0.01,10 weight_decay=0,0.5,1", epochs="40")
    job.main()
    states = {tuple(row["hyperparameters"].values()): row for row in table(job)["trials"]}
    assert len(states) == 6, "a grid has every point once"
    assert states[10, 1]["state"] == "failed"
    assert states[10, 1]["reason"].startswith("the loss is NaN or infinite in epoch ")
    assert states[10, 1]["value"] is None
    assert states[0.01, 0]["state"] == "complete"
    assert re.search(
        r"^trial=\d state=failed .*weight_decay=1 \(the loss is NaN or infinite", capsys.readouterr().out, re.M
    )
    assert artifact.read_manifest(job.base / "model").metrics["validation:accuracy"] == 1.0


def test_where_every_trial_fails_so_does_the_job_with_the_first_ones_reason(job):
    colours(job)
    job.configure(trials="2", search="grid", search_space="weight_decay=0.9,1", learning_rate="10", epochs="60")
    said = job.fail()
    assert said.startswith("none of 2 trials came to an end, the first because the loss is NaN or infinite in epoch")
    assert said.endswith("narrow search_space")
    assert [row["state"] for row in table(job)["trials"]] == ["failed", "failed"]


def test_trials_that_come_out_equal_run_once(job, capsys):
    colours(job)
    job.configure(trials="3", search="grid", search_space="batch_size=8,24,64", epochs="2")  # 24 photos
    job.main()
    rows = {row["hyperparameters"]["batch_size"]: row for row in table(job)["trials"]}
    twin, other = sorted((rows[24], rows[64]), key=lambda row: row["state"] == "same", reverse=True)
    assert (twin["state"], twin["same_as"]) == ("same", other["number"])
    assert twin["value"] == other["value"]
    assert rows[8]["state"] == other["state"] == "complete"
    assert "come out equal to trial" in capsys.readouterr().out


def test_a_search_may_choose_the_solver_and_its_l2(job, capsys):
    """Trials of L-BFGS that differ only in what SGD has a use for are one."""
    colours(job)
    job.configure(strategy="probe", trials="8", search="grid", search_space="solver=lbfgs,sgd l2=0.001,1 epochs=1,3")
    job.main()
    assert "best trial: " in capsys.readouterr().out
    rows = table(job)["trials"]
    states = [(row["hyperparameters"]["solver"], row["state"]) for row in rows]
    solved = [("lbfgs", "complete"), ("lbfgs", "complete"), ("lbfgs", "same"), ("lbfgs", "same")]
    assert sorted(states)[:4] == solved
    assert {state for solver, state in states if solver == "sgd"} == {"complete"}


def test_tpe_learns_from_earlier_trials(job):
    """Half of the space is hopeless; of the trials after the random ones most are in the other half."""
    colours(job)
    job.configure(trials="24", search="tpe", search_space="learning_rate=1e-8..0.1", epochs="2")
    job.main()
    rates = [row["hyperparameters"]["learning_rate"] for row in table(job)["trials"]]
    good = [rate > 3e-5 for rate in rates]
    assert sum(good[10:]) / 14 > max(0.6, sum(good[:10]) / 10)


def test_a_fine_tune_that_falls_behind_is_cut_short_by_successive_halving(job, capsys):
    colours(job)
    job.configure(
        **{**FINETUNE, "learning_rate": "0.05"},
        trials="5",
        search="grid",
        search_space="learning_rate=0.05,1e-8,2e-8,3e-8,4e-8",
        epochs="9",
        checkpoint_minutes="1",
    )
    job.main()
    found = table(job)
    pruned = [row for row in found["trials"] if row["state"] == "pruned"]
    assert pruned, "none was cut short"
    assert all(row["reason"].startswith("successive halving: not among the best after") for row in pruned)
    assert all(len(row["curve"]) < 9 for row in pruned)
    best = found["trials"][found["best"]]
    assert best["hyperparameters"]["learning_rate"] == 0.05
    assert len(best["curve"]) == 9
    log = capsys.readouterr().out
    assert "resumed from a checkpoint: finetune, epoch 10, step 0" in log, "the best trial was trained twice"
    assert [path.name for path in (job.base / "checkpoints").glob("trial-*")] == [f"trial-{found['best']:04d}"]
    assert artifact.read_manifest(job.base / "model").metrics["validation:accuracy"] == best["value"]


def test_a_search_of_probe_then_finetune_extracts_the_features_once(job, capsys):
    colours(job)
    job.configure(
        trials="2", search_space="learning_rate", strategy="probe-then-finetune", epochs="2", probe_epochs="2"
    )
    job.main()
    log = capsys.readouterr().out
    assert [row["stage"] for row in table(job)["trials"][1]["curve"]][:3] == ["probe", "probe", "finetune"]
    assert re.search(r"^trial=1 epoch=3 stage=finetune ", log, re.MULTILINE)
    assert len(list((job.base / "checkpoints").rglob("features-*.pt"))) == 2, "of training and of validation"


def test_a_time_budget_ends_the_search_with_the_best_so_far(job):
    colours(job)
    job.configure(**FINETUNE, trials="500", search_space=SPACE, epochs="2", time_budget="0.02")
    job.main()
    rows = table(job)["trials"]
    assert 1 <= len(rows) < 100
    assert rows[-1]["reason"].startswith(("time_budget=0.02 is over", "successive halving")) or not rows[-1]["reason"]
    assert artifact.read_manifest(job.base / "model").class_names == ("green", "red")


def test_a_search_that_is_stopped_before_its_first_trial_is_no_hindrance_to_the_next_start(job):
    colours(job)
    job.configure(**FINETUNE, trials="2", search="grid", search_space="learning_rate=0.03,0.04", epochs="1")
    code, log, _ = job.run_until("backbone: ")
    assert code == 0, log
    assert artifact.read_manifest(job.base / "model").hyperparameters["learning_rate"] == 0.02
    shutil.rmtree(job.base / "model")
    job.main()
    assert [row["state"] for row in table(job)["trials"]] == ["complete", "complete"]
    assert artifact.read_manifest(job.base / "model").hyperparameters["learning_rate"] in (0.03, 0.04)


@pytest.mark.parametrize("beginning", ["hyperparameters: ", "trial=1 epoch=2 "])
def test_a_stopped_search_leaves_a_model_and_a_start_goes_on(job, beginning):
    colours(job)
    job.configure(**FINETUNE, trials="60", search_space=SPACE, epochs="4")
    code, log, seconds = job.run_until(beginning)
    assert code == 0, log
    assert seconds < 60
    assert artifact.read_manifest(job.base / "model").class_names == ("green", "red")
    begun = len(re.findall(r"^trial=\d+ state=", log, re.MULTILINE))
    assert begun < 10
    if beginning.startswith("trial"):
        with job.start() as again:
            for line in again.stdout:
                if line.startswith(("resumed a search: ", "trial=")):
                    break
            again.kill()
        assert line == "resumed a search: 1 of 60 trials are done\n"


class Hungry(torch.nn.Module):
    """A network that asks for a petabyte as soon as it trains on many photos at once."""

    def forward(self, photos):
        if self.training and len(photos) > 4:
            torch.empty(2**50)
        return photos.mean((2, 3))


def test_a_trial_that_runs_out_of_memory_is_marked_and_the_search_goes_on(job, tmp_path):
    colours(job)
    found = image_folder.find(job.data)
    channels = image_folder.label(found, {split: set(classes) for split, classes in found.folders.items()})
    row = Preprocessing(image_size=32, resize=36)
    hp = Hyperparameters(strategy="finetune", trials=2, search="grid", epochs=2, batch_size=4, image_size=32)
    context = Context(hp, device.choose(""), root=job.data)
    splits = Splits.decode(channels, frozenset(), row, context, print)
    classifier = Classifier(Backbone("hungry", "test", Hungry(), 3, row, "random"), 2)
    checkpoints = Checkpoints(tmp_path / "checkpoints", {})
    made = Training(classifier, splits, context, checkpoints, "key", False, lambda *_: None)
    search = Search(made, {"batch_size": Tuning(values=(4, 8))}, {}, tmp_path, tmp_path / "out", Tracker())
    ended, trained, tried = search.run()
    states = {row["hyperparameters"]["batch_size"]: row for row in tried["trials"]}
    assert states[8]["state"] == "failed"
    assert states[8]["reason"].startswith("out of memory at test_search.py:")
    assert states[4]["state"] == "complete"
    assert ended.context.hp.batch_size == 4
    assert trained.best.state
