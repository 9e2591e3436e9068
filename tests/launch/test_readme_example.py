"""The example of docs/sagemaker.md typed into a shell: from a zip of photos to an endpoint that answers and goes."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

from kennel_launch.advice import costs

from ..emulated_aws.client import Aws
from ..walkthrough import BREEDS, QUICK, on_path, zipped
from . import deployments
from .conftest import REPOSITORY, Command
from .deployments import Kennel

HEADING = "## Dog breeds, from the zip to an answer"


def section() -> str:
    """The part on the dogs."""
    return (REPOSITORY / "docs" / "sagemaker.md").read_text().partition(HEADING)[2].partition("\n## ")[0]


def typed(kennel: Kennel, script: str, folder: Path) -> str:
    """What these lines say in a shell that has `kennel` on PATH; each question is answered y, at a terminal."""
    ours, its = os.openpty()
    try:
        os.write(ours, b"y\n" * 20)
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=kennel.cwd,
            env={**os.environ, **kennel.front.env, "PATH": on_path(folder, QUICK)},
            stdin=its,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=500,
        )
    finally:
        os.close(ours)
        os.close(its)
    assert done.returncode == 0, done.stdout
    return done.stdout


def advised(kennel: Kennel, script: str) -> str:
    """What the script's own search, with all its jobs, says of its cost."""
    (line,) = [line for line in script.replace("\\\n", " ").splitlines() if line.startswith("kennel tune ")]
    return kennel(*shlex.split(line)[1:], "--dry-run").stderr


def test_the_readmes_example_gives_an_answer_and_leaves_nothing_that_costs(
    aws: Aws, programs: Path, command: Command, tmp_path: Path
) -> None:
    aws.deny("pricing", "GetProducts")  # so that prices are those of the table, as in README
    deployments.trust_the_scheduler(aws)
    script = section().split("```")[1]
    with deployments.of(aws, command, tmp_path) as kennel:
        kennel.settings["image"] = deployments.images(kennel.front)[0]
        kennel.write()
        zipped(kennel.cwd / "dogImages.zip")
        said = typed(kennel, script, tmp_path)
        deployments.wait_until_gone(kennel)
        assert (kennel.left(), kennel.schedules()) == (deployments.NOTHING, [])
        assert "removed schedule dogs\n" in said
        sent = [f"kennel/data/{path.relative_to(kennel.cwd)}" for path in kennel.cwd.rglob("*.jpg")]
        assert sorted(kennel.keys("kennel/data/dogImages/")) == sorted(sent)
        said += advised(kennel, script)

    (tuned,) = aws.asked("sagemaker", "CreateHyperParameterTuningJob")
    ranges = tuned["HyperParameterTuningJobConfig"]["ParameterRanges"]
    (rate,), (size,) = ranges["ContinuousParameterRanges"], ranges["CategoricalParameterRanges"]
    assert (rate["Name"], rate["MinValue"], rate["MaxValue"]) == ("learning_rate", "0.001", "0.1")
    assert (rate["ScalingType"], size["Name"]) == ("Logarithmic", "batch_size")
    assert [json.loads(value) for value in size["Values"]] == [32, 64, 128, 256, 512]
    (trained,) = aws.asked("sagemaker", "CreateTrainingJob")
    (found,) = re.findall(r"^found: +(.*)$", said, re.MULTILINE)
    chosen = {name: json.loads(trained["HyperParameters"][name]) for name in ("batch_size", "learning_rate")}
    assert " ".join(f"{name}={value}" for name, value in chosen.items()) == found
    assert trained["HyperParameters"]["rules"].strip('"') == "all"
    assert re.search(r"^all +16 +8 +6$", said, re.MULTILINE)  # train, valid and test are taken as such
    assert "Kennel training report" in (kennel.cwd / "dogs.html").read_text()
    for breed in BREEDS:
        assert re.search(rf"Affenpinscher_00003.jpg │ {re.escape(breed)} +│ 0\.\d", said)
    prose = " ".join(section().split())
    prices = re.findall(r"`((?:at most|about) [^`]*)`", prose)
    assert len(prices) == 3
    for price in prices:
        assert price in said
    total = 21 * costs.TABLE["ml.g5.xlarge"] + 2 * costs.TABLE["ml.c5.large"]
    assert f"at most ${total:.2f}; by a table of {costs.TABLE_DATE} for us-east-1" in prose
