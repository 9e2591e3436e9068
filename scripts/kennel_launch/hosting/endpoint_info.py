"""What an endpoint serves: its configuration and model, and by them its mode, its limits and where answers go."""

from dataclasses import dataclass, field
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import session
from kennel_launch.hosting import specs
from kennel_launch.settings import Settings


@dataclass(frozen=True)
class EndpointInfo:
    """One endpoint as AWS describes it."""

    name: str
    status: str
    config: str
    mode: str
    models: tuple[str, ...] = ()
    data: str = ""  # s3://, of the first model
    image: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    package: str = ""  # of the model registry, its ARN; then `data` and `image` are ""
    concurrency: int | None = None  # requests that it takes at once, where that is limited
    variants: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name -> instance types; (): serverless
    instances: int = 0  # wanted now, of all variants
    capture: str = ""  # s3://, where its requests are captured
    component: str = ""  # the inference component that has the model, where the variant has none

    @property
    def largest_body(self) -> int:
        """Bytes."""
        return specs.largest_body(self.mode, self.environment)


def find(name: str, settings: Settings) -> EndpointInfo | None:
    """None: there is no endpoint of that name.

    Raises:
        UserError: AWS does not say.
    """
    client = session.client("sagemaker", settings)
    with session.translate_errors(f"endpoint {name}"):
        endpoint = session.describe(client, "describe_endpoint", EndpointName=specs.checked(name, "endpoint"))
        if endpoint is None:
            return None
        config_name = endpoint["EndpointConfigName"]
        # Both can be gone while the endpoint goes on.
        config = session.describe(client, "describe_endpoint_config", EndpointConfigName=config_name) or {}
        variants = config.get("ProductionVariants", [])
        names = tuple(variant["ModelName"] for variant in variants if variant.get("ModelName"))
        component = _component(client, name) if variants and not names else {}
        if component:
            names = (component["Specification"]["ModelName"],)
        model = (session.describe(client, "describe_model", ModelName=names[0]) if names else None) or {}
    container = model.get("PrimaryContainer", {})
    return EndpointInfo(
        name,
        endpoint["EndpointStatus"],
        config_name,
        _mode(config, container),
        names,
        container.get("ModelDataUrl", ""),
        container.get("Image", ""),
        dict(container.get("Environment", {})),
        endpoint.get("FailureReason", ""),
        container.get("ModelPackageName", ""),
        next((v["ServerlessConfig"]["MaxConcurrency"] for v in variants if "ServerlessConfig" in v), None),
        {variant["VariantName"]: _types(variant) for variant in variants},
        sum(variant.get("DesiredInstanceCount", 0) for variant in endpoint.get("ProductionVariants", [])),
        config.get("DataCaptureConfig", {}).get("DestinationS3Uri", ""),
        component.get("InferenceComponentName", ""),
    )


def needed(name: str, settings: Settings) -> EndpointInfo:
    """An endpoint that takes requests.

    Raises:
        UserError: there is none of that name, or it takes none.
    """
    found = find(name, settings)
    if found is None:
        raise UserError(
            f"there is no endpoint {name} in {session.region(settings)}: kennel status lists those that are"
        )
    if found.status in ("Creating", "Failed", "Deleting", "OutOfService"):
        wait = "wait until it is in service" if found.status == "Creating" else "deploy it again by kennel deploy"
        raise UserError(f"endpoint {name} is {found.status} and takes no requests: {wait}")
    return found


def _types(variant: dict[str, Any]) -> tuple[str, ...]:
    """Instance types, the first choice first."""
    pools = sorted(variant.get("InstancePools", []), key=lambda pool: pool["Priority"])
    return tuple(pool["InstanceType"] for pool in pools) or tuple(
        variant[name] for name in ("InstanceType",) if name in variant
    )


def _component(client: Any, name: str) -> dict[str, Any]:
    """The first of the endpoint's inference components that has a model of its own, as AWS describes it."""
    for row in client.list_inference_components(EndpointNameEquals=name)["InferenceComponents"]:
        found = session.describe(
            client, "describe_inference_component", InferenceComponentName=row["InferenceComponentName"]
        )
        if found and found.get("Specification", {}).get("ModelName"):
            return found
    return {}


def _mode(config: dict[str, Any], container: dict[str, Any]) -> str:
    if "AsyncInferenceConfig" in config:
        return specs.ASYNC
    if any("ServerlessConfig" in variant for variant in config.get("ProductionVariants", [])):
        return specs.SERVERLESS
    return specs.MULTI_MODEL if container.get("Mode") == "MultiModel" else specs.REAL_TIME
