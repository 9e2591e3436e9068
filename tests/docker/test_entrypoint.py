"""The entry point as a real process: exit codes, signals, orphans, the failure file, whose files they are."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ENTRYPOINT = [sys.executable, "-I", "-m", "kennel_image.entrypoint"]
OWNER = 1234
REPOSITORY = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """/opt/ml as the platform prepares it."""
    for folder in ("input/data/train", "model"):
        (tmp_path / "ml" / folder).mkdir(parents=True)
    return tmp_path / "ml"


def environment(base: Path, **more: str) -> dict[str, str]:
    """As in the image, with the test's own `train` first on PATH."""
    path = f"{base.parent / 'bin'}:{os.defpath}"
    return {"PATH": path, "HOME": str(base.parent), "SAGEMAKER_BASE_DIR": str(base), **more}


def run(base: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = environment(base, **more)
    return subprocess.run([*ENTRYPOINT, *command], env=env, capture_output=True, text=True, timeout=60, check=False)


def train_is(base: Path, script: str) -> None:
    """Make `train` this shell script, run inside /opt/ml."""
    train = base.parent / "bin" / "train"
    train.parent.mkdir(exist_ok=True)
    train.write_text(f"#!/bin/sh\ncd {base}\n{script}\n")
    train.chmod(0o755)


def failure(base: Path) -> str:
    """The first line of the failure file."""
    return (base / "output" / "failure").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -9 $$"], 128 + 9),
        (["sh", "-c", "kill -15 $$"], 128 + 15),
        (["serve-it"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_code_is_the_commands(base: Path, command: list[str], code: int) -> None:
    ended = run(base, *command)
    assert ended.returncode == code
    assert ("cannot be started" in ended.stderr) is (code in (126, 127))


def test_no_command_says_which_there_are(base: Path) -> None:
    ended = run(base)
    assert ended.returncode == 2
    assert "`train`" in ended.stderr
    assert "`serve`" in ended.stderr


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("input/config/hyperparameters.json", "train"),
        ("input/config/resourceconfig.json", "train"),
        ("model/m", "serve"),
    ],
)
def test_without_a_command_the_mounted_folder_says_what_to_do(base: Path, file: str, command: str) -> None:
    (base / file).parent.mkdir(parents=True, exist_ok=True)
    (base / file).write_text("{}")
    train_is(base, 'echo "$0" && mkdir -p output && touch output/success')
    (base.parent / "bin" / "serve").symlink_to("train")
    ended = run(base)
    assert (ended.returncode, ended.stdout) == (0, f"{base.parent}/bin/{command}\n"), ended.stderr


DRIVERS = "input/data/sm_drivers"


def drivers_are(base: Path, script: str, **source: str) -> list[str]:
    """SDK v3's channel with this sm_train.sh, which ends as v3's does; the command that starts it."""
    folder = base / DRIVERS
    folder.mkdir()
    (folder / "sourcecode.json").write_text(json.dumps(source))
    end = 'code=$?; [ $code = 0 ] || echo "subprocess.CalledProcessError: no" > output/failure; exit $code'
    (folder / "sm_train.sh").write_text(f"cd {base}\n{script}\n{end}\n")
    return ["bash", "-c", f"chmod +x {folder}/sm_train.sh && {folder}/sm_train.sh"]


def test_sdk_v3s_script_fails_with_its_own_reason(base: Path) -> None:
    """v3's driver takes the indentation away and leaves its own exception in the failure file."""
    frame = 'File "/x/mine.py", line 3, in main\nraise ValueError("odd")'
    trace = f"Traceback (most recent call last):\n{frame}\nValueError: odd"
    ended = run(base, *drivers_are(base, f"echo '{trace}'; (exit 3)", entry_script="mine.py"))
    assert (ended.returncode, trace in ended.stdout) == (3, True)
    assert failure(base) == "mine.py failed: ValueError: odd (mine.py:3)"


def test_sigterm_goes_past_bash_to_what_it_waits_for(base: Path) -> None:
    script = f"{sys.executable} -c 'import time; print(1, flush=True); time.sleep(60)'"
    command = drivers_are(base, script, entry_script="mine.py")
    with subprocess.Popen([*ENTRYPOINT, *command], env=environment(base), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.terminate()
    assert process.returncode == 128 + 15
    assert failure(base).startswith("mine.py was stopped by SIGTERM, which it did not handle: catch the signal")


@pytest.mark.parametrize("sent", [{"command": "train"}, {"entry_script": "hook.py"}], ids=["command", "hook"])
def test_sdk_v3s_start_of_our_own_training_is_train(base: Path, sent: dict[str, str]) -> None:
    (base / "input/data/code").mkdir()
    (base / "input/data/code/hook.py").write_text("def on_epoch_end(epoch, metrics): ...")
    train_is(base, 'echo "$0 $@" && touch output/success')
    ended = run(base, *drivers_are(base, "echo never", **sent))
    assert (ended.returncode, ended.stdout) == (0, f"{base.parent}/bin/train \n"), ended.stderr


def test_any_other_command_runs_untouched(base: Path) -> None:
    ended = run(base, sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(4)", "--epochs", "a b")
    assert (ended.returncode, ended.stdout, ended.stderr) == (4, "['--epochs', 'a b']\n", "")
    assert not (base / "output").exists()


def test_no_mount_is_needed(tmp_path: Path) -> None:
    ended = run(tmp_path / "absent", "true")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_reach_the_command(base: Path, name: str) -> None:
    number = getattr(signal, f"SIG{name}")
    script = f"trap 'echo got {name}; exit 5' {name}; echo ready; for _ in $(seq 600); do sleep 0.05; done"
    with subprocess.Popen(
        [*ENTRYPOINT, "sh", "-c", script],
        env=environment(base),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # nohup, say, has it ignored, and shells keep that
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == f"got {name}\n"
    assert process.returncode == 5


def test_orphans_are_reaped(base: Path) -> None:
    # The middle shell ends at once, so the sleeping one becomes the entry point's; its /proc entry must vanish.
    script = """
        sh -c 'sleep 0.1 & echo $! > orphan'
        for _ in $(seq 100); do [ -d /proc/$(cat orphan) ] || exit 0; sleep 0.1; done; exit 1
    """
    libc = ctypes.CDLL(None)
    ended = subprocess.run(
        [*ENTRYPOINT, "sh", "-c", script],
        cwd=base,
        env=environment(base),
        timeout=60,
        check=False,
        preexec_fn=lambda: libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0),  # what PID 1 is by nature
    )
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("kill -9 $$", 137, ["SIGKILL", "out of memory", "batch_size", "instance"]),
        ("kill -15 $$", 143, ["SIGTERM", "stopped"]),
        ("kill -7 $$", 135, ["SIGBUS", "shared memory"]),
        ("kill -11 $$", 139, ["SIGSEGV", "native code"]),
        ("exit 7", 7, ["exit code 7"]),
    ],
)
def test_a_training_job_that_dies_leaves_its_cause(base: Path, script: str, code: int, said: list[str]) -> None:
    train_is(base, script)
    ended = run(base, "train")
    first_line = (base / "output/failure").read_text().splitlines()[0]
    assert ended.returncode == code
    assert all(word in first_line for word in said), first_line
    assert first_line in ended.stderr


def test_the_jobs_own_failure_file_stays(base: Path) -> None:
    train_is(base, "echo mine > output/failure; exit 1")
    assert run(base, "train").returncode == 1
    assert (base / "output/failure").read_text() == "mine\n"


def test_success_leaves_no_failure_file(base: Path) -> None:
    train_is(base, "touch output/success")
    assert run(base, "train").returncode == 0
    assert not (base / "output/failure").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_after_success_is_no_failure(base: Path, number: signal.Signals) -> None:
    """docker compose stops the hosts that are left as soon as the first has ended."""
    train_is(base, f"touch output/success; kill -{number} $$; sleep 30")
    assert run(base, "train").returncode == 0
    assert not (base / "output/failure").exists()


def test_the_words_of_an_earlier_job_do_not_count(base: Path) -> None:
    (base / "output").mkdir()
    for name in ("failure", "success"):
        (base / "output" / name).touch()
    train_is(base, "exit 0")
    assert run(base, "train").returncode == 1
    assert "without a word of success" in (base / "output/failure").read_text()
    train_is(base, "touch output/success")
    assert run(base, "train").returncode == 0
    assert not (base / "output/failure").exists()


def test_a_job_that_ends_in_silence_has_failed(base: Path) -> None:
    # The toolkit does, where it can write no failure file.
    train_is(base, "exit 0")
    assert run(base, "train").returncode == 1
    assert "without a word of success" in (base / "output/failure").read_text()


@pytest.mark.parametrize("empty", [None, "", "null"])
def test_what_a_hand_written_mount_leaves_out_is_filled_in(base: Path, empty: str | None) -> None:
    given = base / "input/config/hyperparameters.json"
    given.parent.mkdir()
    given.write_text('{"epochs": "3"}')
    for name in ("inputdataconfig", "resourceconfig") if empty is not None else ():
        given.with_name(f"{name}.json").write_text(empty)
    train_is(base, "cat input/config/*.json; touch output/success")
    assert run(base, "train").stdout == '{"epochs": "3"}{}{"current_host": "localhost", "hosts": ["localhost"]}'


def test_settings_that_are_no_json_are_told_before_the_toolkit_chokes_on_them(base: Path) -> None:
    (base / "input/config").mkdir()
    (base / "input/config/hyperparameters.json").write_text("{epochs: 3}")
    train_is(base, "touch output/success")
    assert run(base, "train").returncode == 1
    assert "hyperparameters.json cannot be read as JSON" in (base / "output/failure").read_text()


def test_a_training_job_that_cannot_start_leaves_its_cause(base: Path) -> None:
    assert run(base, "train").returncode == 127
    assert "cannot be started" in (base / "output/failure").read_text()


def test_a_python_without_torch_is_an_image_that_only_serves(base: Path) -> None:
    bare = base.parent / "bare"
    venv.create(bare, symlinks=True)
    packages = next(bare.glob("lib/python*/site-packages"))
    packages.joinpath("kennel.pth").write_text("".join(f"{REPOSITORY / name}\n" for name in ("container", "docker")))
    train_is(base, "touch output/success")
    command = [str(bare / "bin" / "python"), *ENTRYPOINT[1:], "train"]
    ended = subprocess.run(command, env=environment(base), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"kennel: {(base / 'output/failure').read_text()}"
    assert "this image only serves" in ended.stderr


@pytest.mark.parametrize("mounted", [True, False])
def test_training_without_input_says_what_to_mount(tmp_path: Path, mounted: bool) -> None:
    base = tmp_path / "ml"
    if mounted:
        base.mkdir()
    train_is(base, "exit 0")
    ended = run(base, "train")
    assert ended.returncode == 1
    assert "input/data/train" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert (base / "output/failure").exists() is mounted


def test_only_training_leaves_a_failure_file(base: Path) -> None:
    assert run(base, "sh", "-c", "kill -9 $$").returncode == 137
    assert not (base / "output").exists()


@pytest.mark.parametrize(
    ("override", "library_path"),
    [("on", "/usr/local/cuda/compat:/lib/mine"), ("off", "/lib/mine")],
)
def test_the_override_decides_the_library_path(base: Path, override: str, library_path: str) -> None:
    script = 'echo "$LD_LIBRARY_PATH"; echo "$KENNEL_CUDA_COMPAT_CHOICE"'
    ended = run(base, "sh", "-c", script, KENNEL_CUDA_COMPAT=override, LD_LIBRARY_PATH="/lib/mine")
    path, reason = ended.stdout.splitlines()
    assert path == library_path
    assert reason == f"{override}: KENNEL_CUDA_COMPAT says so"


def test_an_override_that_is_no_word_is_refused(base: Path) -> None:
    ended = run(base, "true", KENNEL_CUDA_COMPAT="yes")
    assert ended.returncode == 2
    assert "KENNEL_CUDA_COMPAT='yes'" in ended.stderr


@pytest.mark.parametrize("home", ["/nowhere", ""])
def test_a_home_that_cannot_be_written_becomes_tmp(base: Path, home: str) -> None:
    assert run(base, "sh", "-c", 'echo "$HOME"', HOME=home).stdout == "/tmp\n"


@as_root
def test_what_root_made_goes_to_the_owner_of_the_mount(base: Path) -> None:
    outside = base.parent / "outside"
    outside.touch()
    (base / "input/data/train/photo.jpg").touch()
    os.chown(base, OWNER, OWNER + 1)
    train_is(
        base,
        f"mkdir -p model/deep output/data checkpoints; touch model/deep/file output/data/file; chown 77 checkpoints\n"
        f"touch checkpoints/file; ln -s {outside} model/link; exit 1",
    )
    run(base, "train")
    owners = {str(p.relative_to(base)): p.lstat().st_uid for p in base.rglob("*")}
    given = ["model", "model/deep", "model/deep/file", "model/link", "output/data/file", "output/failure"]
    assert {name: owners[name] for name in given} == dict.fromkeys(given, OWNER)
    assert (base / "model").stat().st_gid == OWNER + 1
    assert (owners["checkpoints"], owners["checkpoints/file"]) == (77, 77)  # the nearest owner, not the top one
    assert {owners[name] for name in ("input", "input/data/train/photo.jpg")} == {0}
    assert outside.stat().st_uid == 0


@as_root
def test_a_folder_of_roots_own_stays_roots(base: Path) -> None:
    os.chown(base / "model", OWNER, OWNER)
    train_is(base, "touch output/file model/file; kill -9 $$")
    run(base, "train")
    assert (base / "output/file").stat().st_uid == 0
    assert (base / "model/file").stat().st_uid == OWNER
