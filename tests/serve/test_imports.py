"""What serving on a CPU imports, in an interpreter of its own: only packages that the slim image has."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements" / "serve.txt"
HEAVY = {"torch", "torchvision", "timm", "scipy", "cv2", "onnx", "matplotlib", "pandas", "boto3"}
# Every module but those of the engine that is imported only where it was chosen, and what the model server runs around
# them.
SCRIPT = """
import sys
before = set(sys.modules)
import importlib, json, pkgutil
import kennel_serve
for module in pkgutil.walk_packages(kennel_serve.__path__, "kennel_serve."):
    if module.name.rpartition(".")[2] not in ("torch_network", "cuda_graphs", "torch_defaults"):
        importlib.import_module(module.name)
import mms.model_server, mms.model_service_worker
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def imported(script: str) -> set[str]:
    """The top-level modules that a script prints, run apart from this folder and from pytest's modules."""
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_nothing_of_training_is_imported() -> None:
    found = imported(SCRIPT)
    assert {"kennel_serve", "onnxruntime", "mms", "sagemaker_inference"} <= found
    assert not found & HEAVY


def test_the_slim_images_lock_has_all_that_is_imported() -> None:
    locked = {normal(name) for name in re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)}
    owners = packages_distributions()
    needed = {normal(owner) for name in imported(SCRIPT) for owner in owners.get(name, [])}
    assert {"numpy", "httptools", "pillow"} <= needed
    assert needed - {"kennel"} <= locked
