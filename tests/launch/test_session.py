"""README's example, from a zip of photos to a tuned, deployed, invoked and removed endpoint, typed into a shell."""

import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

from PIL import Image

from kennel_launch import flags

from . import deployments
from .conftest import REPOSITORY, Command
from .deployments import Kennel
from .emulated import pictures
from .emulated.client import Aws

HEADING = "### Dog breeds, from the zip to an answer"
BREEDS = {"001.Affenpinscher": "red", "124.Poodle": "green"}
COUNTS = {"train": 8, "valid": 4, "test": 3}
# Added to what README types, so that it takes a minute: a tiny network, two jobs instead of twenty.
QUICK = [word for name, value in pictures.TINY.items() if name != "batch_size" for word in (flags.flag(name), value)]
MORE = {"train": QUICK, "tune": [*QUICK, "--jobs", "2"]}
KENNEL = """
    import sys

    sys.path[:0] = {sources}
    from kennel_launch.cli import main

    sys.argv += {more}.get(sys.argv[1], [])
    sys.exit(main())
"""


def zipped(file: Path) -> None:
    """dogImages.zip as Udacity's is laid out, of plain colours."""
    seeds = itertools.count()
    with zipfile.ZipFile(file, "w") as archive:
        for split, count in COUNTS.items():
            for breed, colour in BREEDS.items():
                for number in range(1, count + 1):
                    photo = io.BytesIO()
                    Image.open(io.BytesIO(pictures.photo(colour, next(seeds)))).save(photo, "JPEG", quality=95)
                    name = f"{breed.partition('.')[2]}_{number:05}.jpg"
                    archive.writestr(f"dogImages/{split}/{breed}/{name}", photo.getvalue())


def section() -> str:
    """README's, as one line of words where it is prose."""
    return (REPOSITORY / "README.md").read_text().partition(HEADING)[2].partition("\n## ")[0]


def typed(kennel: Kennel, script: str, folder: Path) -> str:
    """What these lines say in a shell that has `kennel` on PATH; each question is answered y, at a terminal."""
    launcher = folder / "bin" / "kennel"
    launcher.parent.mkdir()
    sources = [str(REPOSITORY / one) for one in ("scripts", "container")]
    launcher.write_text(f"#!{sys.executable}\n" + textwrap.dedent(KENNEL).format(sources=sources, more=MORE))
    launcher.chmod(0o755)
    ours, its = os.openpty()
    try:
        os.write(ours, b"y\n" * 20)
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=kennel.cwd,
            env={**os.environ, **kennel.front.env, "PATH": f"{launcher.parent}:{os.environ['PATH']}"},
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


def costs(kennel: Kennel, script: str) -> str:
    """What the script's own search, with all its jobs, says of its cost."""
    (line,) = [line for line in script.replace("\\\n", " ").splitlines() if line.startswith("kennel tune ")]
    return kennel(*shlex.split(line)[1:], "--dry-run").stderr


def test_the_readmes_example_gives_an_answer_and_leaves_nothing_that_costs(
    aws: Aws, programs: Path, command: Command, tmp_path: Path
) -> None:
    aws.deny("pricing", "GetProducts")  # so that prices are those of the table, as in README
    services = ["sagemaker.amazonaws.com", "scheduler.amazonaws.com"]
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": services}}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    aws.client("iam").update_assume_role_policy(RoleName="kennel-execution", PolicyDocument=policy)
    script = section().split("```")[1]
    with deployments.of(aws, command, tmp_path) as kennel:
        kennel.settings["image"] = deployments.images(kennel.front)[0]
        kennel.write()
        zipped(kennel.cwd / "dogImages.zip")
        before = kennel.left(), kennel.schedules()
        said = typed(kennel, script, tmp_path)
        limit = time.monotonic() + 60  # SageMaker takes its time to end an endpoint
        while kennel.left() != before[0] and time.monotonic() < limit:
            time.sleep(0.5)
        assert (kennel.left(), kennel.schedules()) == before
        assert "removed schedule dogs\n" in said
        sent = [f"kennel/data/{path.relative_to(kennel.cwd)}" for path in kennel.cwd.rglob("*.jpg")]
        assert sorted(kennel.keys("kennel/data/dogImages/")) == sorted(sent)
        said += costs(kennel, script)

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
    for breed in ("Affenpinscher", "Poodle"):
        assert re.search(rf"Affenpinscher_00003.jpg │ {breed} +│ 0\.\d", said)
    prices = re.findall(r"`((?:at most|about) [^`]*)`", " ".join(section().split()))
    assert len(prices) == 3
    for price in prices:
        assert price in said
