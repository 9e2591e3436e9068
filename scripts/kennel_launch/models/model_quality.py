"""A job's report as what the model registry shows of a model: its statistics, and the figures on a package itself."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

GROUP = "multiclass_classification_metrics"
_TAKEN = re.compile(r"[^\w .:/=+\-@]")  # botocore's service model, CustomerMetadataValue, says what is
_LONGEST = 256


def statistics(report: Mapping[str, Any], finals: Mapping[str, float]) -> dict[str, Any]:
    """The statistics file of ModelMetrics.ModelQuality, as Model Monitor writes it for classes.

    https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-metrics.html (2026-11)

    Args:
        report: of report.json; empty where the job left none.
        finals: the job's FinalMetricDataList, which speaks where the report does not.
    """
    split, judged = judgement(report)
    if not judged:
        accuracy = finals.get("test:accuracy", finals.get("validation:accuracy"))
        return {GROUP: {"accuracy": _figure(accuracy)} if accuracy is not None else {}}
    rows: Mapping[str, Mapping[str, Any]] = judged["classes"]
    photos = sum(row["photos"] for row in rows.values())
    precision = sum(row["photos"] * (row["precision"] or 0) for row in rows.values()) / max(photos, 1)
    figures = {
        "accuracy": judged["top1"],
        "weighted_recall": judged["top1"],
        "weighted_precision": precision,
        "cross_entropy": judged["loss"],
        "expected_calibration_error": judged["calibration_error_scaled"],
        "temperature": judged["temperature"],
    }
    found: dict[str, Any] = {name: _figure(value) for name, value in figures.items() if value is not None}
    if confusion := judged.get("confusion"):  # more than 100 classes have none
        names = list(rows)
        found["confusion_matrix"] = {
            name: dict(zip(names, row, strict=True)) for name, row in zip(names, confusion, strict=True)
        }
    return {"dataset": {"item_count": judged["photos"], "split": split}, GROUP: found}


def properties(job: Mapping[str, Any], report: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, str]:
    """CustomerMetadataProperties of what a training job made.

    Args:
        job: as DescribeTrainingJob says it.
        report: of report.json; empty where the job left none.
        more: of the package, which come first.
    """
    found = dict(more) | {"training_job": job["TrainingJobName"]}
    found |= {name: f"{value:.6g}" for name, value in finals(job).items()}
    found |= dict(_of_report(report))
    return {key: _TAKEN.sub(" ", value)[:_LONGEST] for key, value in found.items() if value}


def finals(job: Mapping[str, Any]) -> dict[str, float]:
    """The last value of each metric that SageMaker read from the job's log: the model's."""
    return {row["MetricName"]: row["Value"] for row in job.get("FinalMetricDataList", [])}


def judgement(report: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """(split, its figures): of the test photos, else of those that chose the epoch; ("", {}) where there are none."""
    for split in ("test", "validation"):
        if found := report.get("evaluation", {}).get(split):
            return split, found
    return "", {}


def _of_report(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    split, judged = judgement(report)
    if not judged:
        return
    yield "backbone", str(report["hyperparameters"].get("backbone", ""))
    yield "classes", str(len(report["class_names"]))
    yield "judged_by", f"{judged['photos']} {split} photos"
    for name, key in (("temperature", "temperature"), ("calibration_error", "calibration_error_scaled")):
        if judged[key] is not None:
            yield name, f"{judged[key]:.6g}"


def _figure(value: float) -> dict[str, Any]:
    return {"value": value, "standard_deviation": "NaN"}
