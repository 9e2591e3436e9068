"""A search by SageMaker's tuner as plain data: ranges, objective, limits, warm start, all from the one table.

Where a rule comes from: "model" is the service model that botocore carries (bounds and words of each field), "guide"
AWS's developer guide, a page named automatic-model-tuning-..., "service" what SageMaker itself was seen to answer.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kennel import hyperparameters, metrics
from kennel.errors import UserError
from kennel.hyperparameters import OF_A_SEARCH, TABLE, TYPES, Hyperparameters, Tuning, text
from kennel.search import search_space

WARM_START_STRATEGIES = ("Bayesian", "Random")  # guide, warm-start: "either Bayesian or random search"
STRATEGIES = (*WARM_START_STRATEGIES, "Grid", "Hyperband")  # model
WARM_STARTS = ("IdenticalDataAndAlgorithm", "TransferLearning")  # model
# Guide, limits. Accounts begin with 750 and 10; AWS raises them to these on request, the first for Random alone.
MOST_JOBS = dict.fromkeys(STRATEGIES, 750) | {"Random": 10_000}
MOST_PARALLEL = 100
MOST_RANGES = 30  # guide, define-ranges: of all kinds together
MOST_VALUES = 30  # model, and guide, define-ranges: of one choice
MOST_PARENTS = 5  # model
RUNTIME = (120, 15_768_000)  # model: seconds
LEAST_NOT_IMPROVING = 3  # model
HIGHEST_SEED = 2**31 - 1  # model: an integer from 0, of 32 bits as all of AWS's are
MOST_EPOCHS = 20_000  # model: Hyperband's largest MaxResource
JOBS = 20  # the default
_JOB_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,31}")  # model


@dataclass(frozen=True)
class Options:
    """Settings of a tuning job beside hyperparameters and their ranges."""

    strategy: str = "Bayesian"
    jobs: int | None = None  # default 20 or so; for a grid the number of its points
    parallel: int = 1
    early_stopping: bool | None = None  # default: wherever the strategy allows it
    target: float | None = None  # end when a job reaches this accuracy
    no_improvement: int | None = None  # end after so many jobs that are not 1% better
    convergence: bool = False  # end when the tuner finds that nothing better will come
    max_runtime: int | None = None  # seconds
    seed: int | None = None
    parents: tuple[str, ...] = ()  # earlier tuning jobs to learn from
    warm_start: str = WARM_STARTS[0]


def tuning_request(given: Mapping[str, Any], space: str, options: Options) -> dict[str, Any]:
    """The fields of CreateHyperParameterTuningJob that depend on Kennel; image, role and data are the caller's.

    Args:
        given: the hyperparameters that all jobs share, as the user wrote them.
        space: what jobs differ in, in the words of hyperparameter `search_space`.

    Raises:
        UserError: SageMaker would refuse it, or it makes no sense.
    """
    hp = hyperparameters.parse(given)
    tuned = search_space.space(space or hp.search_space)
    fixed = {name: getattr(hp, name) for name in TABLE if name in hyperparameters.given(given) - {*OF_A_SEARCH}}
    _refuse([*_bad_options(options), *_bad_names(fixed, tuned, options)])
    if options.strategy == "Grid":  # guide, how-it-works: only categorical parameters
        values = search_space.grid(tuned, options.jobs or JOBS)
        tuned = {name: Tuning(values=tuple(those)) for name, those in values.items()}
    points = _points(tuned)
    jobs = int(options.jobs or (points if options.strategy == "Grid" else min(JOBS, points)))
    _refuse(_bad_numbers(tuned, points, jobs, options))
    own = {key: str(value) for key, value in given.items() if key.startswith("sagemaker_")}  # of a user's own script
    request: dict[str, Any] = {
        "HyperParameterTuningJobConfig": _config(tuned, jobs, hp, options),
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {"MetricDefinitions": metrics.definitions()},
            "StaticHyperParameters": {name: text(value) for name, value in fixed.items()} | own,
        },
    }
    if options.parents:
        request["WarmStartConfig"] = {
            "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": name} for name in options.parents],
            "WarmStartType": options.warm_start,
        }
    return request


def parameter_ranges(tuned: Mapping[str, Tuning]) -> dict[str, Any]:
    """SageMaker's lists of ranges, one for each kind, in which every value is a string.

    Raises:
        UserError: too many of them, or too many values in one.
    """
    if len(tuned) > MOST_RANGES:
        raise UserError(
            f"{len(tuned)} hyperparameters are tuned, SageMaker takes {MOST_RANGES} at most: leave some out"
        )
    found: dict[str, Any] = {f"{kind}ParameterRanges": [] for kind in ("Integer", "Continuous", "Categorical")}
    for name, tuning in tuned.items():
        if len(tuning.values) > MOST_VALUES:
            raise UserError(
                f"{name} has {len(tuning.values)} values, SageMaker takes {MOST_VALUES} at most: write fewer"
            )
        if tuning.values:
            row: dict[str, Any] = {"Name": name, "Values": [text(value) for value in tuning.values]}
            found["CategoricalParameterRanges"].append(row)
            continue
        low, high = (text(TYPES[name](end)) for end in (tuning.low, tuning.high))
        scale = "Logarithmic" if tuning.log else "Linear"
        kind = "Integer" if TYPES[name] is int else "Continuous"
        row = {"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": scale}
        found[f"{kind}ParameterRanges"].append(row)
    return {kind: rows for kind, rows in found.items() if rows}


def _config(tuned: Mapping[str, Tuning], jobs: int, hp: Hyperparameters, options: Options) -> dict[str, Any]:
    limits = {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": options.parallel}
    if options.max_runtime is not None:
        limits["MaxRuntimeInSeconds"] = options.max_runtime
    # The guide, early-stopping, asks for the objective after each epoch and excludes no strategy; for Hyperband the
    # model says that it must be off.
    early = options.strategy != "Hyperband" if options.early_stopping is None else options.early_stopping
    config: dict[str, Any] = {
        "Strategy": options.strategy,
        "HyperParameterTuningJobObjective": {"Type": metrics.OBJECTIVE.goal, "MetricName": metrics.OBJECTIVE.name},
        "ResourceLimits": limits,
        "ParameterRanges": parameter_ranges(tuned),
        "TrainingJobEarlyStoppingType": "Auto" if early else "Off",
    }
    if options.strategy == "Hyperband":
        resources = {"MinResource": 1, "MaxResource": _printed(hp)}
        config["StrategyConfig"] = {"HyperbandStrategyConfig": resources}
    criteria: dict[str, Any] = {}
    if options.target is not None:
        criteria["TargetObjectiveMetricValue"] = options.target
    if options.no_improvement is not None:
        criteria["BestObjectiveNotImproving"] = {"MaxNumberOfTrainingJobsNotImproving": options.no_improvement}
    if options.convergence:
        criteria["ConvergenceDetected"] = {"CompleteOnConvergence": "Enabled"}
    if criteria:
        config["TuningJobCompletionCriteria"] = criteria
    if options.seed is not None:
        config["RandomSeed"] = options.seed
    return config


def _printed(hp: Hyperparameters) -> int:
    """How often a job prints the objective: after each epoch, and at the end for its model.

    Hyperband stops a job that has printed it MaxResource times (model), so that this may not be less. `auto` is
    `probe-then-finetune` on a GPU.
    """
    epochs = hp.epochs if hp.strategy in ("probe", "finetune") else hp.probe_epochs + hp.epochs
    return min(epochs + 1, MOST_EPOCHS)


def _points(tuned: Mapping[str, Tuning]) -> float:
    """How many settings there are; infinitely many with a continuous range."""
    counts: list[float] = []
    for name, tuning in tuned.items():
        span = tuning.high - tuning.low + 1 if TYPES[name] is int else math.inf
        counts.append(len(tuning.values) or span)
    return math.prod(counts)


def _refuse(problems: Iterable[str]) -> None:
    if reasons := "; ".join(problems):
        raise UserError(reasons)


def _bad_options(options: Options) -> Iterator[str]:
    if options.strategy not in STRATEGIES:
        yield f"strategy={options.strategy!r}: write one of {', '.join(STRATEGIES)}"
    most = MOST_JOBS.get(options.strategy, max(MOST_JOBS.values()))
    if options.jobs is not None and not 1 <= options.jobs <= most:
        yield f"jobs={options.jobs}: SageMaker runs 1 to {most} jobs in one search of strategy {options.strategy}"
    if not 1 <= options.parallel <= MOST_PARALLEL:
        yield f"parallel={options.parallel}: SageMaker runs 1 to {MOST_PARALLEL} jobs at a time"
    if options.strategy == "Hyperband" and options.early_stopping:
        yield "Hyperband stops jobs by itself, and early_stopping must be off: leave it out"
    if options.target is not None and not 0 <= options.target <= 1:
        yield f"target={options.target}: {metrics.OBJECTIVE.name} is a number between 0 and 1"
    if options.no_improvement is not None and options.no_improvement < LEAST_NOT_IMPROVING:
        yield f"no_improvement={options.no_improvement}: write {LEAST_NOT_IMPROVING} jobs or more"
    if options.max_runtime is not None and not RUNTIME[0] <= options.max_runtime <= RUNTIME[1]:
        yield f"max_runtime={options.max_runtime}: write between {RUNTIME[0]} and {RUNTIME[1]} seconds"
    if options.seed is not None and not 0 <= options.seed <= HIGHEST_SEED:
        yield f"seed={options.seed}: write a whole number between 0 and {HIGHEST_SEED}"
    if options.parents:
        yield from _bad_warm_start(options)


def _bad_warm_start(options: Options) -> Iterator[str]:
    if options.strategy not in WARM_START_STRATEGIES:
        yield f"a warm start needs strategy {' or '.join(WARM_START_STRATEGIES)}, not {options.strategy}"
    if options.warm_start not in WARM_STARTS:
        yield f"warm_start={options.warm_start!r}: write one of {', '.join(WARM_STARTS)}"
    if len(options.parents) > MOST_PARENTS or len(set(options.parents)) < len(options.parents):
        yield f"parents={','.join(options.parents)}: name up to {MOST_PARENTS} tuning jobs, each once"
    for name in options.parents:
        if not _JOB_NAME.fullmatch(name):
            yield f"parent {name!r} is no name of a tuning job: letters, digits and hyphens, 32 at most"


def _bad_names(fixed: Mapping[str, Any], tuned: Mapping[str, Tuning], options: Options) -> Iterator[str]:
    both = [f"{name}={text(value)}" for name, value in fixed.items() if name in tuned]
    if both:
        yield f"{' '.join(both)}: fixed and tuned as well: leave it out of the hyperparameters or of the search space"
    if options.strategy == "Hyperband" and (named := [name for name in ("epochs", "probe_epochs") if name in tuned]):
        yield f"Hyperband itself decides how long a job trains: leave {' and '.join(named)} out of the search space"


def _bad_numbers(tuned: Mapping[str, Tuning], points: float, jobs: int, options: Options) -> Iterator[str]:
    counts = " × ".join(f"{name} {len(tuning.values)}" for name, tuning in tuned.items())
    if options.strategy == "Grid" and points != jobs:  # guide, how-it-works: the numbers should be equal
        yield f"jobs={jobs}: a grid runs each of its points once, here {points:.0f} ({counts}): write that, or nothing"
    elif jobs > MOST_JOBS[options.strategy]:
        yield f"the grid has {jobs} points ({counts}), SageMaker runs {MOST_JOBS[options.strategy]} at most"
    elif jobs > points:  # service: "You don't have enough combinations of hyperparameter ranges"
        yield f"jobs={jobs}: there are only {points:.0f} different settings in the search space: write fewer jobs"
    if options.parallel > jobs:
        yield f"parallel={options.parallel}: there are {jobs} jobs in all, write as many or fewer"
