"""One command of the docker client, its failure as a sentence."""

import subprocess

from kennel.errors import UserError
from kennel_launch import settings


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
