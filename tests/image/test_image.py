"""What the image is: its labels, what it must not hold, and what it does with each command."""

import json
from collections.abc import Callable

import pytest


def test_the_platform_may_choose_the_port(docker: Callable, image: str) -> None:
    labels = json.loads(docker("inspect", "-f", "{{json .Config.Labels}}", image).stdout)
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"


def test_its_label_is_the_cuda_that_torch_was_built_for(docker: Callable, image: str) -> None:
    label = docker("inspect", "-f", '{{index .Config.Labels "kennel.cuda"}}', image).stdout
    script = "import torch; print(torch.version.cuda)"
    assert docker("run", "--rm", image, "python3", "-c", script).stdout == label


def test_neither_toolkit_is_told_of_a_program(docker: Callable, image: str) -> None:
    names = {row.split("=")[0] for row in json.loads(docker("inspect", "-f", "{{json .Config.Env}}", image).stdout)}
    assert "SAGEMAKER_PROGRAM" not in names
    assert "SAGEMAKER_TRAINING_MODULE" in names


def test_no_compiler_and_nothing_under_opt_ml(docker: Callable, image: str) -> None:
    script = 'for tool in gcc cc c++ clang ld make; do command -v $tool; done; find /opt/ml -mindepth 1; echo "end"'
    ended = docker("run", "--rm", image, "bash", "-c", script)
    assert ended.stdout == "end\n"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ([], 2, "`train` or `serve`"),
        (["train"], 1, "/opt/ml holds no input"),
        (["serve"], 1, "manifest.json is missing"),
        (["trian"], 127, "'trian' cannot be started"),
    ],
)
def test_a_command_that_cannot_work_says_why(
    docker: Callable, image: str, command: list[str], code: int, said: str
) -> None:
    ended = docker("run", "--rm", "--network", "none", image, *command)
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("options", [[], ["--user", "1000:1000", "--read-only"]], ids=["root", "unprivileged"])
@pytest.mark.parametrize(
    ("command", "code", "output"),
    [
        (["bash", "-c", "exit 3"], 3, ""),
        (["python3", "-c", "import getpass, torch; print(getpass.getuser() != '')"], 0, "True\n"),
        (["bash", "-c", 'test -w "$HOME" || test "$HOME" = /tmp'], 0, ""),
    ],
    ids=["exit", "python", "home"],
)
def test_any_other_command_runs_as_it_is(
    docker: Callable, image: str, options: list[str], command: list[str], code: int, output: str
) -> None:
    ended = docker("run", "--rm", "--network", "none", *options, image, *command)
    assert (ended.returncode, ended.stdout) == (code, output)


def test_every_package_of_the_lock_imports(docker: Callable, image: str) -> None:
    imports = "import torchvision, timm, onnx, onnxscript, onnxruntime, safetensors, pandas, mms, sagemaker_inference"
    assert docker("run", "--rm", "--network", "none", image, "python3", "-c", imports).returncode == 0


def test_orphans_do_not_pile_up(docker: Callable, image: str) -> None:
    script = """
        bash -c 'sleep 0.1 & echo $! > /tmp/orphan'
        for _ in $(seq 100); do [ -d /proc/$(cat /tmp/orphan) ] || exit 0; sleep 0.1; done; exit 1
    """
    assert docker("run", "--rm", image, "bash", "-c", script).returncode == 0
