"""Script mode through the real `train` executable: a user's own script runs, fails and is stopped as on SageMaker."""

import json
import re
import signal
import socket
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

from kennel_train.contract import failure


def send(job, program: str, body: str, **hyperparameters: str) -> Path:
    """A job with a user's source folder, sent as the SDK sends it; its path."""
    source = job.base / "input" / "source"
    source.mkdir(exist_ok=True)
    (source / program).write_text(textwrap.dedent(body))
    (job.data / "train").mkdir(exist_ok=True)
    config = job.base / "input" / "config"
    sent = {"sagemaker_program": f'"{program}"', "sagemaker_submit_directory": json.dumps(str(source))}
    (config / "hyperparameters.json").write_text(json.dumps({**sent, **hyperparameters}))
    (config / "inputdataconfig.json").write_text('{"train": {"TrainingInputMode": "File"}}')
    return source


def stop_at(job, word: str) -> tuple[int, str]:
    """SIGTERM when the log says `word`: (exit code, log)."""
    job.environ["PYTHONUNBUFFERED"] = ""  # whatever the machine says, the script must not be held back
    lines = []
    with job.start() as process:
        for line in process.stdout:
            lines.append(line)
            if line.startswith(word):
                process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    return code, "".join(lines)


TELLS = """
import argparse, json, os, pathlib
import neighbour
parser = argparse.ArgumentParser()
parser.add_argument("--depth", type=int)
parser.add_argument("--title")
seen = vars(parser.parse_args())
names = ["SM_CHANNEL_TRAIN", "SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR", "SM_HPS", "SM_NUM_GPUS", "SM_HOSTS", "MASTER_ADDR"]
seen |= {name: os.environ[name] for name in names} | {"cwd": os.getcwd(), "neighbour": neighbour.HERE}
pathlib.Path(os.environ["SM_MODEL_DIR"], "seen.json").write_text(json.dumps(seen))
"""


@pytest.mark.parametrize("sent_as", ["folder", "tar", "mounted"])
def test_a_script_gets_its_hyperparameters_and_folders_and_leaves_a_model(job, sent_as):
    source = send(job, "mine.py", TELLS, depth="3", title="two words; $HOME")
    (source / "neighbour.py").write_text("HERE = __file__\n")
    raw = json.loads((job.base / "input/config/hyperparameters.json").read_text())
    if sent_as == "tar":
        archive = job.base / "sourcedir.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(source, ".")
        raw |= {"sagemaker_program": "mine.py", "sagemaker_submit_directory": str(archive)}  # as v3's tuner has them
    elif sent_as == "mounted":
        source.rename(job.base / "code")
        raw["sagemaker_submit_directory"] = json.dumps(str(job.base / "code"))
    (job.base / "input/config/hyperparameters.json").write_text(json.dumps(raw))
    code, log = job.run()
    assert code == 0, log
    assert "entry point mine.py is a script" in log
    assert "there is no model to deploy" not in log
    seen = json.loads((job.base / "model" / "seen.json").read_text())
    assert (seen["depth"], seen["title"]) == (3, "two words; $HOME")
    assert json.loads(seen["SM_HPS"]) == {"depth": 3, "title": "two words; $HOME"}
    assert seen["SM_CHANNEL_TRAIN"] == str(job.data / "train")
    assert seen["SM_OUTPUT_DATA_DIR"] == str(job.base / "output" / "data")
    assert seen["SM_HOSTS"] == '["algo-1"]'
    assert seen["MASTER_ADDR"] == "algo-1"
    assert seen["cwd"] == str(job.base / "code") == str(Path(seen["neighbour"]).parent)
    assert (job.base / "output" / "success").exists()
    assert not (job.base / "output" / "failure").exists()


def test_an_edited_source_is_what_the_next_job_runs(job):
    source = send(job, "mine.py", "print('the first')")
    job.run()
    (source / "mine.py").write_text("print('the second')")
    code, log = job.run()
    assert code == 0
    assert "the second" in log
    assert "mine.py saved nothing in" in log


@pytest.mark.parametrize(
    ("program", "body", "first"),
    [
        (
            "mine.py",
            """
            def main():
                int("1")
                raise ValueError("no\\nphotos")
            main()
            """,
            "mine.py failed: ValueError: no (mine.py:4, in main)",
        ),
        ("mine.py", "def broken(:\n", "mine.py failed: SyntaxError: invalid syntax (mine.py:1)"),
        ("mine.py", "import json\njson.loads('{')", "mine.py failed: json.decoder.JSONDecodeError: Expecting "),
        ("mine.py", "import sys\nsys.exit(3)\n", "mine.py failed: it ended with exit code 3; it wrote nothing on "),
        ("mine.py", "import sys\nsys.exit('no photos')\n", "mine.py failed: it ended with exit code 1; its last line "),
        ("mine.py", "import os\nos.kill(os.getpid(), 9)\n", "mine.py was killed by SIGKILL, most likely out of memory"),
        ("mine.py", "import os\nos._exit(255)\n", "mine.py failed: it ended with exit code 255; it wrote nothing "),
        ("mine.sh", "#!/bin/sh\necho half >&2\nexit 7\n", "mine.sh failed: it ended with exit code 7; its last line "),
    ],
    ids=["raises", "syntax", "library", "exit", "exit-words", "killed", "255", "shell"],
)
def test_a_script_that_fails_says_so_first_and_ends_the_job_with_1(job, program, body, first):
    send(job, program, body)
    code, log = job.run()
    assert code == 1, log
    said = job.failure
    assert said.startswith(first)
    assert len(said.splitlines()[0]) <= 1000
    if "(mine.py:4" in first:
        assert said.splitlines()[1:3] == ["", "Traceback (most recent call last):"]
        assert said.endswith("ValueError: no\nphotos")
        assert log.count("in main") == 2, "once in the traceback, once in the cause"
    if "no photos" in body:
        assert said.splitlines()[0].endswith("on stderr: no photos")


def test_a_script_that_exits_with_0_has_succeeded(job):
    send(job, "mine.py", "import sys\nsys.exit(0)\n")
    code, log = job.run()
    assert (code, (job.base / "output" / "failure").exists()) == (0, False)
    assert "warning: mine.py saved nothing in" in log


WAITS = """
import os, pathlib, signal, time
def leave(*_):
    pathlib.Path(os.environ["SM_MODEL_DIR"], "saved").touch()
    raise SystemExit(0)
if HANDLED:
    signal.signal(signal.SIGTERM, leave)
print("epoch=1 validation:accuracy=0.5")
time.sleep(50)
"""


@pytest.mark.parametrize("through", ["python", "shell"])
def test_sigterm_reaches_the_script_and_its_clean_end_is_a_success(job, through):
    """The line that the test waits for also shows that stdout comes as it is written."""
    source = send(job, "mine.py", WAITS.replace("HANDLED", "True"))
    if through == "shell":
        (source / "mine.py").rename(source / "real.py")
        send(job, "mine.sh", f"#!/bin/sh\n{sys.executable} real.py\n")
    code, log = stop_at(job, "epoch=1 ")
    assert code == 0, log
    assert "SIGTERM goes on to process" in log
    assert (job.base / "model" / "saved").exists()


def test_a_script_that_dies_of_sigterm_has_failed(job):
    send(job, "mine.py", WAITS.replace("HANDLED", "False"))
    code, log = stop_at(job, "epoch=1 ")
    assert code == 1, log
    assert job.failure.startswith("mine.py was stopped by SIGTERM, which it did not handle: catch the signal, save ")


def torchrun(job, body: str, **hyperparameters: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        job.environ["PET_MASTER_PORT"] = str(free.getsockname()[1])  # torchrun's own; its default may be taken here
    send(job, "mine.py", body, sagemaker_torch_distributed_enabled="true", **hyperparameters)


def with_two_ranks(job) -> None:
    """A machine that says it has two GPUs: the toolkit counts the lines of `nvidia-smi --list-gpus`."""
    tools = job.base / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\necho GPU 0: a\necho GPU 1: b\n")
    (tools / "nvidia-smi").chmod(0o755)
    job.environ["PATH"] = f"{tools}:/usr/bin:/bin"


@pytest.mark.slow
def test_torchrun_starts_one_process_a_gpu_they_meet_and_the_first_to_fail_is_named(job):
    with_two_ranks(job)
    torchrun(
        job,
        """
        import os, pathlib, sys, torch, torch.distributed as dist
        dist.init_process_group("gloo")
        ranks = torch.ones(1) * dist.get_rank()
        dist.all_reduce(ranks)
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        seen = [*sys.argv[1:], str(int(ranks)), *(os.environ[name] for name in names)]
        pathlib.Path(os.environ["SM_MODEL_DIR"], f"rank{dist.get_rank()}").write_text(" ".join(seen))
        def step():
            dist.barrier()
            if os.environ["RANK"] == "1":
                raise ValueError("only rank 1")
            dist.barrier()
        step()
        """,
        depth="3",
    )
    code, log = job.run()
    assert code == 1, log
    for rank in (0, 1):
        port = job.environ["PET_MASTER_PORT"]
        assert (job.base / "model" / f"rank{rank}").read_text() == f"--depth 3 1 {rank} 2 {rank} 127.0.0.1 {port}"
    assert job.failure.startswith("mine.py failed: ValueError: only rank 1 (mine.py:12, in step)")


@pytest.mark.slow
@pytest.mark.parametrize("handled", [True, False])
def test_sigterm_reaches_torchruns_ranks(job, handled):
    torchrun(job, WAITS.replace("HANDLED", str(handled)))
    code, log = stop_at(job, "epoch=1 ")
    assert (code, (job.base / "model" / "saved").exists()) == ((0, True) if handled else (1, False)), log
    if not handled:
        assert job.failure.startswith("mine.py was stopped by SIGTERM, which it did not handle")


@pytest.mark.slow
def test_a_rank_that_was_killed_is_told_from_one_that_raised(job):
    torchrun(job, "import os\nos.kill(os.getpid(), 9)\n")
    code, log = job.run()
    assert code == 1, log
    assert job.failure.startswith("mine.py was killed by SIGKILL, most likely out of memory")


def test_a_distribution_that_needs_mpi_is_refused(job):
    send(job, "mine.py", "print('unreached')", sagemaker_mpi_enabled="true")
    code, log = job.run()
    assert code == 1, log
    assert job.failure.startswith("distribution 'mpi' needs MPI, which this image lacks: use distribution={")
    assert "unreached" not in log


@pytest.mark.slow
def test_requirements_are_installed_before_the_script_runs(job):
    source = send(job, "mine.py", "import pet\nprint(pet.SAYS)\n")
    with zipfile.ZipFile(source / "pet-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pet.py", "SAYS = 'woof'\n")
        wheel.writestr("pet-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: pet\nVersion: 1.0\n")
        wheel.writestr("pet-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("pet-1.0.dist-info/RECORD", "")
    (source / "requirements.txt").write_text("./pet-1.0-py3-none-any.whl\n")
    elsewhere = str(job.base / "site")
    job.environ |= {"PIP_TARGET": elsewhere, "PYTHONPATH": elsewhere, "PIP_NO_INDEX": "1"}
    code, log = job.run()
    assert code == 0, log
    assert "\nwoof\n" in log


@pytest.mark.slow
def test_requirements_that_cannot_be_installed_are_named(job):
    source = send(job, "mine.py", "print('unreached')")
    (source / "requirements.txt").write_text("kennel-has-no-such-package\n")
    job.environ["PIP_NO_INDEX"] = "1"
    code, log = job.run()
    assert code == 1, log
    assert job.failure.splitlines()[0] == "pip could not install requirements.txt of source_dir: the log says why"
    assert "No matching distribution found for kennel-has-no-such-package" in log
    assert "unreached" not in log


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"sagemaker_program": "absent.py"}, r"entry point absent\.py is not in \S+source: name a file of source_dir"),
        ({"sagemaker_submit_directory": "/absent"}, r"sagemaker_submit_directory /absent is not there: name a folder"),
    ],
)
def test_code_that_is_not_there_is_named(job, sent, said):
    send(job, "mine.py", "print('unreached')", **sent)
    assert re.match(said, job.fail())


USERS = """Traceback (most recent call last):
  File "/code/mine.py", line 3, in <module>
    step(loader)
    ~~~~^^^^^^^^
  File "/code/deep/step.py", line 7, in step
    torch.cat([])
  File "/site/torch/functional.py", line 99, in cat
    return _cat()
RuntimeError: expected a non-empty list
"""
CHAINED = """KeyError: 'a'

During handling of the above exception, another exception occurred:

"""
IGNORED = """Exception ignored in: <function Loader.__del__ at 0x7f>
Traceback (most recent call last):
  File "/site/torch/loader.py", line 5, in __del__
    self.close()
AttributeError: closed
"""
TORCHRUN = """Traceback (most recent call last):
  File "/site/torch/distributed/run.py", line 900, in main
    run(args)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
mine.py FAILED
"""
OTHER = USERS.replace("RuntimeError: expected a non-empty list", "ConnectionError: the other side has gone")
RANKS = "".join(
    f"[rank0]: {one}\n[rank1]: {other}\n" for one, other in zip(USERS.splitlines(), OTHER.splitlines(), strict=True)
)
OWN = "deep/step.py:7, in step"


@pytest.mark.parametrize(
    ("stderr", "found"),
    [
        (f"epoch 1\n{USERS}", [("RuntimeError: expected a non-empty list", OWN)]),
        (
            USERS.replace("RuntimeError: expected a non-empty list\n", CHAINED) + USERS,
            [("RuntimeError: expected a non-empty list", OWN)],
        ),
        (USERS + IGNORED, [("RuntimeError: expected a non-empty list", OWN)]),
        (USERS + TORCHRUN, [("RuntimeError: expected a non-empty list", OWN)]),
        (
            RANKS + TORCHRUN,
            [("RuntimeError: expected a non-empty list", OWN), ("ConnectionError: the other side has gone", OWN)],
        ),
        ("Warning: nothing of note\n  File sizes differ\n", []),
        (IGNORED.partition("\n")[2], [("AttributeError: closed", "loader.py:5, in __del__")]),
    ],
    ids=["plain", "chained", "ignored", "torchrun", "two ranks at once", "none", "no frame of the user's"],
)
def test_tracebacks_on_stderr_are_read(stderr, found):
    seen = failure.printed(stderr, Path("/code"))
    assert [(traceback.raised, traceback.where) for traceback in seen] == found
    assert all(traceback.text.startswith("Traceback (most recent call last):") for traceback in seen)


def test_hyperparameters_too_long_for_a_process_are_refused_in_a_sentence(job):
    send(job, "mine.py", "", notes="x" * 140_000)
    code, log = job.run()
    said = "the hyperparameters are too long for mine.py: Linux gives a process at most 131,071 bytes in one variable"
    assert (code, job.failure[: len(said)]) == (1, said), log


def test_a_scripts_own_failure_file_is_kept(job):
    body = """
    import os, pathlib, sys
    pathlib.Path(os.environ["SM_OUTPUT_DIR"], "failure").write_text("the photos are of cats")
    sys.exit(3)
    """
    send(job, "mine.py", body)
    code, log = job.run()
    assert (code, job.failure) == (1, "the photos are of cats"), log


@pytest.mark.slow
def test_smdebug_is_imported_without_a_hook_configuration(job):
    send(job, "mine.py", "import os, smdebug.pytorch\nopen(os.environ['SM_MODEL_DIR'] + '/made', 'w').close()\n")
    code, log = job.run()
    assert (code, (job.base / "model" / "made").exists()) == (0, True), log
