"""`kennel tune --local`: what it refuses, what it keeps for a second start, how trials are shown, how it is stopped."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kennel.layout import Layout
from kennel_launch.commands import tune
from kennel_launch.console import trials_table
from kennel_launch.local_mode import command_lines

from ..conftest import REPOSITORY, Command

MakePhotos = Callable[[dict[str, int]], Path]


def row(number: int, state: str = "complete", value: float | None = None, **more: Any) -> dict[str, Any]:
    """One trial, as the job writes it."""
    return {
        "number": number,
        "state": state,
        "hyperparameters": {"learning_rate": 0.01 + number / 1000, "batch_size": 32},
        "value": value,
        "epoch": 3 if value else None,
        "metrics": {},
        "reason": "",
        "same_as": None,
        "seconds": 1.25,
        "curve": [],
    } | more


def write(path: Path, rows: list[dict[str, Any]], best: int | None, **more: Any) -> Path:
    """A trials.json."""
    table = {
        "objective": "validation:accuracy",
        "goal": "Maximize",
        "search": "random",
        "space": {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}, "batch_size": {"values": [32, 64]}},
        "trials": rows,
        "best": best,
        "importances": {},
        "seconds": 12.3,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table | more))
    return path


def shown(path: Path) -> list[list[str]]:
    """The cells of the table, row by row."""
    found = trials_table.read(path)
    assert found
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(trials_table.table(found))
    lines = console.export_text().splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


SOME = [
    row(0, value=0.5),
    row(1, "failed", reason="the loss is NaN\nor infinite in epoch 2"),
    row(2, "pruned", value=0.9, reason="successive halving: not among the best after 1 epochs"),
    row(3, value=0.75),
    row(4, "same", value=0.5, same_as=0),
    row(5, "running"),
    row(6, value=0.75),
]


def test_the_best_trial_comes_first_and_a_failed_one_says_why(tmp_path: Path) -> None:
    cells = shown(write(tmp_path / "trials.json", SOME, best=6))
    assert [line[0] for line in cells] == ["6", "3", "0", "4", "2", "1", "5"]
    assert cells[0] == ["6", "0.016", "32", "0.7500", "3", "1.2", "best"]
    assert [line[-1] for line in cells[1:]] == [
        "",
        "",
        "same as trial 0",
        "stopped early: successive halving: not among the best after 1 epochs",
        "failed: the loss is NaN or infinite in epoch 2",
        "running or next",
    ]


def test_where_less_is_better_the_least_comes_first(tmp_path: Path) -> None:
    rows = [row(0, value=0.5), row(1, value=0.2), row(2, value=0.3)]
    path = write(tmp_path / "trials.json", rows, best=1, goal="Minimize", objective="validation:loss")
    assert [line[0] for line in shown(path)] == ["1", "2", "0"]


def test_a_reason_is_no_markup(tmp_path: Path) -> None:
    path = write(tmp_path / "trials.json", [row(0, "failed", reason="no [bold]such[/] thing [/x]")], best=None)
    assert shown(path)[0][-1] == "failed: no [bold]such[/] thing [/x]"


def test_a_long_table_keeps_the_best_the_newest_the_failed_and_the_running(tmp_path: Path) -> None:
    rows = [row(i, value=0.9 - i / 1000) for i in range(50)]
    rows += [row(i, "failed", reason=f"reason {i}") for i in range(50, 60)]
    rows += [row(60, value=0.1), *(row(i, "running") for i in range(61, 100))]
    cells = shown(write(tmp_path / "trials.json", rows, best=0))
    numbers = [int(line[0]) for line in cells]
    assert numbers == [*range(13), 60, 57, 58, 59, 61, 62, 63]
    few = shown(write(tmp_path / "trials.json", rows[60:], best=60))
    assert [int(line[0]) for line in few] == [60, 61, 62, 63]


def test_there_may_be_no_trials_yet(tmp_path: Path) -> None:
    assert trials_table.read(tmp_path / "trials.json") is None
    (tmp_path / "trials.json").write_text("{")
    assert trials_table.read(tmp_path / "trials.json") is None


def test_a_line_for_each_trial_that_has_ended_since(tmp_path: Path) -> None:
    before = trials_table.read(write(tmp_path / "trials.json", SOME[:6], best=3))
    now = trials_table.read(
        write(tmp_path / "trials.json", [*SOME[:5], row(5, "failed", reason="why"), SOME[6]], best=6)
    )
    assert before
    assert now
    assert list(trials_table.lines(before, now)) == [
        "trial 5: learning_rate=0.015 batch_size=32 failed: why",
        "trial 6: validation:accuracy=0.7500 learning_rate=0.016 batch_size=32 best so far",
    ]
    assert len(list(trials_table.lines(None, before))) == 5


@pytest.mark.parametrize("terminal", [True, False])
def test_the_view_ends_with_all_that_the_job_wrote(tmp_path: Path, terminal: bool) -> None:
    layout, log, screen = Layout(tmp_path), tmp_path / "train.log", io.StringIO()
    log.write_text("epoch=1\nthe [last] line\n")
    write(layout.output_data / "new", SOME, best=6)
    late = f"sleep 0.2; mv {layout.output_data}/new {layout.output_data}/trials.json"
    with subprocess.Popen(["sh", "-c", late]) as process:
        tune.follow(process, layout, log, Console(width=160, file=screen, force_terminal=terminal))
    text = screen.getvalue()
    assert "failed: the loss is NaN or infinite in epoch 2" in text
    assert ("the [last] line" in text) is terminal
    assert ("random search: 6 trials ended in 12 s" in text) is terminal
    assert ("trial 6: validation:accuracy=0.7500 learning_rate=0.016 batch_size=32 best so far" in text) is not terminal


def options(**more: Any) -> Namespace:
    given = {"data": Path("my photos"), "image": "", "gpus": "", "pretrained": None, "hyperparameters": "epochs=5"}
    given |= {"trials": "20", "search": "random", "search_space": "", "time_budget": ""}
    return Namespace(**given | more)


def test_the_end_says_what_is_best_where_it_lies_and_how_to_train_with_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    best = row(6, value=0.75, hyperparameters={"learning_rate": 0.0123456789, "trivial_augment": True, "epochs": 7})
    path = write(layout.output_data / "trials.json", [*SOME[:6], best], best=6, space={"learning_rate": {}})
    (layout.output_data / "best-hyperparameters.json").write_text("{}")
    layout.model.mkdir()  # empty: no model
    asked = options(image="kennel:dev", gpus="all", pretrained=Path("weights"))
    lines = list(tune.summary(layout, trials_table.read(path), tune.settings_of(asked), asked))
    assert lines[:2] == [
        "best: trial 6: validation:accuracy=0.7500 learning_rate=0.01235",
        f"settings: {tmp_path}/output/data/best-hyperparameters.json",
    ]
    assert len(lines) == 3
    assert shlex.split(lines[2]) == [
        *("train", "with", "it:", "make", "train-local"),
        *("DATA=my photos", "IMAGE=kennel:dev", "GPUS=all", "PRETRAINED=weights"),
        "HP=epochs=7 learning_rate=0.0123456789 trivial_augment=true",
    ]


def test_a_search_that_was_stopped_in_its_first_trial_has_a_best_without_a_figure(tmp_path: Path) -> None:
    path = write(tmp_path / "trials.json", [row(0, "running"), row(1, "running")], best=0)
    lines = list(tune.summary(Layout(tmp_path), trials_table.read(path), {}, options()))
    assert lines == [
        "best: trial 0: learning_rate=0.01 batch_size=32",
        "train with it: make train 'DATA=my photos' 'HP=learning_rate=0.01 batch_size=32'",
    ]
    assert shown(path)[0][-1] == "best"
    assert list(tune.summary(Layout(tmp_path), None, {}, options())) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the role is missing"),
        (["--local", "--image", "x", "--data", ".", "--val", "v"], "--local takes the splits inside the data"),
        (["--local"], "say where the photos are: --data FOLDER"),
        (["--local", "--image", "x", "--data", "/no/folder"], "DATA=/no/folder is no folder"),
        (["--local", "--image", "x", "--data", ".", "--pretrained", "/no"], "PRETRAINED=/no is no folder"),
        (["--local", "--image", "x", "--data", ".", "--trials", "1"], "--trials 1 is no search: write 2 or more"),
        (["--local", "--image", "x", "--data", ".", "--trials", "many"], "trials='many': write a whole number"),
        (["--local", "--image", "x", "--data", ".", "--time-budget", "-1"], "time_budget='-1': write a number"),
        (["--local", "--image", "x", "--data", ".", "--search-space", "epoch=1..3"], "did you mean 'epochs'?"),
        (["--local", "--image", "x", "--data", ".", "--search-space", "batch_size=8"], "batch_size=8 is no choice"),
        (["--local", "--image", "x", "--data", ".", "--hyperparameters", "epochs"], "'epochs' has no value"),
        (["--local", "--image", "x", "--data", ".", "--hyperparameters", "epochs=0"], "epochs='0': write a whole"),
        (
            ["--local", "--image", "x", "--data", ".", "--hyperparameters", "search-space=epochs=1..3"],
            "--hyperparameters: write search_space as --search-space",
        ),
    ],
)
def test_bad_usage_is_one_sentence_and_starts_nothing(command: Command, arguments: list[str], said: str) -> None:
    done = command("cli", "tune", *arguments, DOCKER="/bin/false")
    assert done.returncode == 2
    assert done.stderr.startswith("kennel tune: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_search_of_another_kind_and_flags_without_a_command_are_bad_usage(command: Command) -> None:
    assert command("cli", "tune", "--local", "--search", "guess").returncode == 2
    done = command("cli", "--local")
    assert done.returncode == 2
    assert "COMMAND" in done.stderr


@pytest.mark.skipif(
    command_lines.executable("train").is_file(), reason="this is the image's environment, with its `train`"
)
def test_without_an_image_the_images_environment_is_needed(command: Command, tmp_path: Path) -> None:
    done = command("cli", "tune", "--local", "--data", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("kennel tune: no `train` lies beside ")
    assert done.stderr.count("\n") == 1


def environment(**more: str) -> dict[str, str]:
    sources = os.pathsep.join(str(REPOSITORY / folder) for folder in ("scripts", "container"))
    return {**os.environ, "PYTHONPATH": sources, **more}


def client(tmp_path: Path, script: str) -> str:
    """A docker client that does something else."""
    path = tmp_path / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_the_job_gets_the_search_as_hyperparameters_and_its_failure_is_exit_code_1(
    command: Command, make_photos: MakePhotos, tmp_path: Path
) -> None:
    data, out = make_photos({"train/ant": 2, "train/bee": 2, "val/ant": 1, "val/bee": 1}), tmp_path / "out"
    docker = client(tmp_path, 'echo "no such image"; exit 125')
    words = ["--trials", "7", "--search", "tpe", "--search-space", "learning_rate", "--time-budget", "1.5"]
    words += ["--hyperparameters", "epochs=5 backbone=resnet18", "--image", "kennel:none"]
    done = command("cli", "tune", "--local", "--data", str(data), "--out", str(out), *words, DOCKER=docker)
    assert done.returncode == 1
    assert done.stderr.startswith("kennel tune: docker could not start the container (no such image)")
    assert "no such image" in done.stderr
    assert done.stdout == ""
    assert json.loads((out / "input/config/hyperparameters.json").read_text()) == {
        "epochs": "5",
        "backbone": "resnet18",
        "trials": "7",
        "search": "tpe",
        "search_space": "learning_rate",
        "time_budget": "1.5",
    }
    assert set(json.loads((out / "input/config/inputdataconfig.json").read_text())) == {"train", "validation"}
    assert json.loads((out / "input/config/resourceconfig.json").read_text())["current_host"] == "algo-1"


def test_a_second_start_keeps_what_the_job_knows_and_a_fresh_one_does_not(
    command: Command, make_photos: MakePhotos, tmp_path: Path
) -> None:
    data, out = make_photos({"ant": 2, "bee": 2}), tmp_path / "out"

    def start(*more: str) -> str:
        words = ["--data", str(data), "--out", str(out), "--image", "x", *more]
        done = command("cli", "tune", "--local", *words, DOCKER="/bin/false")
        assert done.returncode == 1
        return done.stderr

    assert "--fresh" not in start()
    (out / "checkpoints" / "trial-0001").mkdir(parents=True)
    (out / "checkpoints" / "trials.journal").write_text("known")
    (out / "model" / "model.onnx").write_text("earlier")
    write(out / "output" / "data" / "trials.json", SOME, best=6)
    assert start().endswith("; the same command goes on with what is known, --fresh starts over\n")
    assert (out / "checkpoints" / "trials.journal").read_text() == "known"
    assert (out / "checkpoints" / "trial-0001").is_dir()
    assert (out / "model" / "model.onnx").read_text() == "earlier", "it stays until a new one is whole"
    assert list((out / "output" / "data").iterdir()) == []
    start("--fresh")
    assert not (out / "checkpoints").exists()
    assert len(list((data / "ant").iterdir())) == 2


def test_a_folder_of_somebody_elses_is_refused(command: Command, make_photos: MakePhotos, tmp_path: Path) -> None:
    data = make_photos({"ant": 2, "bee": 2})
    words = ["--data", str(data), "--out", str(tmp_path), "--image", "x", "--fresh"]
    done = command("cli", "tune", "--local", *words, DOCKER="/bin/false")
    assert done.returncode == 2
    assert "holds other files" in done.stderr
    assert len(list((data / "ant").iterdir())) == 2


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_search_stops_its_job_and_keeps_what_it_knows(
    make_photos: MakePhotos, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    data, out = make_photos({"ant": 2, "bee": 2}), tmp_path / "out"
    job = 'trap "echo stopped; exit 0" TERM; echo begun; sleep 60 & wait'
    docker = client(tmp_path, f'echo "$1" "$2" "$3" >> {tmp_path}/asked; [ "$1" = run ] || exit 0\n{job}')
    words = ["tune", "--local", "--data", str(data), "--out", str(out), "--image", "x"]
    with subprocess.Popen(
        [sys.executable, "-m", "kennel_launch.cli", *words],
        env=environment(DOCKER=docker),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        log = out / "train.log"
        deadline = time.monotonic() + 30
        while not (log.is_file() and "begun" in log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (out / "checkpoints").mkdir()
        (out / "checkpoints" / "trials.journal").write_text("known")
        process.send_signal(sent)
        _, lines = process.communicate(timeout=30)
    assert process.returncode == code
    assert log.read_text().split() == ["begun", "stopped"]
    assert "stop -t 120\n" in (tmp_path / "asked").read_text()  # as long as SageMaker gives a training job
    assert (out / "checkpoints" / "trials.journal").read_text() == "known"
    if sent is signal.SIGINT:
        assert lines.startswith("kennel tune: stopped; the same command goes on")
        assert lines.count("\n") == 1
