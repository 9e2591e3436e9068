"""smdebug's hook in our loop, and its folders: real smdebug, real torch, on the CPU."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kennel.errors import UserError
from kennel.layout import Layout
from kennel_train.debug.smdebug import job_hook, offline
from kennel_train.debug.smdebug.job_hook import JobHook
from kennel_train.debug.smdebug.reader import TensorFolder
from kennel_train.debug.smdebug.stage_callback import LOSS
from kennel_train.distributed.cluster import Cluster
from kennel_train.measure.callbacks import Callback

EVERY = {"save_interval": "1"}
AWS = {  # https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-createtrainingjob-api.html, steps fewer
    "LocalPath": "/opt/ml/output/tensors",
    "S3OutputPath": "s3://bucket/prefix",
    "HookParameters": {"save_interval": "2", "include_regex": "relu_input|head_output", "train.end_step": "6"},
    "CollectionConfigurations": [
        {
            "CollectionName": "gradients",
            "CollectionParameters": {"train.save_interval": "3", "eval.save_interval": "50"},
        },
        {"CollectionName": "weights", "CollectionParameters": {"reductions": "mean,abs_max,l2_norm"}},
        {"CollectionName": "losses", "CollectionParameters": {"train.save_interval": "1", "eval.save_interval": "1"}},
        {"CollectionName": "biases", "CollectionParameters": None},
    ],
}


def hooked(
    layout: Layout, config: dict[str, Any] | None = None, strict: bool = True, cluster: Cluster | None = None
) -> JobHook | None:
    path = layout.config / "debughookconfig.json"
    if config is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))
    asked = path if config is not None else None
    return job_hook.open(asked, layout, cluster=cluster or Cluster(), strict=strict)


@contextmanager
def opened(layout: Layout, config: dict[str, Any] | None = None, strict: bool = True) -> Iterator[JobHook]:
    hook = hooked(layout, config, strict)
    assert hook is not None
    try:
        yield hook
    finally:
        hook.close()


def collections(*names: str, **parameters: Any) -> dict[str, Any]:
    return {
        "HookParameters": {**EVERY, **parameters},
        "CollectionConfigurations": [{"CollectionName": n} for n in names],
    }


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


def photos(seed: int, count: int = 4) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 6, 6, generator=made), torch.randint(0, 2, (count,), generator=made)


def train(
    module: nn.Module, watch: Callback, steps: range, micro: int = 1, autocast: bool = False
) -> dict[int, dict[str, Any]]:
    """As our loop does it; by step what was before it, what the optimizer used and the loss."""
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)
    seen = {}
    for step in steps:
        weights = {n: p.detach().clone() for n, p in module.named_parameters()}
        watch.begin(step)
        optimizer.zero_grad()
        sums = torch.zeros(2)
        for part in range(micro):
            inputs, labels = photos(100 * step + part)
            watch.lap("data wait")
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = module(inputs)
            logits = logits["logits"] if isinstance(logits, dict) else logits
            loss = cross_entropy(logits.float(), labels, reduction="sum")
            watch.lap("forward")
            loss.backward()
            watch.lap("backward")
            watch.batch(logits.detach(), labels)
            sums += torch.tensor([loss.item(), len(labels)])
        torch._foreach_div_([p.grad for p in module.parameters() if p.grad is not None], sums[1])
        nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        watch.lap("other")
        gradients = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        optimizer.step()
        watch.lap("optimizer")
        watch.end(sums)
        seen[step] = {"weights": weights, "gradients": gradients, "loss": sums[0] / sums[1]}
    return seen


def evaluate(watch: Callback, *batches: list[float]) -> None:
    with watch.evaluating(), torch.inference_mode():
        for losses in batches:
            watch.evaluated(torch.tensor(losses))


def trial(layout: Layout) -> Any:
    return TensorFolder(layout.base / "output" / "tensors").trial


def modes() -> Any:
    from smdebug.core.modes import ModeKeys

    return ModeKeys


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "ml")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert "SMPROFILER_CONFIG_PATH" not in os.environ or not Path(os.environ["SMPROFILER_CONFIG_PATH"]).exists()


def test_tensors_are_those_of_the_training_to_the_bit(layout: Layout) -> None:
    net = Net()
    with opened(layout, collections("weights", "biases", "gradients", "losses")) as hook:
        watch = hook.stage(net)
        seen = train(net, watch, range(3), micro=3)
        watch.close()
    found, mode = trial(layout), modes().TRAIN
    assert found.steps(mode) == [0, 1, 2]
    for step, had in seen.items():
        for name, weight in had["weights"].items():
            np.testing.assert_array_equal(found.tensor(f"Net_{name}").value(step, mode), weight.numpy())
        for name, gradient in had["gradients"].items():
            np.testing.assert_array_equal(found.tensor(f"gradient/Net_{name}").value(step, mode), gradient.numpy())
        assert found.tensor(LOSS).value(step, mode) == had["loss"].numpy()


def test_a_configuration_of_aws_is_honoured(layout: Layout) -> None:
    net = Net()
    with opened(layout, AWS) as hook:
        watch = hook.stage(net)
        for epoch in range(2):
            seen = train(net, watch, range(4 * epoch, 4 * epoch + 4))
            evaluate(watch, [1.0, 2.0], [3.0])
        watch.close()
    found, keys = trial(layout), modes()
    assert found.tensor("gradient/Net_head.weight").steps(keys.TRAIN) == [0, 3]  # end_step 6 is not in
    assert found.tensor("Net_head.bias").steps(keys.TRAIN) == [0, 2, 4]
    assert found.tensor(LOSS).steps(keys.TRAIN) == [0, 1, 2, 3, 4, 5]
    assert found.tensor(LOSS).steps(keys.EVAL) == [0, 1, 2, 3]
    assert [float(found.tensor(LOSS).value(s, keys.EVAL)) for s in range(4)] == [1.5, 3.0, 1.5, 3.0]
    assert found.tensor("relu_input_0").steps(keys.TRAIN) == [0, 2, 4]
    saved = found.tensor("Net_conv.weight").reduction_values(4, keys.TRAIN)
    weight = seen[4]["weights"]["conv.weight"]
    assert saved[("max", True)] == weight.abs().max().numpy()
    assert saved[("mean", False)] == weight.mean().numpy()
    np.testing.assert_allclose(saved[("l2", False)], weight.norm().numpy(), rtol=1e-6)
    assert "conv_output_0" not in found.tensor_names()


def test_inputs_and_outputs_are_the_first_micro_batchs_even_where_a_module_works_in_place(layout: Layout) -> None:
    net = Net()
    first = photos(0)[0]
    before = net.conv(first).detach()
    with opened(layout, collections("losses", include_regex="relu_,predictions,labels")) as hook:
        watch = hook.stage(net)
        train(net, watch, range(1), micro=3)
        watch.close()
    found = trial(layout)
    np.testing.assert_allclose(found.tensor("relu_input_0").value(0), before.numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.tensor("relu_output_0").value(0), before.clamp(min=0).numpy(), rtol=1e-6)
    assert "relu_input_1" not in found.tensor_names(), "a later micro-batch was saved too"
    np.testing.assert_array_equal(found.tensor("labels").value(0), photos(0)[1].numpy())
    assert found.tensor("predictions").value(0).shape == (4, 2)


def test_without_a_configuration_every_hundredth_step_is_saved(layout: Layout) -> None:
    net = nn.Linear(4, 2)
    with opened(layout) as hook:
        assert hook.folder == layout.base / "output" / "tensors"
        watch = hook.stage(net)
        for step in range(201):
            watch.begin(step)
            net(torch.ones(1, 4)).sum().backward()
            watch.batch(torch.ones(1, 2), torch.zeros(1))
            watch.end(torch.tensor([3.0, 2.0]))
    found, mode = trial(layout), modes().TRAIN
    assert found.steps(mode) == [0, 100, 200]
    assert {"Linear_weight", "gradient/Linear_weight", LOSS} <= set(found.tensor_names())
    assert found.tensor(LOSS).value(100, mode) == np.float32(1.5)


def test_a_job_that_is_taken_up_again_counts_on_and_takes_back_what_comes_again(layout: Layout) -> None:
    net, config = Net(), collections("losses", "weights")
    with opened(layout, config) as hook:
        watch = hook.stage(net)
        train(net, watch, range(5))
        evaluate(watch, [1.0], [2.0])
        train(net, watch, range(5, 12))
    with opened(layout, config) as hook:
        again = train(net, hook.stage(net), range(7, 10))
        evaluate(hook.stage(net), [3.0])
    found, keys = trial(layout), modes()
    assert found.steps(keys.TRAIN) == list(range(10))
    assert found.steps(keys.EVAL) == [0, 1, 2]
    assert found.steps() == list(range(13))
    for step, had in again.items():
        value = found.tensor("Net_head.weight").value(step, keys.TRAIN)
        np.testing.assert_array_equal(value, had["weights"]["head.weight"].numpy())


def test_a_job_in_a_new_container_does_not_reuse_the_file_names_of_its_first(layout: Layout) -> None:
    with opened(layout, collections("losses")) as hook:
        net = Net()
        train(net, hook.stage(net), range(37, 39))
    found = trial(layout)
    assert found.steps(modes().TRAIN) == [37, 38]
    assert min(found.steps()) > 10**9


def test_a_fresh_job_begins_with_a_clean_folder_and_leaves_a_users_files(layout: Layout) -> None:
    own = layout.base / "output" / "tensors" / "notes.txt"
    for steps in (5, 2):
        with opened(layout, collections("losses", "weights")) as hook:
            net = Net()
            train(net, hook.stage(net), range(steps))
        own.write_text("mine")
    assert trial(layout).steps() == [0, 1]
    assert own.exists()
    assert not list(own.parent.rglob("000000000004*"))


def test_stages_share_a_folder_and_count_on(layout: Layout) -> None:
    net = Net()
    with opened(layout, collections("weights", "losses")) as hook:
        probe = hook.stage(net.head)
        probe.begin(0)
        probe.end(torch.ones(2))
        probe.close()
        whole = hook.stage(net)
        train(net, whole, range(5, 7))  # the probe ended early
        whole.close()
    found, mode = trial(layout), modes().TRAIN
    assert found.tensor("Linear_weight").steps(mode) == [0]
    assert found.tensor("Net_head.weight").steps(mode) == [5, 6]


def test_frozen_layers_have_weights_and_no_gradients(layout: Layout) -> None:
    net = Net()
    net.conv.requires_grad_(False)
    with opened(layout, collections("weights", "gradients", "losses")) as hook:
        train(net, hook.stage(net), range(2))
    names = trial(layout).tensor_names()
    assert "Net_conv.weight" in names
    assert "gradient/Net_head.weight" in names
    assert "gradient/Net_conv.weight" not in names


class Odd(nn.Module):
    """Gives out, and takes in, what networks now and then do."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor | None]:
        left, nothing, [inner], empty = self.pair(x.to(memory_format=torch.channels_last), more=x[:, :, ::2])
        assert nothing is None
        return {"logits": self.head(left[:, :, 0, :4].flatten(1)[:, :8] + inner), "aux": empty}


class Pair(nn.Module):
    def forward(self, x: Tensor, more: Tensor) -> Any:
        return x[..., ::1], None, [more.flatten(1)[:, :8].T.T], x[:0]


def test_save_all_takes_whatever_modules_give(layout: Layout) -> None:
    config = {
        "HookParameters": {**EVERY, "save_all": "true", "reductions": "min,max,mean,std,variance,l1_norm,abs_l2_norm"}
    }
    net = Odd().to(torch.bfloat16)
    config["HookParameters"]["save_raw_tensor"] = True
    with opened(layout, config) as hook:
        watch = hook.stage(net)
        for step in range(2):
            watch.begin(step)
            out = net(photos(step)[0].bfloat16())
            out["logits"].float().sum().backward()
            watch.batch(out["logits"], torch.ones(4, dtype=torch.int64))
            watch.end(torch.ones(2))
        watch.close()
    found = trial(layout)
    assert found.steps() == [0, 1]
    assert found.tensor("pair_input_1").value(1).shape == (4, 3, 3, 6)
    weight = found.tensor("Odd_head.weight").value(1)
    np.testing.assert_array_equal(weight, net.head.weight.detach().float().numpy())
    assert found.tensor("labels").reduction_values(0)[("mean", False)] == 1


def test_everything_under_bf16_autocast(layout: Layout) -> None:
    net = Net()
    with opened(layout, {"HookParameters": {**EVERY, "save_all": "true"}}) as hook:
        train(net, hook.stage(net), range(2), autocast=True)
    found = trial(layout)
    assert found.tensor("conv_output_0").value(1).dtype == np.float32
    assert found.tensor("head_output_0").value(0).shape == (4, 2)


def test_a_compiled_module_is_left_out_with_a_warning(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    net.conv.compile(backend="eager")
    with (
        opened(layout, {"HookParameters": {**EVERY, "save_all": "true"}}) as hook,
        caplog.at_level("WARNING", "kennel"),
    ):
        train(net, hook.stage(net), range(2))
    assert [r.getMessage() for r in caplog.records].count(
        "warning: smdebug saves no inputs and outputs of compiled modules: conv"
    ) == 1
    names = trial(layout).tensor_names()
    assert "relu_input_0" in names
    assert "conv_output_0" not in names
    assert "Net_conv.weight" in names


def test_nothing_is_left_on_the_module(layout: Layout) -> None:
    net = Net()
    before = {name: dict(vars(inner)) for name, inner in net.named_modules()}
    with opened(layout, {"HookParameters": {**EVERY, "save_all": "true"}}) as hook:
        watch = hook.stage(net)
        train(net, watch, range(2))
        watch.begin(2)
        assert net.conv._forward_hooks, "the step was to be listened to"
        watch.close()  # a stage that fails in the middle of a step
        for name, inner in net.named_modules():
            assert vars(inner).keys() == before[name].keys()
            assert not inner._forward_hooks
            assert not inner._forward_pre_hooks
    assert not any(parameter._backward_hooks for parameter in net.parameters())


def broken(layout: Layout) -> Callable[[], None]:
    """Makes the folder one that nothing can be written to."""

    def act() -> None:
        shutil.rmtree(layout.base / "output" / "tensors" / "events")
        (layout.base / "output" / "tensors" / "events").write_text("in the way")

    return act


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of smdebug's file that was never open
def test_an_error_turns_the_hook_off_and_the_training_goes_on(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    with opened(layout, {"HookParameters": {**EVERY, "save_all": "true"}}, strict=False) as hook:
        watch = hook.stage(net)
        train(net, watch, range(2))
        broken(layout)()
        with caplog.at_level("WARNING", "kennel"):
            train(net, watch, range(2, 5))
            evaluate(watch, [1.0])
        assert hook.folder is None
        watch.close()
    said = [record.getMessage() for record in caplog.records if record.name == "kennel"]
    assert len(said) == 1
    assert said[0].startswith("warning: smdebug's hook failed (")
    assert not net.conv._forward_hooks
    assert not net.relu._forward_pre_hooks


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_strict_an_error_ends_the_job_with_a_sentence(layout: Layout) -> None:
    net = Net()
    with opened(layout, collections("losses", "weights")) as hook:
        watch = hook.stage(net)
        train(net, watch, range(1))
        broken(layout)()
        with pytest.raises(UserError, match=r"smdebug's hook failed \(.*debug_strict=false"):
            train(net, watch, range(1, 2))


@pytest.mark.parametrize(
    "config",
    [
        {"HookParameters": {"save_interval": "often"}},
        {"CollectionConfigurations": [{"CollectionName": "mine"}]},
        {"CollectionConfigurations": [{"CollectionParameters": {}}]},
        ["no object"],
    ],
)
def test_a_configuration_that_smdebug_cannot_use(layout: Layout, config: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert hooked(layout, config, strict=False) is None
    assert "warning: smdebug's hook failed" in caplog.text
    with pytest.raises(UserError, match=r"fix input/config/debughookconfig\.json"):
        hooked(layout, config)


def test_only_the_first_rank_writes_unless_all_are_asked_for(layout: Layout) -> None:
    second = Cluster(rank=1, world=2)
    assert hooked(layout, collections("losses"), cluster=second) is None
    hook = hooked(layout, collections("losses", include_workers="all"), cluster=second)
    assert hook is not None
    hook.close()


RANK = """
import sys, torch, torch.distributed as dist
from pathlib import Path
from torch import nn
from kennel.layout import Layout
from kennel_train.debug.smdebug import job_hook
from kennel_train.distributed.cluster import Cluster

base, rank = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{base}/meeting", rank=rank, world_size=2)
layout = Layout(base)
config = layout.config / "debughookconfig.json"
hook = job_hook.open(config, layout, cluster=Cluster(rank, 2, rank, 2), strict=True)
net = nn.Linear(1, 1)
nn.init.constant_(net.weight, rank)
watch = hook.stage(net)
for step in range(2):
    watch.begin(step)
    watch.end(torch.ones(2))
watch.close()
hook.close()
dist.barrier()
dist.destroy_process_group()
"""


def test_every_rank_writes_its_own_tensors_where_all_are_asked_for(layout: Layout) -> None:
    asked = collections("weights", "losses", include_workers="all")
    with opened(layout, asked) as hook:  # an earlier job, of one
        net = Net()
        train(net, hook.stage(net), range(4))
    command = [sys.executable, "-W", "error::UserWarning", "-c", RANK, str(layout.base)]
    ranks = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    found = trial(layout)
    assert found.workers() == ["worker_0", "worker_1"]
    assert found.steps() == [0, 1]
    for rank in range(2):
        assert found.tensor("Linear_weight").value(1, worker=f"worker_{rank}") == rank


def test_tensorboard_files_are_written_where_asked_for(layout: Layout) -> None:
    config = collections("weights", "losses", export_tensorboard="true")
    config["HookParameters"]["tensorboard_dir"] = "/opt/ml/output/tensorboard"
    with opened(layout, config) as hook:
        net = Net()
        train(net, hook.stage(net), range(2))
    assert list((layout.base / "output" / "tensorboard").rglob("*tfevents*"))


def test_a_profiler_configuration_gives_a_timeline_and_is_not_evaluated(layout: Layout, tmp_path: Path) -> None:
    layout.config.mkdir(parents=True)
    mark = tmp_path / "evaluated"
    parameters = {
        "LocalPath": "/opt/ml/output/Profiler",
        "DetailedProfilingConfig": '{"StartStep": 0, "NumSteps": 3}',
        "PythonProfilingConfig": f"__import__('pathlib').Path('{mark}').touch() or {{}}",
    }
    (layout.config / "profilerconfig.json").write_text(json.dumps({"ProfilingParameters": parameters}))
    net = Net()
    with opened(layout, collections("losses")) as hook:
        train(net, hook.stage(net), range(3))
    files = list((layout.base / "output" / "Profiler").rglob("*pythontimeline.json"))
    assert len(files) == 1
    events = json.loads(files[0].read_text())
    assert [e["args"]["step_num"] for e in events if e.get("name") == "forward"] == ["0", "1", "2"]
    assert not mark.exists()


def test_a_folder_becomes_a_series(layout: Layout) -> None:
    net = Net()
    config = collections("weights", "gradients", "losses", include_regex="relu_input,labels,predictions")
    with opened(layout, config) as hook:
        watch = hook.stage(net)
        seen = train(net, watch, range(12))
        evaluate(watch, [1.0, 2.0], [3.0, 4.0])
        seen |= train(net, watch, range(12, 14))
        evaluate(watch, [5.0])
    series = offline.read(layout.base / "output" / "tensors")
    assert series.loss.steps == list(range(14))
    assert series.loss.values == [float(had["loss"]) for had in seen.values()]
    gradient = seen[13]["gradients"]["conv.weight"].double()
    assert series.gradients["Net_conv.weight"].norm.values[13] == pytest.approx(float(gradient.norm()))
    assert series.gradients["Net_conv.weight"].mean_abs.values[13] == pytest.approx(float(gradient.abs().mean()))
    assert series.weights.keys() == {"Net_conv.weight", "Net_head.weight"}
    low, high = np.percentile(seen[0]["gradients"]["conv.weight"].numpy(), [5, 95])
    assert series.gradient_spread["Net_conv.weight"].values[0] == pytest.approx(high - low, rel=1e-5)
    assert series.gradient_spread["Net_conv.weight"].steps == list(range(10))
    assert series.activation_variance["relu"].steps == list(range(10))
    rows = [(row.step, row.validation_loss, row.error) for row in series.evaluated]
    assert rows == [(11, pytest.approx(2.5), pytest.approx(1.0)), (13, 5.0, 0.0)]
    means = [np.mean([float(seen[s]["loss"]) for s in steps]) for steps in (range(12), range(12, 14))]
    assert [row.train_loss for row in series.evaluated] == pytest.approx(means)
    assert series.seen is not None
    assert series.seen.photos.sum() == 14 * 4
    assert series.seen.step == 13


def test_evaluations_are_told_apart_where_no_training_step_between_them_was_saved(layout: Layout) -> None:
    config = {
        "HookParameters": {"train.save_interval": "100", "eval.save_interval": "2"},
        "CollectionConfigurations": [{"CollectionName": "losses"}],
    }
    net = Net()
    with opened(layout, config) as hook:
        watch = hook.stage(net)
        train(net, watch, range(2))
        evaluate(watch, [1.0], [7.0], [3.0], [7.0])
        train(net, watch, range(2, 4))
        evaluate(watch, [5.0], [7.0], [6.0], [7.0])
    found = offline.read(layout.base / "output" / "tensors").evaluated
    assert [row.validation_loss for row in found] == [2.0, 5.5]


def test_saved_reductions_alone_are_enough(layout: Layout) -> None:
    config = collections("gradients", "losses", reductions="abs_mean,l2_norm,max")
    net = Net()
    with opened(layout, config) as hook:
        seen = train(net, hook.stage(net), range(3))
    gradients = offline.read(layout.base / "output" / "tensors").gradients
    gradient = seen[2]["gradients"]["head.weight"]
    assert gradients["Net_head.weight"].mean_abs.values[2] == pytest.approx(float(gradient.abs().mean()), rel=1e-6)
    assert gradients["Net_head.weight"].norm.values[2] == pytest.approx(float(gradient.norm()), rel=1e-6)


SCRIPT = """
import os
import smdebug.pytorch as smd
import torch
from torch import nn

hook = {make}
torch.manual_seed(0)
net, criterion = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), nn.CrossEntropyLoss()
hook.register_module(net)
hook.register_loss(criterion)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(3):
    optimizer.zero_grad()
    criterion(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    optimizer.step()
torch.save(net.state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "net.pt"))
"""


@pytest.mark.parametrize("make", ["smd.Hook.create_from_json_file()", "smd.get_hook(create_if_not_exists=True)"])
def test_a_users_script_gets_its_hook_and_its_folder_is_read(job: Any, tmp_path: Path, make: str) -> None:
    source, config, tensors = job.base / "input" / "source", job.base / "input" / "config", tmp_path / "tensors"
    source.mkdir()
    (source / "mine.py").write_text(SCRIPT.format(make=make))
    sent = {"sagemaker_program": '"mine.py"', "sagemaker_submit_directory": json.dumps(str(source))}
    (config / "hyperparameters.json").write_text(json.dumps(sent))
    asked = {"LocalPath": str(tensors), "HookParameters": {**EVERY, "save_all": "true"}}
    (config / "debughookconfig.json").write_text(json.dumps(asked))
    job.environ |= {"USE_SMDEBUG": "0"}  # as the image has it
    code, log = job.run()
    assert code == 0, log
    series = offline.read(tensors)
    assert series.loss.steps == [0, 1, 2]
    assert series.loss.values[2] < series.loss.values[0]
    assert (
        series.gradients.keys()
        == series.weights.keys()
        == {f"Sequential_{at}.{p}" for at in "02" for p in ("weight", "bias")}
    )
    assert series.activation_variance.keys() >= {"0", "1", "2"}
    assert series.evaluated == []


def bad(folder: Path, kind: str) -> Path:
    listed = folder / "collections" / "000000000" / "worker_0_collections.json"
    if kind == "none":
        return folder / "absent"
    listed.parent.mkdir(parents=True)
    if kind == "workers":
        listed.write_text('{"_meta": {"num_workers": 2}, "collections": {}}')
    elif kind == "steps":
        listed.write_text('{"_meta": {"num_workers": 1}, "collections": {}}')
    elif kind == "text":
        listed.write_text("[]")
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("none", "is no folder"),
        ("empty", "holds no collections"),
        ("workers", "of 1 of 2 workers"),
        ("text", "is no list of collections"),
        ("steps", "holds no step"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        offline.read(bad(tmp_path, kind))


def diverging(layout: Layout) -> Path:
    """The folder of a training whose weights become no numbers."""
    with opened(layout, collections("losses", "gradients", "weights")) as hook:
        net = Net()
        watch = hook.stage(net)
        train(net, watch, range(3))
        nn.init.constant_(net.head.weight, float("nan"))
        train(net, watch, range(3, 6))
    return layout.base / "output" / "tensors"


def test_the_command_tells_what_fires(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(diverging(layout))
    assert offline.main([folder, "--rules", "exploding_tensor"]) == 1
    assert capsys.readouterr().out.startswith("rule exploding_tensor: ")
    assert offline.main([folder, "--json"]) == 1
    assert "exploding_tensor" in [row["rule"] for row in json.loads(capsys.readouterr().out)]


def test_the_command_tells_that_nothing_fires_and_what_it_cannot_use(
    layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(layout, collections("losses", "gradients")) as hook:
        net = Net()
        train(net, hook.stage(net), range(3))
    folder = str(layout.base / "output" / "tensors")
    assert offline.main([folder, "--rules", "exploding_tensor"]) == 0
    assert capsys.readouterr().out == "no rule fires\n"
    assert offline.main([str(tmp_path / "absent")]) == 2
    assert offline.main([folder, "--rules", "no_such_rule"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_private_names_that_are_used_exist():
    """And no other is used: what a later smdebug lacks is seen here."""
    from kennel_train.debug import smdebug
    from kennel_train.debug.smdebug import step_hook

    assert [name for name in smdebug.PRIVATE if not callable(getattr(step_hook.Hook, name, None))] == []
    assert "__wrapped__" in vars(step_hook.Hook.__init__)
    used = set(re.findall(r"(?:self|super\(\)|Hook)\.(_[a-z]\w+)", Path(step_hook.__file__).read_text()))
    assert used - {"_at"} == set(smdebug.PRIVATE)
