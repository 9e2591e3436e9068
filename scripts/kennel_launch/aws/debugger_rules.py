"""SageMaker Debugger's hook, profiler and built-in rules for a request; closed to new customers since 2026-07-30.

https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html
"""

from typing import Any

from kennel.errors import UserError

# The accounts of the rules' image, by region:
# https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-reference.html#debugger-docker-images-rules
_ACCOUNTS = {
    "af-south-1": "314341159256",
    "ap-east-1": "199566480951",
    "ap-northeast-1": "430734990657",
    "ap-northeast-2": "578805364391",
    "ap-northeast-3": "479947661362",
    "ap-south-1": "904829902805",
    "ap-southeast-1": "972752614525",
    "ap-southeast-2": "184798709955",
    "ca-central-1": "519511493484",
    "cn-north-1": "618459771430",
    "cn-northwest-1": "658757709296",
    "eu-central-1": "482524230118",
    "eu-north-1": "314864569078",
    "eu-south-1": "563282790590",
    "eu-west-1": "929884845733",
    "eu-west-2": "250201462417",
    "eu-west-3": "447278800020",
    "me-south-1": "986000313247",
    "sa-east-1": "818342061345",
    "us-east-1": "503895931360",
    "us-east-2": "915447279597",
    "us-gov-west-1": "515509971035",
    "us-west-1": "685455198987",
    "us-west-2": "895741380848",
}
_RULES = ("VanishingGradient", "Overfit", "Overtraining", "PoorWeightInitialization", "LossNotDecreasing")
_EVERY = {"save_interval": "500"}  # steps
# What those rules look at.
_COLLECTIONS = {"gradients": _EVERY, "losses": _EVERY, "relu_input": {"include_regex": ".*relu_input", **_EVERY}}
_PROFILER_RULES = {
    "LowGPUUtilization": {
        "threshold_p95": "70",
        "threshold_p5": "10",
        "window": "500",
        "patience": "1000",
        "scan_interval_us": "60000000",
    },
    "ProfilerReport": {},
}


def configurations(region: str, output: str) -> dict[str, Any]:
    """The members of CreateTrainingJob that ask for them.

    Args:
        output: S3 URI, where tensors and system metrics go.

    Raises:
        UserError: AWS has no rules in this region.
    """
    if region not in _ACCOUNTS:
        raise UserError(f"SageMaker Debugger has no rules in {region}: leave --debugger out, ours need no service")
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    image = f"{_ACCOUNTS[region]}.dkr.ecr.{region}.{domain}/sagemaker-debugger-rules:latest"

    def rule(name: str, parameters: dict[str, str]) -> dict[str, Any]:
        asked = {"rule_to_invoke": name, **parameters}
        return {"RuleConfigurationName": name, "RuleEvaluatorImage": image, "RuleParameters": asked}

    collections = [
        {"CollectionName": name, "CollectionParameters": parameters} for name, parameters in _COLLECTIONS.items()
    ]
    return {
        "DebugHookConfig": {"S3OutputPath": output, "CollectionConfigurations": collections},
        "DebugRuleConfigurations": [rule(name, {}) for name in _RULES],
        "ProfilerConfig": {"S3OutputPath": output, "DisableProfiler": False, "ProfilingIntervalInMilliseconds": 500},
        "ProfilerRuleConfigurations": [rule(*row) for row in _PROFILER_RULES.items()],
    }
