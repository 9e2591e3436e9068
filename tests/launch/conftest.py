"""Folders of small files that stand for photos (nothing here decodes one), and commands run as a user runs them."""

import functools
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kennel_launch import cli, settings

from ..emulated_aws.client import VARIABLE, Aws, executables, server
from ..emulated_aws.runners import pictures

REPOSITORY = Path(__file__).parents[2]
SDK_V3 = Path(os.environ.get("PYTHON_SDK_V3", REPOSITORY / "build" / "venv-sdk-v3" / "bin" / "python"))
HYMENOPTERA = REPOSITORY.parent / "shared" / "data" / "hymenoptera"
Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole walks, which lie in this folder, first: at the end one would run alone."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[[dict[str, int]], Path]:
    """Writes `{"train/ants": 5}` as five files of different bytes, and returns the folder above them all."""

    def write(folders: dict[str, int]) -> Path:
        root = tmp_path / "photos"
        for name, count in folders.items():
            (root / name).mkdir(parents=True)
            for i in range(count):
                (root / name / f"{i}.jpg").write_text(f"{name} {i}")
        return root

    return write


@pytest.fixture
def hymenoptera() -> Path:
    if not HYMENOPTERA.is_dir():
        pytest.skip("shared/data/hymenoptera is not beside this checkout")
    return HYMENOPTERA


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two questions to an AWS that is on this machine."""
    monkeypatch.setenv(settings.PAUSE, "0.1")


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """The folder that commands run in, empty."""
    made = tmp_path / "cwd"
    made.mkdir()
    return made


@pytest.fixture(scope="session")
def _one_loader() -> Iterator[None]:
    """botocore reads its descriptions of AWS's services once, not for each command: a third of a command's time."""
    import botocore.session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


@pytest.fixture
def command(cwd: Path, _one_loader: None) -> Command:
    """Runs `kennel` (by the name cli) in this process: its imports alone take seconds in one of its own."""

    def run(name: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        assert name == "cli"
        out, err = io.StringIO(), io.StringIO()
        with _as_a_process(cwd, env), redirect_stdout(out), redirect_stderr(err):
            try:
                code = cli.main(words)
            except SystemExit as ended:  # argparse's, whose code is a number
                code = int(ended.code or 0)
        return subprocess.CompletedProcess([name, *words], code, out.getvalue(), err.getvalue())

    return run


@contextmanager
def _as_a_process(cwd: Path, env: dict[str, str]) -> Iterator[None]:
    """As in a fresh process: its own folder, environment, warnings, signals and AWS session."""
    before, on_signal = dict(os.environ), signal.getsignal(signal.SIGTERM)
    _forget()
    try:
        os.environ.update(env)
        with chdir(cwd), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.signal(signal.SIGTERM, on_signal)
        _forget()


def _forget() -> None:
    """What functions of ours keep for the length of a process: AWS sessions, clients, hashes."""
    modules = [module for name, module in sys.modules.items() if name.startswith("kennel_launch.")]
    for kept in (one for module in modules for one in vars(module).values() if hasattr(one, "cache_clear")):
        kept.cache_clear()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of no account: for requests that are made and not sent, by sessions of the test's own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    _forget()
    yield
    _forget()


@pytest.fixture
def process(cwd: Path) -> Command:
    """Runs `python -m kennel_launch.<name>` in a process of its own, as the Makefile does."""

    def run(name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        sources = os.pathsep.join(str(REPOSITORY / folder) for folder in ("scripts", "container"))
        return subprocess.run(
            [sys.executable, "-m", f"kennel_launch.{name}", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": sources, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """The loopback port of a real HTTP server that answers by `handler`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:  # after a test that failed, too: the thread would keep pytest from ending
            server.shutdown()
            thread.join()


@pytest.fixture
def dead_port() -> int:
    """A loopback port that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="session")
def emulated_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests of a session; most want `aws`."""
    pytest.importorskip("moto", reason="moto is not installed: requirements/emulated.txt")
    with server(tmp_path_factory.mktemp("aws") / "server.log") as url:
        yield url


@pytest.fixture
def aws(emulated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A fresh emulated account, for commands with `**aws.env`; all that runs in it ends with the test."""
    account = Aws(emulated_url, tmp_path_factory.mktemp("home"))
    account.reset()
    yield account
    account.close()


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the real `train` and `serve`, which jobs and endpoints of `aws` are run by."""
    folder = executables()
    if not all((folder / name).is_file() for name in ("train", "serve")):
        pytest.skip(f"no train and serve in {folder}: make venv, or set {VARIABLE} to the image's environment")
    return folder


@pytest.fixture(scope="session")
def trained(programs: Path) -> bytes:
    """A real model.tar.gz that tells red from green, trained once, without AWS: for endpoints of `aws`."""
    return pictures.model(programs)
