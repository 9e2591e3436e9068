"""What the SDK's local mode leaves of a run, and how it goes: containers, their network, files that root owns.

A run is a name: the label of its containers, and the folder that the SDK writes to.
"""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kennel.errors import UserError
from kennel_launch import settings
from kennel_launch.advice import images
from kennel_launch.machine import docker

LABEL = "kennel-local"
_NETWORK = "sagemaker-local"  # the SDK gives all its containers this one
_LAST_LINES = 5


def label(name: str) -> str:
    return f"{LABEL}={name}"


def check_image(image: str) -> None:
    """The image must be here: local mode fetches nothing.

    Raises:
        UserError: it is not, or no engine answers.
    """
    settings.needed(settings.Settings(image=image), "image")
    try:
        images.local(image)
    except UserError as error:
        raise UserError(f"image {image} cannot be used here ({error}): make build, or docker pull it") from error


def again(name: str, folder: Path, image: str) -> tuple[list[str], dict[str, str]]:
    """(command, environment) of this very command for a process of its own, which lets the SDK work on run `name`.

    The SDK answers signals in its own ways, and cleans up only what it can; that process can be killed at any time.

    Args:
        folder: the run's.
    """
    environment = settings.child_without_aws() | _compose(folder)
    return [sys.executable, *sys.orig_argv[1:], "--sdk-run", name, "--image", image], environment


def ended(name: str) -> str:
    """How the first of a run's containers ended that did not end well, with its last line; empty: none did so."""
    for container in _containers(name):
        state = json.loads(docker.run("inspect", "--format", "{{json .State}}", container, capture=True))
        if state["Status"] not in ("exited", "dead") or not state["ExitCode"]:
            continue
        memory = ", out of memory" if state.get("OOMKilled") else ""
        log = docker.run("logs", "--tail", str(_LAST_LINES), container, capture=True)  # one stream: it has a terminal
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        last = f": {lines[-1]}" if lines else ""
        return f"the container ended with exit code {state['ExitCode']}{memory}{last}"
    return ""


def started(name: str) -> bool:
    """Whether a container of this run came as far as running."""
    return bool(_containers(name, "status=running", "status=exited", "status=dead"))


def stop(name: str, grace: float) -> None:
    """Lets a run's containers end by themselves for so many seconds."""
    if running := _containers(name, "status=running"):
        docker.run("stop", "--time", str(int(grace)), *running, capture=True)


def give_back(folder: Path, image: str) -> None:
    """What a container's root made below a folder becomes the caller's, who could not even remove it."""
    user = os.geteuid()
    if user and any(path.lstat().st_uid != user for path in folder.rglob("*")):
        owner, mount = f"{user}:{os.getegid()}", f"{folder.resolve()}:/left"
        arguments = ("--rm", "--network", "none", "--user", "0", "--entrypoint", "chown", "-v", mount)
        docker.run("run", *arguments, image, "-hR", owner, "/left", capture=True)


def clear(name: str, folder: Path, image: str) -> None:
    """Removes all of a run, its folder included. Raises nothing, so that a job's own fault stays the message."""

    def containers() -> None:
        while left := _containers(name):
            docker.run("rm", "--force", "--volumes", *left, capture=True)

    def network() -> None:
        with suppress(UserError):  # another run's containers are in it, or it is gone
            docker.run("network", "rm", _NETWORK, capture=True)

    def files() -> None:
        give_back(folder, image)
        if folder.exists():
            shutil.rmtree(folder)
        with suppress(OSError):  # another run's folder is in it
            folder.parent.rmdir()

    _try(f"containers labelled {label(name)}", containers)
    _try(f"network {_NETWORK}", network)
    _try(str(folder), files)


def _compose(folder: Path) -> dict[str, str]:
    """A PATH with `docker-compose`: of docker's own `compose` the SDK takes version 2 alone, and 5 is what is there."""
    if shutil.which("docker-compose"):
        return {}
    try:
        docker.run("compose", "version", capture=True)
    except UserError:
        return {}  # there is none at all: the SDK says so
    command = folder / "bin" / "docker-compose"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(settings.docker())} compose "$@"\n')
    command.chmod(0o755)
    return {"PATH": f"{command.parent.resolve()}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def _try(what: str, step: Callable[[], None]) -> None:
    try:
        step()
    except (UserError, OSError) as error:
        print(f"left behind: {what} ({error}): remove it yourself", file=sys.stderr)


def _containers(name: str, *filters: str) -> list[str]:
    words = [word for one in (f"label={label(name)}", *filters) for word in ("--filter", one)]
    return docker.run("ps", "--all", "--quiet", *words, capture=True).split()
