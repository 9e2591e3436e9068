"""A search in the image by `kennel tune --local --image`: the same output, all of it the caller's."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def test_a_search_in_the_image_leaves_what_one_here_leaves(
    image: str, photos: Path, tmp_path: Path, hyperparameters: dict[str, str], strangers: Callable
) -> None:
    words = " ".join(f"{name}={value}" for name, value in hyperparameters.items() if name != "batch_size")
    command = [sys.executable, "-m", "kennel_launch.cli", "tune", "--local", "--image", image, "--data", str(photos)]
    flags = [
        "--out",
        "out",
        "--trials",
        "4",
        "--search-space",
        "learning_rate batch_size=4,8",
        "--hyperparameters",
        words,
    ]
    ended = subprocess.run(
        [*command, *flags, "--hyperparameters", words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    out = tmp_path / "out" / "output" / "data"
    found = json.loads((out / "trials.json").read_text())
    assert len(found["trials"]) == 4
    assert found["trials"][found["best"]]["value"] is not None
    settings = json.loads((out / "best-hyperparameters.json").read_text())
    manifest = json.loads((tmp_path / "out" / "model" / "manifest.json").read_text())
    assert float(settings["learning_rate"]) == manifest["hyperparameters"]["learning_rate"]
    assert (out / "report.html").exists()
    assert strangers(tmp_path / "out") == []
