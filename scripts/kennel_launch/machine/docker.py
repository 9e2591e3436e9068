"""Commands of the docker client, their failure as a sentence."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kennel.errors import UserError
from kennel_launch import settings
from kennel_launch.machine import signals


def run(*arguments: str, stdin: str | None = None, capture: bool = False) -> str:
    """One docker command's output.

    Raises:
        UserError: no client, or it failed; says docker's own last line.
    """
    command = [settings.docker(), *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=capture, text=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started ({error.strerror}): set DOCKER to a docker client") from error
    if done.returncode:
        said = (done.stderr or "").strip().splitlines()
        raise UserError(f"docker {arguments[0]} failed{': ' + said[-1] if said else ', see above'}")
    return done.stdout or ""


def check_image(image: str) -> None:
    """That the image is on this machine: nothing is fetched.

    Raises:
        UserError: it is not, or no engine answers.
    """
    try:
        run("image", "inspect", image, capture=True)
    except UserError as error:
        raise UserError(f"image {image} cannot be used here ({error}): make build, or docker pull it") from error


@contextmanager
def network(name: str) -> Iterator[None]:
    """A network of its own for containers that ask each other; none where the name is empty.

    Raises:
        UserError: docker can't make it.
    """
    if not name:
        yield
        return
    try:
        run("network", "create", name, capture=True)
        yield
    finally:
        with signals.deaf(), suppress(UserError):  # it may not have come to be
            run("network", "rm", name, capture=True)
