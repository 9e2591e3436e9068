"""SageMaker's control plane: each operation checked, recorded, and what it starts started."""

from collections.abc import Callable
from typing import Any

from ..http import checks
from ..http.account import Account
from ..http.errors import invalid
from ..http.resources import KINDS, page
from ..runners import training, transform, tuning
from . import components, endpoints, pipelines, registry

Params = dict[str, Any]


def answer(account: Account, operation: str, params: Params) -> Params | None:
    """None: no operation of ours.

    Raises:
        AwsError: refused.
    """
    for module in (registry, pipelines):
        if operation in module.OPERATIONS:
            return module.OPERATIONS[operation](account, params)
    if operation in _OPERATIONS:
        return _OPERATIONS[operation](account, params)
    for kind in KINDS:
        if operation == f"Describe{kind}":
            return account.store.describe(kind, params[f"{kind}Name"])
        if operation == f"List{kind}s":
            return account.store.list(kind, params)
    return None


def _create_model(account: Account, params: Params) -> Params:
    served = registry.containers(account, params)
    checks.model(account, params | {"ServedContainers": served})
    return {"ModelArn": account.store.add("Model", params, ServedContainers=served)["ModelArn"]}


def _create_endpoint_config(account: Account, params: Params) -> Params:
    checks.endpoint_config(account, params)
    return {"EndpointConfigArn": account.store.add("EndpointConfig", params)["EndpointConfigArn"]}


def _create_training_job(account: Account, params: Params) -> Params:
    checks.training(account, params)
    artifacts = {"S3ModelArtifacts": training.model_url(params)}
    record = account.store.add("TrainingJob", params, SecondaryStatus="Starting", ModelArtifacts=artifacts)
    if not account.held:
        training.start(account, record)
    return {"TrainingJobArn": record["TrainingJobArn"]}


def _create_tuning_job(account: Account, params: Params) -> Params:
    plan = tuning.definition(params)
    checks.training(account, plan)
    statuses = dict.fromkeys(("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped"), 0)
    objectives = dict.fromkeys(("Succeeded", "Pending", "Failed"), 0)
    record = account.store.add(
        "HyperParameterTuningJob", params, TrainingJobStatusCounters=statuses, ObjectiveStatusCounters=objectives
    )
    if not account.held:
        tuning.start(account, record)
    return {"HyperParameterTuningJobArn": record["HyperParameterTuningJobArn"]}


def _create_transform_job(account: Account, params: Params) -> Params:
    checks.transform(account, params)
    record = account.store.add("TransformJob", params)
    if not account.held:
        transform.start(account, record)
    return {"TransformJobArn": record["TransformJobArn"]}


def _list_trials(account: Account, params: Params) -> Params:
    name = params["HyperParameterTuningJobName"]
    account.store.get("HyperParameterTuningJob", name)
    operation = "ListTrainingJobsForHyperParameterTuningJob"
    return page(operation, tuning.trials(account, name), params, "TrainingJob", ascending=True)


def _stop(kind: str) -> Callable[[Account, Params], Params]:
    def stop(account: Account, params: Params) -> Params:
        record = account.store.get(kind, params[f"{kind}Name"])
        status = record[KINDS[kind].status]
        if status not in ("InProgress", "Stopping"):
            what = KINDS[kind].slug.replace("-", " ")
            raise invalid(f"The request was rejected because the {what} is in status {status}.")
        account.store.change(record, **{KINDS[kind].status: "Stopped" if account.held else "Stopping"})
        names = [params[f"{kind}Name"]]
        if kind == "HyperParameterTuningJob":
            names += [one["TrainingJobName"] for one in tuning.trials(account, names[0])]
        for name in names:
            if name in account.stops:
                account.stops[name].set()
        return {}

    return stop


def _delete(kind: str) -> Callable[[Account, Params], Params]:
    def delete(account: Account, params: Params) -> Params:
        account.store.remove(kind, params[f"{kind}Name"])
        return {}

    return delete


def _add_tags(account: Account, params: Params) -> Params:
    record = account.store.tagged(params["ResourceArn"])
    new = {tag["Key"]: tag for tag in [*record.get("Tags", []), *params["Tags"]]}
    account.store.change(record, Tags=list(new.values()))
    return {"Tags": list(new.values())}


def _list_tags(account: Account, params: Params) -> Params:
    return {"Tags": account.store.tagged(params["ResourceArn"]).get("Tags", [])}


def _delete_tags(account: Account, params: Params) -> Params:
    record = account.store.tagged(params["ResourceArn"])
    left = [tag for tag in record.get("Tags", []) if tag["Key"] not in params["TagKeys"]]
    account.store.change(record, Tags=left)
    return {}


_OPERATIONS: dict[str, Callable[[Account, Params], Params]] = {
    "CreateModel": _create_model,
    "CreateEndpointConfig": _create_endpoint_config,
    "CreateEndpoint": endpoints.create,
    "CreateTrainingJob": _create_training_job,
    "CreateHyperParameterTuningJob": _create_tuning_job,
    "CreateTransformJob": _create_transform_job,
    "UpdateEndpoint": endpoints.update,
    "DeleteEndpoint": endpoints.delete,
    "CreateInferenceComponent": components.create,
    "DeleteInferenceComponent": components.delete,
    "StopTrainingJob": _stop("TrainingJob"),
    "StopHyperParameterTuningJob": _stop("HyperParameterTuningJob"),
    "StopTransformJob": _stop("TransformJob"),
    "ListTrainingJobsForHyperParameterTuningJob": _list_trials,
    "DeleteModel": _delete("Model"),
    "DeleteEndpointConfig": _delete("EndpointConfig"),
    "AddTags": _add_tags,
    "ListTags": _list_tags,
    "DeleteTags": _delete_tags,
}
