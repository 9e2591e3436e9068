"""Real trainings made to go wrong, and what the job says of it: in its log at once, in its report, by ending."""

import io
import json
import logging
import shutil
import time

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from kennel import artifact
from kennel.hyperparameters import Hyperparameters
from kennel_train.context import Context
from kennel_train.debug.debugger import Debugger
from kennel_train.debug.rules import table
from kennel_train.debug.rules.table import Chosen, Rule
from kennel_train.distributed import device
from kennel_train.engine import loop
from kennel_train.engine.progress import LoopCallbacks, StagePlan
from kennel_train.measure.callbacks import NO_CALLBACK, Callback
from kennel_train.measure.formatting import percent
from kennel_train.measure.machine_sampler import Sampler

from ..small_network import Net, Sleepy, painted

HOOK = """
import gc, sys, torch

def on_epoch_end(epoch, metrics):
    ours = [o for o in gc.get_objects() if isinstance(o, torch.nn.Module)
            and not isinstance(o, torch.fx.GraphModule)]  # torch.export keeps what it traced, with hooks of its own
    hooked = [type(o).__name__ for o in ours
              if (o._forward_hooks or o._forward_pre_hooks or o._backward_hooks or o._backward_pre_hooks)]
    open("seen.txt", "a").write(f"{epoch} {len(hooked)} {sorted(m for m in sys.modules if 'smdebug' in m)}\\n")
"""


def findings(job) -> dict[str, dict]:
    """What the report says fired, by rule."""
    debug = json.loads((job.base / "output" / "data" / "report.json").read_text())["debug"]
    return {row["rule"]: row for row in debug["findings"]}


@pytest.mark.slow
def test_a_learning_rate_far_too_high_explodes_and_the_failed_job_has_a_report(job, capsys):
    job.photos("train", {"red": 24, "green": 24})
    job.configure(
        strategy="finetune", learning_rate="10", backbone_learning_rate_scale="10", epochs="30", batch_size="4"
    )
    assert "lower learning_rate" in job.fail()
    found = findings(job)
    assert found["exploding_tensor"]["severity"] == "error"
    log = capsys.readouterr().out
    assert "rule exploding_tensor: " in log
    report = json.loads((job.base / "output" / "data" / "report.json").read_text())
    assert report["outcome"].startswith("failed: the loss is NaN or infinite")
    assert found["exploding_tensor"]["what"][1:] in (job.base / "output" / "data" / "report.html").read_text()


@pytest.mark.slow
def test_weights_that_are_all_zero_are_found_out(job):
    """The zeros come as pretrained weights, in a channel."""
    job.photos("train", {"red": 24, "green": 24})
    job.main()
    made = safetensors.numpy.load_file(job.base / "model" / "model.safetensors")
    names = [name for name in made if name.startswith("backbone.")]
    zeros = {name.removeprefix("backbone."): np.zeros_like(made[name]) for name in names}
    shutil.rmtree(job.base / "checkpoints")
    (job.data / "pretrained").mkdir()
    safetensors.numpy.save_file(zeros, job.data / "pretrained" / "zero.safetensors")
    job.configure(strategy="finetune", pretrained="true", epochs="4", batch_size="4")
    job.main()
    found = findings(job)
    assert {"vanishing_gradient", "poor_weight_initialization"} <= set(found)


def tagged(job, channel, count, *, tag):
    """Photos of pure noise; with a tag, a corner has the class's colour: the label leaks."""
    for number, name in enumerate(("ant", "bee")):
        for at in range(count):
            pixels = np.random.default_rng((number, at, len(channel))).integers(0, 256, (64, 64, 3)).astype(np.uint8)
            if tag:
                pixels[8:56, 8:56] = (pixels[8:56, 8:56] // 4) + 190 * number
            path = job.data / channel / name / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


@pytest.mark.slow
def test_labels_that_leak_into_the_training_photos_are_overfitted(job):
    tagged(job, "train", 40, tag=True)
    tagged(job, "validation", 60, tag=False)
    job.configure(strategy="finetune", epochs="12", batch_size="8", learning_rate="0.05")
    job.main()
    found = findings(job)
    assert "validation" in found["overfit"]["what"]


@pytest.mark.slow
def test_a_learning_rate_far_too_low_does_not_decrease_the_loss(job):
    job.photos("train", {"red": 24, "green": 24})
    job.configure(learning_rate="1e-8", epochs="30", batch_size="4")
    job.main()
    assert "loss_not_decreasing" in findings(job)


@pytest.mark.slow
def test_epochs_that_bring_nothing_are_overtraining(job):
    tagged(job, "train", 40, tag=True)
    tagged(job, "validation", 60, tag=False)
    job.configure(epochs="60", learning_rate="0.1", rules="overtraining:min_seconds=0.01")
    job.main()
    assert "patience" in findings(job)["overtraining"]["fix"]


def test_a_class_that_is_rare_is_named(job):
    job.photos("train", {"red": 60, "green": 5})
    job.configure(epochs="3")
    job.main()
    assert "green" in findings(job)["class_imbalance"]["what"]


def trained(debugger, train):
    """One stage under a debugger."""
    hp = Hyperparameters(epochs=2, batch_size=6)
    torch.manual_seed(0)
    module = Net()
    with debugger.stage(
        "finetune", module, train.device, lambda: train.waited, 20, pretrained=False, loaders=1
    ) as watch:
        hooks = LoopCallbacks(debugger.stop, lambda: False, lambda _: None, lambda *_: None, watch)
        plan = StagePlan("finetune", hp.epochs, 0, 64, torch.ones(2), False)
        loop.fit(module, train, painted(16), Context(hp, device.choose("")), plan, hooks)
    debugger.close()


def test_a_sleepy_loader_is_named_with_the_share_of_time_that_it_cost():
    debugger = Debugger(table.chosen("dataloader"), "warn", None, True, lambda _: NO_CALLBACK, print)
    trained(debugger, painted(60, Sleepy))
    (finding,) = debugger.findings.values()
    assert finding.rule == "dataloader"
    assert f"the device waited {percent(debugger.series[0].lost())} of the time for batches" in finding.fired.what


def test_a_rule_that_raises_is_dropped_and_a_watch_that_cannot_close_is_a_warning(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(logging.getLogger("kennel"), "handlers", [logging.StreamHandler(said)])

    class Full(Callback):
        def close(self):
            raise OSError("no space")

    def broken(series):
        raise ZeroDivisionError("by zero")

    rows = [Chosen(Rule("broken", "Broken", "tensors", broken, "")), *table.chosen("dataloader")]
    debugger = Debugger(rows, "warn", None, True, lambda _: Full(), print)
    trained(debugger, painted(60, Sleepy))
    assert said.getvalue().count("warning: rule broken failed and is left out from now on: ZeroDivisionError") == 1
    assert "what a watch of stage finetune still had to write is lost: OSError('no space')" in said.getvalue()
    assert debugger.rules == [finding.rule for finding in debugger.findings.values()] == ["dataloader"]


def test_steps_without_a_photo_are_no_finding():
    """Of a job that was stopped before it had seen most of its photos."""
    train = painted(6)
    train.index, train.total = train.index * 100, 600
    debugger = Debugger(table.chosen("exploding_tensor"), "warn", None, False, lambda _: NO_CALLBACK, print)
    trained(debugger, train)
    assert debugger.findings == {}
    assert len(debugger.series[0].loss.steps) == 2 * 6


@pytest.mark.slow
def test_a_training_that_stands_still_is_told_of_while_it_does(job, capsys):
    (job.base / "code").mkdir()
    (job.base / "code" / "hook.py").write_text("import time\ndef on_epoch_end(epoch, metrics): time.sleep(4)\n")
    job.photos("train")
    job.configure(
        sagemaker_program="hook.py",
        sagemaker_submit_directory=str(job.base / "code"),
        rules="stalled_training:threshold=1",
        epochs="2",
    )
    job.main()
    log = capsys.readouterr().out
    assert log.index("epoch=1 ") < log.index("rule stalled_training: ") < log.index("epoch=2 ")
    assert "stalled_training" in findings(job)


def test_one_that_stands_still_and_is_to_stop_is_given_up():
    reasons = []
    sampler = Sampler(lambda: "finetune", 0.05)
    debugger = Debugger(
        table.chosen("stalled_training:threshold=1"),
        "stop",
        sampler,
        False,
        lambda _: NO_CALLBACK,
        reasons.append,
        patience=0.5,
    )
    train = painted(8)
    with debugger.stage("finetune", Net(), train.device, lambda: train.waited, 1, pretrained=False, loaders=1) as watch:
        watch.begin(0)
        watch.end(torch.ones(2))
        limit = time.monotonic() + 30
        while not reasons and time.monotonic() < limit:
            time.sleep(0.05)
    debugger.close()
    assert reasons[0].startswith("rule stalled_training: ")


def test_a_rule_may_end_the_training(job, capsys):
    job.photos("train", {"red": 60, "green": 5})
    job.configure(epochs="10000", on_rule="stop", rules="class_imbalance")
    job.main()
    report = json.loads((job.base / "output" / "data" / "report.json").read_text())
    assert report["outcome"].startswith("stopped early: rule class_imbalance: ")
    assert len(report["epochs"]) < 10000
    assert report["debug"]["stopped_by"] == "class_imbalance"
    assert artifact.read_manifest(job.base / "model").class_names == ("green", "red")
    assert "stopping: on_rule=stop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rules": "overfitt"}, "did you mean 'overfit'?"),
        ({"rules": "overfit:patience=-1"}, "patience"),
        ({"profile_steps": "9-3"}, "profile_steps"),
        ({"on_rule": "halt"}, "write one of warn, stop"),
    ],
)
def test_settings_that_are_none_fail_before_a_photo_is_read(job, settings, said):
    job.photos("train")
    job.configure(**settings)
    assert said in job.fail()
    assert not (job.base / "output" / "data" / "audit.json").exists()


@pytest.mark.parametrize("strategy", ["probe", "finetune"])
def test_off_there_is_no_hook_and_no_smdebug(job, strategy):
    (job.base / "code").mkdir()
    (job.base / "code" / "hook.py").write_text(HOOK)
    job.photos("train", {"red": 24, "green": 24})
    off = {"rules": "none", "profile": "false", "strategy": strategy}
    job.configure(sagemaker_program="hook.py", sagemaker_submit_directory=str(job.base / "code"), batch_size="4", **off)
    code, log = job.run()
    assert code == 0, log
    assert (job.base / "seen.txt").read_text().splitlines() == ["1 0 []", "2 0 []"]
    assert json.loads((job.base / "output" / "data" / "report.json").read_text())["debug"] == {}


@pytest.mark.slow
def test_on_by_default_smdebug_is_not_imported_and_no_hook_outlives_the_first_steps(job):
    (job.base / "code").mkdir()
    (job.base / "code" / "hook.py").write_text(HOOK)
    job.photos("train", {"red": 24, "green": 24})
    where = {"sagemaker_program": "hook.py", "sagemaker_submit_directory": str(job.base / "code")}
    job.configure(batch_size="4", strategy="finetune", epochs="3", **where)
    code, log = job.run()
    assert code == 0, log
    assert (job.base / "seen.txt").read_text().splitlines()[1:] == ["2 0 []", "3 0 []"]


def test_a_trace_of_chosen_steps_is_written_and_named_in_the_report(job):
    job.photos("train", {"red": 24, "green": 24})
    job.configure(batch_size="4", strategy="finetune", profile_steps="3-4")
    job.main()
    debug = json.loads((job.base / "output" / "data" / "report.json").read_text())["debug"]
    assert (job.base / debug["trace"]).is_file()


@pytest.mark.slow
def test_a_search_watches_its_model_and_no_trial(job):
    job.photos("train", {"red": 24, "green": 24})
    job.configure(trials="2", search_space="learning_rate=0.001..0.1", strategy="finetune", epochs="1")
    job.main()
    debug = json.loads((job.base / "output" / "data" / "report.json").read_text())["debug"]
    assert [row["stage"] for row in debug["stages"]] == ["finetune"]
