"""What a tuner reads in the log of a real job, with the regexes that the tuning request sends."""

import json
import re

import pytest

from kennel.search.sagemaker_tuner import Options, tuning_request

from ..conftest import Job


def read(request: dict, log: str) -> dict[str, list[float]]:
    """Metric -> its values, found line by line as SageMaker finds them."""
    definitions = request["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
    found: dict[str, list[float]] = {}
    for row in definitions:
        matches = [re.search(row["Regex"], line) for line in log.splitlines()]
        found[row["Name"]] = [float(match[1]) for match in matches if match]
    return found


@pytest.mark.slow
def test_the_tuner_reads_each_epoch_of_a_real_log(job: Job) -> None:
    given = {"epochs": "3", "strategy": "probe-then-finetune", "probe_epochs": "2"}
    request = tuning_request(given, "learning_rate", Options(strategy="Hyperband"))
    job.photos("train")
    job.photos("test", {"red": 3, "green": 3})
    job.configure(**given)
    code, log = job.run()
    assert code == 0, log
    found = read(request, log)
    report = json.loads((job.base / "output" / "data" / "report.json").read_text())
    best = next(row for row in report["epochs"] if row["epoch"] == report["best"]["epoch"])
    for name in ("train:loss", "validation:loss", "validation:accuracy"):
        rows = [*report["epochs"], best]  # the log ends with what the model has: SageMaker takes the last value
        assert found[name] == [float(f"{row[name]:.6g}") for row in rows]
    tested = report["evaluation"]["test"]
    assert found["test:accuracy"] == [float(f"{tested['top1']:.6g}")]
    assert found["test:loss"] == [float(f"{tested['loss']:.6g}")]
    config = request["HyperParameterTuningJobConfig"]
    printed = len(found[config["HyperParameterTuningJobObjective"]["MetricName"]])
    assert printed == 5 + 1
    assert config["StrategyConfig"]["HyperbandStrategyConfig"]["MaxResource"] == printed
