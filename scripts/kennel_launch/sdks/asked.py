"""What the objects of either SDK are made from: settings, a training, a search."""

from collections.abc import Mapping
from typing import Any

from kennel import hyperparameters as kennel_hyperparameters
from kennel.search.sagemaker_tuner import Options, tuning_request
from kennel_launch import settings as kennel_settings
from kennel_launch.jobs.requests import Training
from kennel_launch.settings import Settings

JOB = ("role", "bucket", "image")  # the settings that a job needs
_NAME = "kennel"  # of the jobs, to which an SDK adds the time


def settings(given: Mapping[str, Any], *needed: str) -> Settings:
    """Those given, in place of those of the environment and kennel.toml.

    Raises:
        UserError: one that is needed is missing.
    """
    found = kennel_settings.load(given)
    kennel_settings.needed(found, *needed)
    return found


def training(hyperparameters: Mapping[str, str]) -> Training:
    """
    Raises:
        UserError: no hyperparameter is called so, or has such a value.
    """
    kennel_hyperparameters.parse(hyperparameters)
    return Training(_NAME, {}, hyperparameters)


def search(
    hyperparameters: Mapping[str, str], search_space: str, options: Options | None
) -> tuple[Training, dict[str, Any]]:
    """What all jobs of a search share, and the request of kennel.search.sagemaker_tuner.

    Raises:
        UserError: SageMaker would take no such search.
    """
    request = tuning_request(hyperparameters, search_space, options or Options())
    return Training(_NAME, {}, request["TrainingJobDefinition"]["StaticHyperParameters"]), request
