"""The notebook against the emulated AWS; tests/image executes it in local mode."""

import re
from pathlib import Path

import nbformat

from ..emulated_aws.client import Aws
from ..walkthrough import BREEDS, NOTEBOOK, QUICK, executed, on_path, zipped
from . import deployments
from .conftest import Command


def test_the_notebook_goes_from_the_zip_to_an_answer_and_leaves_nothing_that_costs(
    aws: Aws, programs: Path, command: Command, tmp_path: Path
) -> None:
    deployments.trust_the_scheduler(aws)
    with deployments.of(aws, command, tmp_path) as kennel:
        image = deployments.images(kennel.front)[0]
        kennel.settings["image"] = "named-by-IMAGE-instead"
        kennel.write()
        zipped(kennel.cwd / "dogImages.zip")
        own = {"IMAGE": image, "BACKBONE": "resnet18", "LOCAL": "", "PATH": on_path(tmp_path, QUICK)}
        shown = executed(kennel.cwd, kennel.front.env | own)
        deployments.wait_until_gone(kennel)
        assert (kennel.left(), kennel.schedules()) == (deployments.NOTHING, [])
    assert shown["photos"] == "train: 16 photos\nvalid: 8 photos\ntest: 6 photos\n<png>\n"
    assert "--backbone resnet18" in shown["search"]
    assert "searched: learning_rate=0.001..0.1 batch_size=32,64,128,256,512" in shown["search"]
    (found,) = re.findall(r"^found: +batch_size=(\S+) learning_rate=(\S+)$", shown["best"], re.MULTILINE)
    (trained,) = aws.asked("sagemaker", "CreateTrainingJob")
    given = {name: value.strip('"') for name, value in trained["HyperParameters"].items()}
    assert (given["batch_size"], given["learning_rate"]) == found
    assert "Kennel training report" in shown["report"]
    assert "in service" in shown["deploy"]
    assert shown["ask"].splitlines()[-1] in [f"001.Affenpinscher: {breed}" for breed in BREEDS]
    assert 'src="data:image/jpeg;base64,' in shown["ask"]
    assert len(re.findall(r"about \$\d.*an hour", shown["cost"])) == 4
    assert re.search(r"^cost: +about \$0", shown["cost"], re.MULTILINE)
    assert "removed schedule dogs-" in shown["delete"]


def test_the_notebook_is_committed_as_nobody_has_run_it() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)
