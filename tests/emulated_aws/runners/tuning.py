"""A tuning job: its trials run as training jobs, one after the other, with settings drawn from the ranges.

SageMaker's Bayesian search and Hyperband are not public: all strategies but Grid draw at random here.
"""

import itertools
import math
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

from ..http.account import Account
from ..http.resources import Record, now
from . import training

_ROW = (
    "TrainingJobName",
    "TrainingJobArn",
    "CreationTime",
    "TrainingStartTime",
    "TrainingEndTime",
    "TrainingJobStatus",
    "TunedHyperParameters",
    "ObjectiveStatus",
    "FinalHyperParameterTuningJobObjectiveMetric",
)
_COUNTED = {"Completed": "Completed", "Failed": "NonRetryableError", "Stopped": "Stopped"}


def start(account: Account, record: Record) -> None:
    """In the background."""
    name = record["HyperParameterTuningJobName"]
    account.stops[name] = threading.Event()
    account.background.start(lambda: _run(account, record), f"tuning job {name}")


def trials(account: Account, name: str) -> list[Record]:
    """A tuning job's training jobs, in the order of their creation."""
    return [one for one in account.store.all("TrainingJob") if one.get("TuningJobName") == name]


def _run(account: Account, record: Record) -> None:
    name, config = record["HyperParameterTuningJobName"], record["HyperParameterTuningJobConfig"]
    stop, closing = account.stops[name], account.background.closing
    most = config["ResourceLimits"].get("MaxNumberOfTrainingJobs", 1)
    limit = time.monotonic() + config["ResourceLimits"].get("MaxRuntimeInSeconds", math.inf)
    for number, settings in enumerate(itertools.islice(_draws(record), most), 1):
        if stop.is_set() or closing.is_set() or time.monotonic() > limit or _reached(record):
            break
        trial = _create(account, record, number, settings)
        training.run(account, trial)
        _judge(account, record, trial)
    if closing.is_set():
        return
    done = trials(account, name)
    good = any(one["TrainingJobStatus"] == "Completed" for one in done)
    status = "Stopped" if stop.is_set() else "Completed" if good else "Failed"
    reason = {"FailureReason": "All training jobs failed. Please take a look at the training jobs failures."}
    account.store.change(
        record,
        HyperParameterTuningJobStatus=status,
        HyperParameterTuningEndTime=now(),
        **(reason if status == "Failed" else {}),
    )


def definition(record: Record) -> Record:
    """The one definition that is emulated."""
    found: Record = record.get("TrainingJobDefinition") or record["TrainingJobDefinitions"][0]
    return found


def _create(account: Account, record: Record, number: int, settings: dict[str, str]) -> Record:
    plan = definition(record)
    objective = _objective(record)
    spec = dict(plan["AlgorithmSpecification"])
    static = plan.get("StaticHyperParameters", {}) | {"_tuning_objective_metric": objective["MetricName"]}
    job = f"{record['HyperParameterTuningJobName']}-{number:03d}-{random.getrandbits(32):08x}"
    own = {"DefinitionName", "TuningObjective", "HyperParameterRanges", "StaticHyperParameters"}
    params = {key: value for key, value in plan.items() if key not in own}
    params |= {"TrainingJobName": job, "AlgorithmSpecification": spec, "HyperParameters": static | settings}
    if "CheckpointConfig" in plan:  # each trial has a folder of its own
        params["CheckpointConfig"] = {"S3Uri": f"{plan['CheckpointConfig']['S3Uri'].rstrip('/')}/{job}"}
    trial = account.store.add(
        "TrainingJob",
        params,
        SecondaryStatus="Starting",
        TuningJobArn=record["HyperParameterTuningJobArn"],
        TuningJobName=record["HyperParameterTuningJobName"],
        TunedHyperParameters=settings,
        ObjectiveStatus="Pending",
        ModelArtifacts={"S3ModelArtifacts": training.model_url(params)},
    )
    account.stops[job] = threading.Event()
    _count(account, record)
    return trial


def _judge(account: Account, record: Record, trial: Record) -> None:
    """The trial's objective, and whether it is the best one by now."""
    objective = _objective(record)
    values = {row["MetricName"]: row["Value"] for row in trial.get("FinalMetricDataList", [])}
    value = values.get(objective["MetricName"])
    if value is None or trial["TrainingJobStatus"] != "Completed":
        account.store.change(trial, ObjectiveStatus="Failed")
    else:
        final = {"Type": objective["Type"], "MetricName": objective["MetricName"], "Value": value}
        account.store.change(trial, ObjectiveStatus="Succeeded", FinalHyperParameterTuningJobObjectiveMetric=final)
    scored = [
        one
        for one in trials(account, record["HyperParameterTuningJobName"])
        if "FinalHyperParameterTuningJobObjectiveMetric" in one
    ]
    if scored:
        sign = 1 if objective["Type"] == "Maximize" else -1
        best = max(scored, key=lambda one: sign * one["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])
        account.store.change(record, BestTrainingJob=_summary(best))
    _count(account, record)


def _reached(record: Record) -> bool:
    """Whether the best is as good as was asked for."""
    criteria = record["HyperParameterTuningJobConfig"].get("TuningJobCompletionCriteria", {})
    target = criteria.get("TargetObjectiveMetricValue")
    best = record.get("BestTrainingJob")
    if target is None or not best:
        return False
    value = best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    reached: bool = value >= target if _objective(record)["Type"] == "Maximize" else value <= target
    return reached


def _summary(trial: Record) -> Record:
    return {name: trial[name] for name in _ROW if name in trial}


def _count(account: Account, record: Record) -> None:
    done = trials(account, record["HyperParameterTuningJobName"])
    statuses = dict.fromkeys(("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped"), 0)
    objectives = dict.fromkeys(("Succeeded", "Pending", "Failed"), 0)
    for one in done:
        statuses[_COUNTED.get(one["TrainingJobStatus"], "InProgress")] += 1
        objectives[one["ObjectiveStatus"]] += 1
    account.store.change(record, TrainingJobStatusCounters=statuses, ObjectiveStatusCounters=objectives)


def _objective(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = (
        definition(record).get("TuningObjective")
        or record["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    )
    return found


def _draws(record: Record) -> Iterator[dict[str, str]]:
    config = record["HyperParameterTuningJobConfig"]
    ranges = definition(record).get("HyperParameterRanges") or config.get("ParameterRanges", {})
    categories = {row["Name"]: row["Values"] for row in ranges.get("CategoricalParameterRanges", [])}
    if config["Strategy"] == "Grid":
        for values in itertools.product(*categories.values()):
            yield dict(zip(categories, values, strict=True))
        return
    chance = random.Random(config.get("RandomSeed"))
    while True:
        drawn = {name: chance.choice(values) for name, values in categories.items()}
        for row in ranges.get("ContinuousParameterRanges", []):
            drawn[row["Name"]] = repr(_between(chance, row))
        for row in ranges.get("IntegerParameterRanges", []):
            drawn[row["Name"]] = str(round(_between(chance, row)))
        yield drawn


def _between(chance: random.Random, row: dict[str, str]) -> float:
    low, high = float(row["MinValue"]), float(row["MaxValue"])
    if row.get("ScalingType") == "Logarithmic":
        return min(high, max(low, math.exp(chance.uniform(math.log(low), math.log(high)))))
    return chance.uniform(low, high)
