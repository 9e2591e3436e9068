"""The tuning request against SageMaker's own service model, and everything that it would refuse."""

import dataclasses
import json
import math
import re

import botocore.session
import pytest
from botocore.validate import ParamValidator

from kennel.errors import UserError
from kennel.hyperparameters import TABLE, TYPES, Hyperparameters, Tuning, parse
from kennel.search import sagemaker_tuner
from kennel.search.sagemaker_tuner import STRATEGIES, Options, tuning_request

MODEL = botocore.session.get_session().get_service_model("sagemaker")
SPACE = (
    "learning_rate batch_size=8,16,32 epochs=5..50 momentum=0.5..0.95 optimizer=sgd,adamw trivial_augment=true,false"
)
# What a later command adds of its own.
REST = {
    "RoleArn": "arn:aws:iam::123456789012:role/kennel",
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/kennel"},
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
}


def faults(value, shape, at="request"):
    """What breaks the model's bounds, patterns and enumerations, most of which botocore leaves to the service."""
    found = []
    bounds = shape.metadata
    size = value if shape.type_name in ("integer", "long", "float", "double") else None
    if shape.type_name in ("string", "list", "map"):
        size = len(value)
    if size is not None and not bounds.get("min", -math.inf) <= size <= bounds.get("max", math.inf):
        found.append(f"{at}: {value!r} is not within {bounds}")
    if shape.type_name == "string":
        if shape.enum and value not in shape.enum:
            found.append(f"{at}: {value!r} is none of {shape.enum}")
        if "pattern" in bounds and not re.fullmatch(bounds["pattern"], value):
            found.append(f"{at}: {value!r} does not match {bounds['pattern']}")
    if shape.type_name == "structure":
        for name, part in value.items():
            found += faults(part, shape.members[name], f"{at}.{name}")
    if shape.type_name == "list":
        for part in value:
            found += faults(part, shape.member, f"{at}[]")
    if shape.type_name == "map":
        for key, part in value.items():
            found += faults(key, shape.key, f"{at} key") + faults(part, shape.value, f"{at}[{key}]")
    return found


def warm_start_of(request):
    """What the service's model has against a request."""
    definition = request["TrainingJobDefinition"]
    algorithm = {**definition["AlgorithmSpecification"], "TrainingInputMode": "File", "TrainingImage": "kennel:1"}
    whole = {
        "HyperParameterTuningJobName": "kennel",
        **request,
        "TrainingJobDefinition": {**definition, **REST, "AlgorithmSpecification": algorithm},
    }
    shape = MODEL.shape_for("CreateHyperParameterTuningJobRequest")
    return ParamValidator().validate(whole, shape).generate_report(), faults(whole, shape)


def names(request):
    ranges = request["HyperParameterTuningJobConfig"]["ParameterRanges"]
    return {row["Name"]: row for rows in ranges.values() for row in rows}


EVERYTHING = Options(
    jobs=40,
    parallel=4,
    target=0.97,
    no_improvement=5,
    convergence=True,
    max_runtime=7200,
    seed=7,
    parents=("kennel-1", "kennel-2"),
    warm_start="TransferLearning",
)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("space", ["", "learning_rate", "optimizer=sgd,adamw batch_size", "weight_decay=0..0.01"])
def test_the_services_model_has_nothing_against_it(strategy, space):
    request = tuning_request({"backbone": "resnet18", "pretrained": "false"}, space, Options(strategy=strategy))
    assert warm_start_of(request) == ("", [])


def test_with_everything_that_can_be_asked_for():
    request = tuning_request({"seed": "3"}, SPACE, EVERYTHING)
    assert warm_start_of(request) == ("", [])
    assert request == {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:accuracy"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": 40,
                "MaxParallelTrainingJobs": 4,
                "MaxRuntimeInSeconds": 7200,
            },
            "ParameterRanges": {
                "IntegerParameterRanges": [
                    {"Name": "epochs", "MinValue": "5", "MaxValue": "50", "ScalingType": "Logarithmic"}
                ],
                "ContinuousParameterRanges": [
                    {"Name": "learning_rate", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"},
                    {"Name": "momentum", "MinValue": "0.5", "MaxValue": "0.95", "ScalingType": "Linear"},
                ],
                "CategoricalParameterRanges": [
                    {"Name": "batch_size", "Values": ["8", "16", "32"]},
                    {"Name": "optimizer", "Values": ["sgd", "adamw"]},
                    {"Name": "trivial_augment", "Values": ["true", "false"]},
                ],
            },
            "TrainingJobEarlyStoppingType": "Auto",
            "TuningJobCompletionCriteria": {
                "TargetObjectiveMetricValue": 0.97,
                "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 5},
                "ConvergenceDetected": {"CompleteOnConvergence": "Enabled"},
            },
            "RandomSeed": 7,
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "MetricDefinitions": request["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
            },
            "StaticHyperParameters": {"seed": "3"},
        },
        "WarmStartConfig": {
            "ParentHyperParameterTuningJobs": [
                {"HyperParameterTuningJobName": "kennel-1"},
                {"HyperParameterTuningJobName": "kennel-2"},
            ],
            "WarmStartType": "TransferLearning",
        },
    }


def test_the_objective_is_one_of_the_metrics_that_are_defined():
    request = tuning_request({}, "", Options())
    defined = request["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
    objective = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    assert objective["MetricName"] in [row["Name"] for row in defined]


def test_what_the_model_forbids_is_seen():
    request = tuning_request({}, "", Options())
    config = request["HyperParameterTuningJobConfig"]
    config["Strategy"] = "Guess"
    config["RandomSeed"] = -1
    config["ParameterRanges"]["ContinuousParameterRanges"][0]["MaxValue"] = "9" * 257
    config["TuningJobCompletionCriteria"] = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 2}}
    request["WarmStartConfig"] = {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "no_underscores"}],
        "WarmStartType": "TransferLearning",
    }
    assert len(warm_start_of(request)[1]) == 5


def test_the_bounds_of_the_code_are_those_of_the_model():
    config = MODEL.shape_for("HyperParameterTuningJobConfig")
    limits = MODEL.shape_for("ResourceLimits").members["MaxRuntimeInSeconds"].metadata
    parents = MODEL.shape_for("HyperParameterTuningJobWarmStartConfig").members
    assert set(STRATEGIES) == set(config.members["Strategy"].enum)
    assert set(sagemaker_tuner.WARM_STARTS) == set(parents["WarmStartType"].enum)
    assert (limits["min"], limits["max"]) == sagemaker_tuner.RUNTIME
    assert parents["ParentHyperParameterTuningJobs"].metadata["max"] == sagemaker_tuner.MOST_PARENTS
    assert MODEL.shape_for("ParameterValues").metadata["max"] == sagemaker_tuner.MOST_VALUES
    assert MODEL.shape_for("ContinuousParameterRanges").metadata["max"] == sagemaker_tuner.MOST_RANGES
    assert MODEL.shape_for("MaxNumberOfTrainingJobsNotImproving").metadata["min"] == sagemaker_tuner.LEAST_NOT_IMPROVING
    # All of the table and the name of the objective, which the tuner adds, are less than a job may have.
    assert len(TABLE) + 1 <= MODEL.shape_for("HyperParameters").metadata["max"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_the_tuner_sends_is_parsed_whatever_it_chooses(strategy):
    space = SPACE if strategy != "Hyperband" else SPACE.replace("epochs=5..50 ", "")
    request = tuning_request({"backbone": "resnet18", "int8": False}, space, Options(strategy=strategy))
    static = request["TrainingJobDefinition"]["StaticHyperParameters"]
    for name, row in names(request).items():
        for value in row.get("Values") or (row["MinValue"], row["MaxValue"]):
            for sent in (value, json.dumps(value), json.dumps(json.dumps(value))):
                made = parse({**static, name: sent, "_tuning_objective_metric": "validation:accuracy"})
                assert type(getattr(made, name)) is TYPES[name]
                assert str(getattr(made, name)).lower() == value
                assert (made.backbone, made.int8) == ("resnet18", False)


def test_a_number_between_the_ends_is_parsed_too():
    assert parse({"learning_rate": '"0.012345678901234567"'}).learning_rate == pytest.approx(0.0123456789)
    assert parse({"epochs": '"17"'}).epochs == 17


def test_only_what_was_given_is_fixed_and_never_a_search_inside_one_job():
    given = {
        "backbone": "resnet18",
        "image-size": 128,
        "int8": "False",
        "weight_decay": "1e-5",
        "trials": "5",
        "search": "tpe",
        "search_space": "learning_rate momentum=0.5..0.9",
        "time_budget": "30",
        "sagemaker_program": "hook.py",
        "_tuning_objective_metric": "x",
    }
    request = tuning_request(given, "", Options())
    static = request["TrainingJobDefinition"]["StaticHyperParameters"]
    assert static == {
        "backbone": "resnet18",
        "image_size": "128",
        "int8": "false",
        "weight_decay": "1e-05",
        "sagemaker_program": "hook.py",
    }
    assert parse(static) == dataclasses.replace(
        Hyperparameters(), backbone="resnet18", image_size=128, int8=False, weight_decay=1e-5
    )
    assert set(names(request)) == {"learning_rate", "momentum"}  # the search space that the user wrote there
    assert set(names(tuning_request(given, "momentum=0.1..0.2", Options()))) == {"momentum"}


def test_a_grid_is_categorical_and_has_as_many_jobs_as_points():
    config = tuning_request({}, "", Options(strategy="Grid", jobs=20))["HyperParameterTuningJobConfig"]
    assert set(config["ParameterRanges"]) == {"CategoricalParameterRanges"}
    values = {row["Name"]: row["Values"] for row in config["ParameterRanges"]["CategoricalParameterRanges"]}
    assert values["batch_size"] == ["32", "64", "128", "256", "512"]
    assert [float(value) for value in values["learning_rate"]] == pytest.approx(
        [0.001, 0.00464159, 0.0215443, 0.1], rel=1e-5
    )
    assert config["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 20
    alone = tuning_request({}, "batch_size=8,16 optimizer=sgd,adamw", Options(strategy="Grid"))
    assert alone["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 4
    assert config["TrainingJobEarlyStoppingType"] == "Auto"


@pytest.mark.parametrize(
    ("given", "most"),
    [
        ({"strategy": "probe"}, 21),
        ({"strategy": "finetune", "epochs": "7"}, 8),
        ({"strategy": "probe-then-finetune", "epochs": "7", "probe_epochs": "3"}, 11),
        ({}, 41),
        ({"epochs": "10000", "probe_epochs": "10000"}, 20_000),
    ],
)
def test_hyperband_counts_every_epoch_that_a_job_prints_and_the_models_own_line(given, most):
    config = tuning_request(given, "learning_rate", Options(strategy="Hyperband"))["HyperParameterTuningJobConfig"]
    assert config["StrategyConfig"] == {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": most}}
    assert config["TrainingJobEarlyStoppingType"] == "Off"


@pytest.mark.parametrize("strategy", ["Bayesian", "Random", "Grid"])
def test_only_hyperband_has_a_strategy_of_its_own_and_early_stopping_can_be_left_out(strategy):
    options = Options(strategy=strategy, early_stopping=False)
    config = tuning_request({}, "batch_size", options)["HyperParameterTuningJobConfig"]
    assert "StrategyConfig" not in config
    assert config["TrainingJobEarlyStoppingType"] == "Off"


def test_a_small_space_has_no_more_jobs_than_settings():
    config = tuning_request({}, "batch_size=8,16,32", Options())["HyperParameterTuningJobConfig"]
    assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 1}
    large = tuning_request({}, "", Options())["HyperParameterTuningJobConfig"]["ResourceLimits"]
    assert large == {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 1}
    assert "TuningJobCompletionCriteria" not in config
    assert "RandomSeed" not in config


@pytest.mark.parametrize(
    ("given", "space", "options", "said"),
    [
        ({"learning_rate": "9e9"}, "", {}, "hyperparameter learning_rate='9e9'"),
        ({}, "backbone=resnet18,resnet50", {}, "search_space: backbone is the same for all trials"),
        ({"batch-size": "64"}, "", {}, "batch_size=64: fixed and tuned as well"),
        ({}, "", {"strategy": "bayesian"}, "strategy='bayesian': write one of Bayesian, Random, Grid, Hyperband"),
        ({}, "", {"jobs": 0}, "jobs=0: SageMaker runs 1 to 750 jobs in one search of strategy Bayesian"),
        ({}, "", {"jobs": 751}, "jobs=751: SageMaker runs 1 to 750"),
        ({}, "", {"jobs": 10_001, "strategy": "Random"}, "jobs=10001: SageMaker runs 1 to 10000"),
        ({}, "", {"jobs": 751, "strategy": "Hyperband"}, "jobs=751: SageMaker runs 1 to 750"),
        ({}, "", {"parallel": 0}, "parallel=0: SageMaker runs 1 to 100"),
        ({}, "", {"parallel": 101, "jobs": 200}, "parallel=101: SageMaker runs 1 to 100"),
        ({}, "", {"parallel": 5, "jobs": 4}, "parallel=5: there are 4 jobs in all"),
        ({}, "", {"strategy": "Hyperband", "early_stopping": True}, "Hyperband stops jobs by itself"),
        ({}, "epochs=1..9", {"strategy": "Hyperband"}, "leave epochs out of the search space"),
        ({}, "", {"target": 95.0}, "target=95.0: validation:accuracy is a number between 0 and 1"),
        ({}, "", {"target": math.nan}, "target=nan"),
        ({}, "", {"no_improvement": 2}, "no_improvement=2: write 3 jobs or more"),
        ({}, "", {"max_runtime": 119}, "max_runtime=119: write between 120 and 15768000 seconds"),
        ({}, "", {"max_runtime": 15_768_001}, "max_runtime=15768001"),
        ({}, "", {"seed": -1}, "seed=-1: write a whole number between 0 and 2147483647"),
        ({}, "", {"seed": 2**31}, "seed=2147483648"),
        ({}, "", {"parents": tuple("abcdef")}, "parents=a,b,c,d,e,f: name up to 5 tuning jobs, each once"),
        ({}, "", {"parents": ("a", "a")}, "parents=a,a: name up to 5 tuning jobs, each once"),
        ({}, "", {"parents": ("-x",)}, "parent '-x' is no name of a tuning job"),
        ({}, "", {"parents": ("x" * 33,)}, "is no name of a tuning job"),
        ({}, "", {"parents": ("a",), "warm_start": "Both"}, "warm_start='Both': write one of Identical"),
        ({}, "", {"parents": ("a",), "strategy": "Grid"}, "a warm start needs strategy Bayesian or Random, not Grid"),
        ({}, "", {"parents": ("a",), "strategy": "Hyperband"}, "a warm start needs strategy Bayesian or Random"),
        ({}, "", {"jobs": 22, "strategy": "Grid"}, "each of its points once, here 20 (batch_size 5 × learning_rate 4)"),
        ({}, "batch_size=8,16", {"jobs": 3, "strategy": "Grid"}, "here 2 (batch_size 2)"),
        ({}, "batch_size=8,16", {"jobs": 3}, "jobs=3: there are only 2 different settings"),
        ({}, "epochs=1..9 batch_size=8,16", {"jobs": 19}, "jobs=19: there are only 18 different settings"),
        ({}, "learning_rate", {"jobs": 31, "strategy": "Grid"}, "learning_rate has 31 values, SageMaker takes 30"),
        ({}, "batch_size=" + ",".join(map(str, range(1, 32))), {}, "batch_size has 31 values, SageMaker takes 30"),
        (
            {},
            " ".join(f"{name}={','.join(map(str, range(1, 11)))}" for name in ("epochs", "batch_size", "patience")),
            {"strategy": "Grid"},
            "the grid has 1000 points (epochs 10 × batch_size 10 × patience 10), SageMaker runs 750 at most",
        ),
    ],
)
def test_what_sagemaker_would_refuse_is_one_sentence(given, space, options, said):
    with pytest.raises(UserError) as caught:
        tuning_request(given, space, Options(**options))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(UserError, match=r"parallel=0.*seed=-1.*batch_size=8: fixed and tuned"):
        tuning_request({"batch_size": "8"}, "", Options(parallel=0, seed=-1))


def test_thirty_ranges_are_the_most():
    tuned = {name: Tuning(values=(1, 2)) for name in [f"name{i}" for i in range(31)]}
    with pytest.raises(UserError, match="31 hyperparameters are tuned, SageMaker takes 30 at most"):
        sagemaker_tuner.parameter_ranges(tuned)
    del tuned["name0"]
    assert len(sagemaker_tuner.parameter_ranges(tuned)["CategoricalParameterRanges"]) == 30
