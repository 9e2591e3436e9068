"""From a folder of photos to a tuned, deployed, invoked and cleaned-up endpoint, as somebody types it, in one go."""

import time
from pathlib import Path

from kennel_launch import flags

from . import deployments
from .conftest import Command
from .emulated import pictures
from .emulated.client import Aws

TINY = [word for name, value in pictures.TINY.items() for word in (flags.flag(name), value)]


def test_from_a_folder_to_an_endpoint_and_back(aws: Aws, programs: Path, command: Command, tmp_path: Path) -> None:
    folder = pictures.photos(tmp_path / "pets", {"red": 8, "green": 8})
    with deployments.of(aws, command, tmp_path) as kennel:
        kennel.settings["image"] = deployments.images(kennel.front)[0]

        def typed(*words: str) -> str:
            done = kennel(*words)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        before = kennel.left(), kennel.schedules(), kennel.keys()
        photos = typed("upload", str(folder), "--yes").split()[-1]
        assert sorted(kennel.keys("kennel/data/pets/")) == sorted(
            f"kennel/data/pets/{path.relative_to(folder)}" for path in folder.rglob("*.png")
        )
        typed("train", "--data", photos, "--name", "pets-1", "--wait", "--yes", *TINY)
        shared = [word for at in range(0, len(TINY), 2) if TINY[at] != "--batch-size" for word in TINY[at : at + 2]]
        space = ("--search-space", "batch_size=4,8", "--tuner", "Grid", "--jobs", "2")
        typed("tune", "--data", photos, "--name", "pets-tuned", *space, "--wait", "--yes", *shared)
        typed("deploy", "--tuning-job", "pets-tuned", "--name", "pets", "--yes")
        answers = typed("invoke", "pets", str(folder / "red"))
        assert answers.count("red") >= 8
        page = tmp_path / "report.html"
        typed("report", "pets-1", "--out", str(page))
        assert "Kennel training report" in page.read_text()
        assert "pets-1" in typed("status")
        typed("delete", "pets", "--yes")
        limit = time.monotonic() + 60  # SageMaker takes its time to end an endpoint
        while kennel.left() != before[0] and time.monotonic() < limit:
            time.sleep(0.5)
        assert (kennel.left(), kennel.schedules()) == before[:2]
        typed("delete", "pets-1", "--data", "--yes")
        assert kennel.keys("kennel/jobs/pets-1/") == []
