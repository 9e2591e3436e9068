"""Rules: each on a series that must fire, on one that must not, and on next to nothing; choosing among them.

GPU samples are synthetic: seeded arrays with the shape of what NVML tells of such trainings, recorded nowhere.
"""

import math

import numpy as np
import pytest

from kennel.errors import UserError
from kennel_train.debug.rules import table
from kennel_train.debug.rules.findings import Fired
from kennel_train.measure.history import Curve, Evaluated, Machine, Seen, StageHistory, Tensors

# A probe on hymenoptera's 244 photos, as it was measured: training and validation loss of each epoch, in nats.
TRAIN = (0.3823, 0.1051, 0.0655, 0.0475, 0.0392, 0.0326, 0.0286, 0.0260, 0.0237, 0.0221)
TRAIN += (0.0211, 0.0203, 0.0198, 0.0191, 0.0188, 0.0185, 0.0183, 0.0182, 0.0182, 0.0182)
VALIDATION = (0.1744, 0.1257, 0.1200, 0.1185, 0.1178, 0.1172, 0.1166, 0.1167, 0.1167, 0.1169)
VALIDATION += (0.1171, 0.1173, 0.1175, 0.1176, 0.1178, 0.1178, 0.1178, 0.1179, 0.1179, 0.1179)


def curve(values, first=0, every=1):
    made = Curve()
    for at, value in enumerate(values):
        made.add(first + at * every, float(value))
    return made


def evaluations(train, validation, error=0.03, seconds=0.0, steps=8):
    """One an epoch of `steps` steps; `seconds` are of an epoch."""
    pairs = enumerate(zip(train, validation, strict=True), 1)
    return [Evaluated(steps * at - 1, t, v, error, seconds * at) for at, (t, v) in pairs]


def healthy(seed=0):
    """The probe, step by step: 8 batches an epoch, whose losses scatter around the epoch's mean."""
    rng = np.random.default_rng(seed)
    losses = np.repeat(TRAIN, 8) * rng.uniform(0.6, 1.4, 160)
    steps = range(160)
    return StageHistory(
        stage="probe",
        pretrained=True,
        class_names=("ants", "bees"),
        cores=2,
        loaders=2,
        loss=curve(losses),
        evaluated=evaluations(TRAIN, VALIDATION, seconds=0.01),
        gradients={"weight": Tensors(curve(losses / 50)), "bias": Tensors(curve(losses / 30))},
        weights={"weight": Tensors(curve([0.02] * 160)), "bias": Tensors(curve([0.01] * 160))},
        gradient_spread={"weight": curve([0.02] * 10)},
        activation_variance={"relu": curve([1.2] * 10), "layer4.relu": curve([0.05] * 10)},
        seen=Seen(np.array([123, 121]), np.array([1, 0]), 159),
        times={part: curve([0.0001 for _ in steps]) for part in ("data wait", "forward", "backward", "optimizer")},
        seconds={"data wait": 0.001, "forward": 0.1, "backward": 0.1},
        idle=0.5,
        ended=True,
        machine=Machine(at=[1.0], phase=["probe"], cpu=[80.0], memory=[900.0]),
    )


def fired(name, series, **parameters):
    """What one rule says, with parameters as a user writes them."""
    said = ",".join(f"{key}={value}" for key, value in parameters.items())
    return table.judge(table.chosen(f"{name}:{said}" if said else name), series).get(name)


@pytest.mark.parametrize("seed", range(5))
def test_no_rule_fires_on_a_healthy_training(seed):
    assert table.judge(table.chosen("all"), healthy(seed)) == {}


def test_no_rule_fires_on_it_at_any_time_while_it_runs():
    whole = healthy()
    for step in range(160):
        so_far = healthy()
        so_far.ended = False
        so_far.loss = curve(whole.loss.values[:step])
        so_far.evaluated = [row for row in whole.evaluated if row.step < step]
        assert table.judge(table.chosen("all"), so_far) == {}, step


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("value", [None, 0.7, 0.0, math.nan])
def test_next_to_nothing_is_judged_by_no_rule(value, ended):
    series = StageHistory(ended=ended, seen=Seen(np.zeros(2, np.int64), np.zeros(2, np.int64)))
    if value is not None:
        series.evaluated = [Evaluated(0, value, value if math.isfinite(value) else 0.7, value)]
        series.gradient_spread = {"a": curve([value])}
        series.times = {"data wait": curve([value])}
        series.machine = Machine([1.0], ["probe"], [value], gpu=[[value]], gpu_memory=[[value]])
        if math.isfinite(value):
            series.loss = curve([value])
            series.gradients = {"a": Tensors(curve([value]))}
    assert table.judge(table.chosen("all"), series) == {}
    assert table.judge(table.chosen("all"), StageHistory(ended=ended)) == {}


# Gradients and weights


def with_gradients(**values):
    gradients = {name.replace("_", "."): Tensors(curve(row, every=5)) for name, row in values.items()}
    return StageHistory(loss=curve([0.7] * 30), gradients=gradients)


def test_vanishing_gradient_names_layers_and_the_first_step():
    names = {f"layer{at}_weight": [0.01, 1e-9, 1e-9, 1e-9] for at in range(5)}
    found = fired("vanishing_gradient", with_gradients(**names, head_weight=[0.01] * 4))
    assert found.step == 5
    assert "5 of 6" in found.what
    assert "layer0.weight, layer1.weight, layer2.weight and 2 more" in found.what


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.01, 0.01],  # a residual branch that begins as zero
        [0.01, 0.01, 0.0],  # once
        [0.01, 0.0, 0.0, 0.01],  # and back
        [1e-6] * 4,
        [math.nan] * 4,
    ],
)
def test_vanishing_gradient_is_silent(values):
    assert fired("vanishing_gradient", with_gradients(layer1_weight=values)) is None


def test_vanishing_gradient_knows_its_parameters():
    series = with_gradients(layer1_weight=[0.01, 0.01, 1e-5])
    assert fired("vanishing_gradient", series, threshold=1e-4) is None
    assert fired("vanishing_gradient", series, threshold=1e-4, patience=1).step == 10


def test_a_bias_before_a_normalization_and_a_loss_that_has_arrived_have_small_gradients():
    assert fired("vanishing_gradient", with_gradients(conv_weight=[0.01] * 3, conv_bias=[1e-10] * 3)) is None
    arrived = with_gradients(conv_weight=[1e-9] * 3)
    assert fired("vanishing_gradient", arrived)
    arrived.loss = curve([0.0001] * 30)
    assert fired("vanishing_gradient", arrived) is None


@pytest.mark.parametrize("where", ["loss", "gradients", "weights"])
@pytest.mark.parametrize(("value", "only_nan", "fires"), [
    (math.nan, "false", True),
    (math.nan, "true", True),
    (math.inf, "false", True),
    (math.inf, "true", False),
])  # fmt: skip
def test_exploding_tensor(where, value, only_nan, fires):
    series = healthy()
    broken = curve([0.5, 0.5, value, 0.5, value], every=3)
    if where == "loss":
        series.loss = broken
    else:
        getattr(series, where)["head.weight"] = Tensors(broken)
    found = fired("exploding_tensor", series, only_nan=only_nan)
    assert bool(found) == fires
    if found:
        assert (found.step, found.severity) == (6, "error")
        assert ("the loss" if where == "loss" else "head.weight") in found.what


def test_exploding_tensor_sees_a_validation_loss_that_explodes_alone():
    series = StageHistory(
        evaluated=[Evaluated(4, 0.5, 0.6), Evaluated(9, 1e20, math.nan), Evaluated(14, 1e20, math.nan)]
    )
    assert fired("exploding_tensor", series).step == 9


def test_exploding_tensor_remembers_a_point_that_was_thinned_out():
    series = StageHistory(loss=curve([math.nan if at == 7 else 0.5 for at in range(9000)]))
    assert 7 not in series.loss.steps
    assert fired("exploding_tensor", series).step == 7
    given = Curve([3, 6, 9], [0.5, math.inf, math.nan])
    assert fired("exploding_tensor", StageHistory(loss=given)).step == 6
    assert fired("exploding_tensor", StageHistory(loss=given), only_nan="true").step == 9


def test_a_loss_that_explodes_is_all_that_the_other_rules_leave_alone():
    series = healthy()
    series.loss = curve([0.7] * 20 + [math.nan] * 140)
    series.gradients = {"weight": Tensors(curve([0.1] * 20 + [math.nan] * 140))}
    assert set(table.judge(table.chosen("all"), series)) == {"exploding_tensor"}


# Losses


def noisy(mean, spread, seed):
    mean = np.asarray(mean, np.float64)
    return StageHistory(
        class_names=("a", "b"), loss=curve(mean * (1 + spread * np.random.default_rng(seed).normal(size=len(mean))))
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("scale", [100, 300, 1000])
def test_a_loss_that_falls_slowly_under_noise_is_left_alone_at_every_length(seed, spread, scale):
    whole = noisy(0.69 * np.exp(-np.arange(1200) / scale), spread, seed)
    for length in range(20, 1200, 40):
        series = StageHistory(class_names=whole.class_names, loss=curve(whole.loss.values[:length]))
        assert fired("loss_not_decreasing", series) is None, length


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mean", [
    np.full(1200, 0.69),
    np.linspace(0.69, 1.4, 1200),
    np.tile([0.5, 0.9], 600),
    0.7 + 0.1 * np.sin(np.arange(1200)),
], ids=["flat", "rises", "alternates", "waves"])  # fmt: skip
def test_a_loss_that_does_not_fall_is_told(seed, mean):
    found = fired("loss_not_decreasing", noisy(mean, 0.05, seed))
    assert found.step % 10 == 0
    assert "does not fall" in found.what


def test_a_flat_loss_is_told_since_its_fall_ended():
    found = fired("loss_not_decreasing", noisy([*np.linspace(7, 4, 200), *[4.0] * 600], 0.01, 0))
    assert 200 <= found.step <= 400


def test_a_rise_is_told_soon_and_a_flat_loss_sooner_where_epochs_are_known():
    assert fired("loss_not_decreasing", noisy(np.linspace(0.7, 2, 80), 0.02, 0)).step == 0
    order = np.random.default_rng(0)
    photos = 0.69 + 0.2 * order.normal(size=20)  # 20 batches' losses, that come again each epoch
    series = StageHistory(loss=curve(np.concatenate([order.permutation(photos) for _ in range(10)])))
    assert fired("loss_not_decreasing", series) is None
    series.evaluated = evaluations([0.69] * 10, [0.69] * 10, steps=20)
    assert fired("loss_not_decreasing", series).step == 0


def test_a_loss_that_has_arrived_is_not_asked_to_fall():
    fell = noisy([*np.linspace(0.69, 0.3, 50), *[0.3] * 800], 0.02, 0)
    assert fired("loss_not_decreasing", fell) is None
    assert fired("loss_not_decreasing", fell, floor=90)
    second_stage = noisy([0.05] * 800, 0.02, 0)  # a fine-tune after a probe begins where that has arrived
    assert fired("loss_not_decreasing", second_stage) is None
    second_stage.class_names = ()
    assert fired("loss_not_decreasing", second_stage)


def test_loss_not_decreasing_needs_no_more_than_two_blocks_of_a_loss_that_has_left_for_good():
    names = ("ants", "bees")
    series = StageHistory(class_names=names, loss=curve([0.7, 5.0, *[900.0] * 20]))
    found = fired("loss_not_decreasing", series)
    assert (found.step, "lower learning_rate" in found.fix) == (0, True)
    assert fired("loss_not_decreasing", StageHistory(class_names=names, loss=curve([0.7] * 10 + [9e3] * 25))).step == 10
    assert not fired("loss_not_decreasing", StageHistory(class_names=names, loss=curve([900.0] * 19)))
    assert not fired("loss_not_decreasing", StageHistory(class_names=names, loss=curve([900.0] * 10 + [0.7] * 10)))
    assert not fired("loss_not_decreasing", StageHistory(class_names=names, loss=curve([6.9] * 20)))
    assert fired("loss_not_decreasing", StageHistory(class_names=names, loss=curve([6.9] * 20)), worse=9)


def test_loss_not_decreasing_knows_its_parameters():
    slow = noisy(0.69 - 0.0005 * np.arange(400), 0.001, 0)
    assert fired("loss_not_decreasing", slow) is None
    assert fired("loss_not_decreasing", slow, diff_percent=5, num_steps=4)  # 0.3% each 4 steps
    series = StageHistory(loss=curve([0.69] * 30), evaluated=evaluations([0.1] * 40, [0.69] * 40))
    assert fired("loss_not_decreasing", series) is None
    assert "validation" in fired("loss_not_decreasing", series, mode="EVAL", num_steps=2).what


def test_a_curve_that_was_thinned_is_judged_as_a_whole_one():
    whole = noisy(np.full(9000, 0.69), 0.05, 0)
    assert len(whole.loss.steps) < 4096
    assert fired("loss_not_decreasing", whole)
    assert fired("loss_not_decreasing", noisy(0.69 * np.linspace(1, 0.6, 9000), 0.05, 0)) is None


def test_a_long_training_may_fall_slowly():
    assert fired("loss_not_decreasing", noisy(np.linspace(0.69, 0.48, 4000), 0.02, 0)) is None  # 0.08% a block
    assert fired("loss_not_decreasing", noisy(np.linspace(0.69, 0.68, 4000), 0.02, 0))


def test_blocks_are_of_measured_steps_and_whole():
    assert fired("loss_not_decreasing", StageHistory(loss=curve([0.69] * 79, every=10))) is None
    assert fired("loss_not_decreasing", StageHistory(loss=curve([0.69] * 80, every=10))).step == 0


RISING = [0.5, 0.4, 0.45, 0.5, 0.55, 0.6]


def test_overfit_fires_where_validation_rises_beyond_its_noise():
    series = StageHistory(evaluated=evaluations([0.6, 0.3, 0.2, 0.1, 0.05, 0.02], RISING))
    found = fired("overfit", series)
    assert found.step == 8 * 4 - 1  # the first that stands two standard errors of 0.03 above 0.4
    assert "from 0.4 to 0.6" in found.what
    assert "0.02" in found.what


@pytest.mark.parametrize(("change", "fires"), [
    ({"patience": 2}, False),  # 3 evaluations: more than 2
    ({"patience": 3}, True),
    ({"noise": 8}, True),
    ({"ratio_threshold": 100}, True),
    ({"start_step": 40}, True),
    ({"start_step": 39}, False),
])  # fmt: skip
def test_overfit_knows_its_parameters(change, fires):
    series = StageHistory(evaluated=evaluations([0.6, 0.3, 0.2, 0.1, 0.05, 0.02], RISING))
    assert (fired("overfit", series, **change) is None) == fires


def test_overfit_is_silent_where_both_losses_rise_and_where_validation_came_back():
    assert fired("overfit", StageHistory(evaluated=evaluations([r - 0.01 for r in RISING], RISING))) is None
    back = evaluations([0.02] * 7, [*RISING, 0.41])
    assert fired("overfit", StageHistory(evaluated=back)) is None


def test_overfit_counts_any_rise_where_the_error_is_not_known():
    series = StageHistory(evaluated=evaluations(TRAIN, VALIDATION, error=0.0))
    assert fired("overfit", series).step == 8 * 8 - 1  # epoch 8, after the lowest in epoch 7
    assert fired("overfit", StageHistory(evaluated=evaluations(TRAIN, VALIDATION))) is None


def test_overtraining_counts_the_time_that_brought_nothing():
    series = StageHistory(evaluated=evaluations(TRAIN, VALIDATION, seconds=30))
    found = fired("overtraining", series)
    assert found.step == 8 * 12 - 1  # the lowest is epoch 7's, 5 more is 12
    assert "evaluation 7 of 20" in found.what
    assert "the 13 since, 65.0% of the time (6 min 30 s)" in found.what


def test_overtraining_leaves_cheap_plateaus_and_slow_falls_alone():
    assert fired("overtraining", StageHistory(evaluated=evaluations(TRAIN, VALIDATION, seconds=1))) is None
    assert fired("overtraining", StageHistory(evaluated=evaluations(TRAIN, VALIDATION, seconds=1)), min_seconds=10)
    assert fired("overtraining", StageHistory(evaluated=evaluations(TRAIN, VALIDATION)))  # times are not known
    falls = np.linspace(0.5, 0.4, 40)
    assert fired("overtraining", StageHistory(evaluated=evaluations(falls, falls, seconds=100))) is None


@pytest.mark.parametrize(("change", "fires"), [
    ({"patience_train": 12}, True),
    ({"patience_train": 14}, False),  # the lowest validation loss is 13 epochs old
    ({"patience_validation": 19}, True),
    ({"patience_validation": 20}, False),
    ({"delta": 0.06, "patience_validation": 19}, True),
    ({"delta": 0.05, "patience_validation": 19}, False),  # epoch 3 is an optimum, then
])  # fmt: skip
def test_overtraining_knows_its_parameters(change, fires):
    series = StageHistory(evaluated=evaluations(TRAIN, VALIDATION, seconds=100))
    assert bool(fired("overtraining", series, **change)) == fires


# The first steps, and classes


def first_steps(losses=(2.3,) * 10, variances=(1.0, 1.0), spread=0.1, **known):
    return StageHistory(
        loss=curve(losses),
        activation_variance={f"relu{at}": curve([variance] * 10) for at, variance in enumerate(variances)},
        gradient_spread={"a": curve([spread] * 10), "b": curve([spread / 2] * 10)},
        **known,
    )


@pytest.mark.parametrize(("series", "part"), [
    (first_steps(variances=(1.0, 11.0)), "11 times"),
    (first_steps(spread=0.0009), "within 0.0009"),
    (first_steps(variances=(1.0, 0.0)), "relu1"),
    (first_steps(variances=(1.0, math.nan), pretrained=True), "relu1"),
    (first_steps(losses=np.linspace(2, 3, 10), variances=(1.0, 11.0)), "2.222, then 2.778"),
])  # fmt: skip
def test_poor_weight_initialization_says_why(series, part):
    found = fired("poor_weight_initialization", series)
    assert part in found.what
    assert found.step == 0


@pytest.mark.parametrize("series", [
    first_steps(),
    first_steps(losses=np.linspace(2.3, 1.5, 10), variances=(1.0, 0.0)),  # it learns
    first_steps(losses=(2.3,) * 9, variances=(1.0, 0.0)),  # too soon
    first_steps(variances=(1.0, 11.0), pretrained=True),
    first_steps(spread=0.0009, pretrained=True),
    first_steps(spread=0.0015),  # one of two layers is within 0.001
    first_steps(variances=(1.0, 0.0), first=100),  # a job that was taken up again
])  # fmt: skip
def test_poor_weight_initialization_is_silent(series):
    assert fired("poor_weight_initialization", series) is None


def test_poor_weight_initialization_knows_its_parameters():
    assert fired("poor_weight_initialization", first_steps(variances=(1.0, 11.0)), threshold=12) is None
    assert fired("poor_weight_initialization", first_steps(spread=0.01), distribution_range=0.02)
    assert fired("poor_weight_initialization", first_steps(variances=(1.0, 0.0)), steps=11) is None
    falls_late = first_steps(losses=[2.3, 2.0, 2.3, 2.3, 2.3, 2.3, 2.3, 2.3, 1.0, 1.0], variances=(1.0, 0.0))
    assert fired("poor_weight_initialization", falls_late)
    assert fired("poor_weight_initialization", falls_late, patience=2) is None


def classes(photos, wrong, epochs=3, names=("ants", "bees", "wasps")):
    losses = [0.5] * epochs
    seen = Seen(np.array(photos), np.array(wrong), 8 * epochs - 1)
    return StageHistory(class_names=names, evaluated=evaluations(losses, losses), seen=seen)


def test_class_imbalance_names_the_rare_classes():
    found = fired("class_imbalance", classes([200, 150, 10], [0, 0, 0]))
    assert "200 photos are of ants, only 10 of the smallest class (rare: wasps)" in found.what
    assert found.step == 23
    assert fired("class_imbalance", classes([200, 150, 20], [0, 0, 0])) is None
    assert fired("class_imbalance", classes([200, 150, 20], [0, 0, 0]), threshold_imbalance=9)
    assert "class 2" in fired("class_imbalance", classes([200, 150, 10], [0, 0, 0], names=())).what


def test_class_imbalance_tells_of_rare_classes_that_are_never_recognized():
    found = fired("class_imbalance", classes([200, 150, 40], [5, 5, 30]))
    assert "wasps (75.0%)" in found.what
    assert fired("class_imbalance", classes([200, 150, 40], [5, 5, 30]), threshold_misprediction=0.8) is None
    assert fired("class_imbalance", classes([200, 150, 40], [5, 5, 30], epochs=1)) is None  # at first, all are mistaken
    assert fired("class_imbalance", classes([200, 150, 40], [150, 120, 30])) is None  # and here, still
    assert fired("class_imbalance", classes([200, 150, 120], [5, 5, 90])) is None  # hard, but not for being rare


def test_class_imbalance_waits_for_enough_photos_or_an_epoch():
    half = classes([300, 150, 10], [0, 0, 0])
    half.seen.step += 4
    assert fired("class_imbalance", half) is None
    assert fired("class_imbalance", half, samples=460)
    half.ended = True
    assert fired("class_imbalance", half)


# Time and the machine


def waiting(share, cores=4, loaders=4, steps=100):
    waits = np.full(steps, share)
    waits[:10] = 0.0
    work = curve(1 - waits)
    return StageHistory(
        cores=cores,
        loaders=loaders,
        loss=curve([0.5] * steps),
        times={"data wait": curve(waits), "forward": work},
        seconds={"data wait": float(waits.sum()), "forward": float(steps - waits.sum())},
    )


@pytest.mark.parametrize(("cores", "loaders", "part"), [
    (4, 4, "as many as the cores and too slow"),
    (4, 2, "fewer leave cores idle"),
    (4, 9, "each other's way"),
    (0, 0, "more CPU cores"),
])  # fmt: skip
def test_dataloader_says_what_was_lost_and_why(cores, loaders, part):
    found = fired("dataloader", waiting(0.5, cores, loaders))
    assert "45.0%" in found.what
    assert part in found.fix
    assert found.step == 19
    assert (f"threads that load photos: {loaders}, CPU cores: {cores}" in found.what) == bool(cores)


def test_dataloader_tells_since_when():
    late = waiting(0.5)
    late.times = {"data wait": curve([0.0] * 60 + [0.9] * 40), "forward": curve([1.0] * 60 + [0.1] * 40)}
    assert fired("dataloader", late).step == 67  # 8 × 0.9 of 68 s


@pytest.mark.parametrize("loaders", [1, 4, 40])
def test_dataloader_is_silent_where_nothing_is_lost(loaders):
    assert fired("dataloader", waiting(0.1, loaders=loaders)) is None
    assert fired("dataloader", waiting(0.1, loaders=loaders), min_lost=5)
    assert fired("dataloader", waiting(0.5, loaders=loaders, steps=19)) is None


def test_dataloader_knows_its_thresholds():
    assert "too slow" in fired("dataloader", waiting(0.5, 4, 2), min_threshold=50).fix
    assert "too slow" in fired("dataloader", waiting(0.5, 4, 9), max_threshold=300).fix


def machine(gpu, memory=(40.0,), cpu=20.0, seconds=600, interval=1.0, ended=False, seed=0):
    """Synthetic: utilization scatters by 5 points, memory by a tenth; one mean or array for each GPU."""
    rng, samples = np.random.default_rng(seed), round(seconds / interval)

    def scattered(mean, spread):
        return list(np.clip(np.asarray(mean) + spread * rng.normal(size=samples), 0, 100))

    made = Machine(
        at=[at * interval for at in range(samples)],
        phase=["finetune"] * samples,
        cpu=scattered(cpu, 5.0),
        memory=[4000.0] * samples,
        gpu=[scattered(mean, 5.0) for mean in gpu],
        gpu_memory=[scattered(mean, 0.1) for mean in memory],
        interval=interval,
    )
    return StageHistory(loss=curve([0.5] * 1200), machine=made, ended=ended)


def test_batch_size_fires_where_everything_has_room():
    found = fired("batch_size", machine([30.0, 35.0], [20.0, 20.0]))
    assert found.step == pytest.approx(700, abs=5)  # the last 250 of 600 s; 1200 steps
    assert "20% of its memory" in found.what


@pytest.mark.parametrize("series", [
    machine([90.0]),
    machine([30.0, 90.0], [20.0, 20.0]),
    machine([30.0], [80.0]),
    machine([30.0], cpu=90.0),
    machine([]),
    machine([30.0], seconds=499),
    machine([30.0], seconds=59, ended=True),
])  # fmt: skip
def test_batch_size_is_silent(series):
    assert fired("batch_size", series) is None


def test_gpu_rules_count_samples_as_aws_does_two_a_second():
    for name in ("batch_size", "low_gpu_utilization"):
        assert fired(name, machine([30.0], seconds=500))
        assert fired(name, machine([30.0], seconds=499)) is None
        assert fired(name, machine([30.0], seconds=500, interval=2.0))
        assert fired(name, machine([30.0], seconds=100), patience=200)
        assert fired(name, machine([30.0], seconds=60, ended=True))
        assert fired(name, machine([30.0], seconds=59, ended=True)) is None


@pytest.mark.parametrize("name", ["batch_size", "low_gpu_utilization"])
def test_gpu_rules_judge_the_window_alone(name):
    used = machine([np.repeat([30.0, 95.0], [400, 200])])
    assert fired(name, used) is None
    assert fired(name, machine([np.repeat([95.0, 30.0], [350, 250])]))
    assert fired(name, machine([np.repeat([95.0, 30.0], [550, 50])]), window=80)


@pytest.mark.parametrize("change", ["cpu_threshold_p95", "gpu_threshold_p95", "gpu_memory_threshold_p95"])
def test_batch_size_knows_its_thresholds(change):
    assert fired("batch_size", machine([30.0]), **{change: 10}) is None


def test_low_gpu_utilization_tells_idle_from_fluctuating():
    assert "GPU 0 is hardly used" in fired("low_gpu_utilization", machine([30.0])).what
    by_fits = np.tile(np.repeat([3.0, 95.0], [2, 8]), 60)
    found = fired("low_gpu_utilization", machine([90.0, by_fits], [40.0, 40.0]))
    assert "GPU 1 works by fits and starts" in found.what
    assert "GPU 0" not in found.what
    assert fired("low_gpu_utilization", machine([90.0])) is None
    assert fired("low_gpu_utilization", machine([by_fits]), threshold_p5=0) is None
    assert fired("low_gpu_utilization", machine([30.0]), threshold_p95=20, threshold_p5=1) is None
    series = machine([30.0])
    series.seconds = {"data wait": 1.0, "forward": 1.0}
    assert "50.0%" in fired("low_gpu_utilization", series).what


def test_gpu_memory_increase_tells_jumps_and_leaks():
    jump = machine([90.0], [np.repeat([40.0, 50.0], [590, 10])])
    found = fired("gpu_memory_increase", jump)
    assert "from 40% to 50%" in found.what
    assert found.step == pytest.approx(2 * 592, abs=6)
    leak = machine([90.0, 90.0], [40.0, np.linspace(20, 60, 1200)], seconds=1200)
    assert "GPU 1" in fired("gpu_memory_increase", leak).what
    assert fired("gpu_memory_increase", leak, increase=30) is None


@pytest.mark.parametrize(("memory", "seconds", "ended"), [
    (40.0, 600, False),
    (np.repeat([5.0, 60.0], [10, 590]), 600, False),  # fills in the first steps
    (np.repeat([5.0, 60.0], [10, 90]), 100, True),
    (np.repeat([40.0, 50.0, 40.0], [550, 20, 30]), 600, False),  # and was given back
    (np.linspace(20, 60, 100), 100, False),  # too soon
    (np.linspace(20, 60, 59), 59, True),
])  # fmt: skip
def test_gpu_memory_increase_is_silent(memory, seconds, ended):
    assert fired("gpu_memory_increase", machine([90.0], [memory], seconds=seconds, ended=ended)) is None


def test_gpu_memory_increase_judges_a_short_stage_when_it_is_over():
    assert fired("gpu_memory_increase", machine([90.0], [np.linspace(20, 60, 100)], seconds=100, ended=True))
    assert fired("gpu_memory_increase", machine([90.0], [np.linspace(20, 60, 100)], seconds=100), patience=100)


def test_stalled_training_is_an_error():
    series = healthy()
    series.idle = 1801.0
    found = fired("stalled_training", series)
    assert (found.step, found.severity) == (159, "error")
    assert "30 min 01 s" in found.what
    assert fired("stalled_training", series, threshold=1802) is None


# Choosing


def names(text):
    return {one.rule.name: one.parameters for one in table.chosen(text)}


def test_all_none_and_some():
    assert list(names("all")) == list(table.TABLE) == list(names("ALL"))
    assert names("") == names("none") == names(" ") == {}
    assert names("overfit") == {"overfit": {}}
    assert names("overfit:patience=3,ratio_threshold=0.5  dataloader") == {
        "overfit": {"patience": 3, "ratio_threshold": 0.5},
        "dataloader": {},
    }
    for text in (
        "overfit: patience = 3, ratio_threshold=0.5, dataloader",
        "dataloader;overfit:patience=3,ratio_threshold=.5",
    ):
        assert names(text) == {"overfit": {"patience": 3, "ratio_threshold": 0.5}, "dataloader": {}}
    changed = names("all, overfit:patience=3")
    assert len(changed) == len(table.TABLE)
    assert changed["overfit"] == {"patience": 3}
    assert not any(row for name, row in changed.items() if name != "overfit")


@pytest.mark.parametrize("rule", table.TABLE.values(), ids=table.TABLE)
def test_awss_spelling_is_as_good(rule):
    assert names(rule.aws) == names(rule.name) == names(rule.name.replace("_", "-")) == {rule.name: {}}


def test_values_have_the_defaults_type():
    given = names("exploding_tensor:only_nan=TRUE overfit:patience=2.0 loss_not_decreasing:mode=eval,floor=60")
    assert given["exploding_tensor"] == {"only_nan": True}
    assert given["loss_not_decreasing"] == {"mode": "EVAL", "floor": 60.0}
    assert isinstance(given["overfit"]["patience"], int)


@pytest.mark.parametrize(("text", "said"), [
    ("overfitt", "unknown rule 'overfitt': did you mean 'overfit'?"),
    ("VanishingGradiant", "did you mean 'vanishing_gradient'?"),
    ("xyzxyz", "known: exploding_tensor"),
    ("overfit:patients=3", "overfit has no parameter 'patients': did you mean 'patience'?"),
    ("overfit:zzz=3", "known: start_step"),
    ("overfit:patience", "write a value for 'patience'"),
    ("overfit:", "write a value"),
    ("overfit patience=3", "'patience=3' is no rule: write its parameters after a colon, as in"),
    ("[overfit]", "did you mean 'overfit'?"),
    ("overfit:patience=", "overfit:patience='': write a whole number"),
    ("overfit:patience=2.5", "overfit:patience='2.5': write a whole number of at least 0"),
    ("overfit:ratio_threshold=nan", "write a number of at least 0"),
    ("overfit:ratio_threshold=inf", "write a number of at least 0"),
    ("vanishing_gradient:patience=0", "write a whole number of at least 1"),
    ("batch_size:gpu_threshold_p95=101", "write a number between 0 and 100"),
    ("class_imbalance:threshold_misprediction=1.5", "write a number between 0 and 1"),
    ("exploding_tensor:only_nan=maybe", "write true or false"),
    ("loss_not_decreasing:mode=TEST", "write one of TRAIN, EVAL, GLOBAL"),
    ("overfit Overfit:patience=3", "overfit is given twice"),
    ("overfit:patience=1,patience=2", "overfit:patience is given twice"),
    ("none overfit", "cannot be combined"),
    ("all all", "cannot be combined"),
    ("all none", "cannot be combined"),
    ("overfitt dataloder", "did you mean 'dataloader'?"),
])  # fmt: skip
def test_what_is_no_rule_is_refused_with_a_hint(text, said):
    with pytest.raises(UserError) as refused:
        table.chosen(text)
    assert said in str(refused.value)


def test_only_the_kind_that_is_asked_for_is_judged():
    series = waiting(0.5)
    series.idle = 2000.0
    series.loss = curve([math.nan] * 30)
    assert set(table.judge(table.chosen("all"), series)) == {"exploding_tensor", "dataloader", "stalled_training"}
    assert set(table.judge(table.chosen("all"), series, {"tensors"})) == {"exploding_tensor"}
    assert set(table.judge(table.chosen("all"), series, of={"profile"})) == {"dataloader", "stalled_training"}
    assert table.judge(table.chosen("none"), series) == {}


def test_awss_documented_defaults():
    """By AWS's pages, and for the profile by the defaults of smdebug_rulesconfig 1.0.1."""
    documented = {
        "vanishing_gradient": {"threshold": 0.0000001},
        "exploding_tensor": {"only_nan": False},
        "poor_weight_initialization": {"threshold": 10.0, "distribution_range": 0.001, "patience": 5, "steps": 10},
        "loss_not_decreasing": {"num_steps": 10},
        "overfit": {"start_step": 0, "patience": 1, "ratio_threshold": 0.1},
        "overtraining": {"patience_train": 5, "patience_validation": 10, "delta": 0.1},
        "class_imbalance": {"threshold_imbalance": 10, "threshold_misprediction": 0.7, "samples": 500},
        "stalled_training": {"threshold": 1800},
        "dataloader": {"min_threshold": 70, "max_threshold": 200},
        "batch_size": {
            "cpu_threshold_p95": 70,
            "gpu_threshold_p95": 70,
            "gpu_memory_threshold_p95": 70,
            "patience": 1000,
            "window": 500,
        },
        "low_gpu_utilization": {"threshold_p95": 70, "threshold_p5": 10, "window": 500, "patience": 1000},
        "gpu_memory_increase": {"increase": 5, "patience": 1000, "window": 10},
    }
    assert set(documented) == set(table.TABLE)
    for name, parameters in documented.items():
        assert table.TABLE[name].parameters.items() >= parameters.items(), name


def test_the_table_in_markdown_has_every_rule_and_parameter():
    lines = table.markdown().splitlines()
    assert len(lines) == 2 + len(table.TABLE)
    for line, rule in zip(lines[2:], table.TABLE.values(), strict=True):
        assert line.startswith(f"| `{rule.name}` | [{rule.aws}](https://docs.aws.amazon.com/")
        assert line.count("|") == 5
        assert all(f"`{name}=" in line for name in rule.parameters)
        assert rule.says.endswith(".")
    assert "`ratio_threshold=0.1`, *`noise=2`*" in table.markdown()  # not AWS's: in italics


def test_a_rule_says_a_step_and_two_clauses():
    found = fired("stalled_training", StageHistory(idle=2000.0))
    assert isinstance(found, Fired)
    assert found.step == 0
    assert not found.what.endswith(".")
    assert not found.fix.endswith(".")
