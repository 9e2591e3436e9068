"""`make build`: a docker client that knows BuildKit, the weights to bake in, the build, and what the image weighs.

The standard library only: it runs before any environment is made.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from kennel.errors import UserError
from kennel.layout import WEIGHTS_SUFFIXES
from kennel_launch import settings
from kennel_launch.make import layers

BASES = {"image": "BASE_IMAGE", "serve-cpu": "SERVE_BASE_IMAGE"}  # the Dockerfile's target -> its argument
_BAKED = Path("build/weights")  # in the build context; the Dockerfile takes what lies there


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("--target", choices=BASES, default="image", help="the whole image, or the slim one")
    parser.add_argument("--base-image", required=True)
    parser.add_argument("--weights", type=Path, help="a folder with <backbone>.safetensors or .pth to bake in")
    options = parser.parse_args()
    try:
        docker = buildkit_client(settings.docker())
        stage_weights(options.weights, _BAKED)
        build(docker, options.image, options.target, options.base_image)
        print(layers.table(options.image, layers.read(docker, options.image)))
    except UserError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 0


def buildkit_client(docker: str) -> str:
    """The client itself where it has BuildKit: buildx, or a client before 23, which has it built in.

    Raises:
        UserError: it has none; names another client of this machine that has.
    """
    if _has_buildkit(docker):
        return docker
    others = [path for name in ("docker", "/usr/bin/docker") if (path := shutil.which(name)) and _has_buildkit(path)]
    hint = f"set DOCKER={others[0]}, which has it" if others else "install docker's buildx plugin"
    if not shutil.which(docker):
        raise UserError(f"there is no docker client {docker!r} here: {hint if others else 'install docker'}")
    raise UserError(f"{docker} has no BuildKit, which the Dockerfile's RUN --mount needs: {hint}")


def stage_weights(source: Path | None, target: Path) -> None:
    """Lays the weights into the build context, and only them.

    Raises:
        UserError: no such folder, or none in it.
    """
    if source and source.resolve() == target.resolve():
        return
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if source is None:
        return
    found = sorted(path for path in source.iterdir() if path.suffix in WEIGHTS_SUFFIXES) if source.is_dir() else []
    if not found:
        raise UserError(
            f"WEIGHTS={source} holds no weights: give a folder with <backbone>{' or '.join(WEIGHTS_SUFFIXES[:2])}"
        )
    for path in found:
        shutil.copyfile(path, target / path.name)


def build(docker: str, image: str, target: str, base_image: str) -> None:
    """Builds one of `BASES`; docker's own output is shown.

    Raises:
        UserError: docker failed, and has said why.
    """
    command = [docker, "build", "--platform", "linux/amd64", "--target", target]
    command += ["--build-arg", f"{BASES[target]}={base_image}", "-f", "docker/Dockerfile", "-t", image, "."]
    # SageMaker rejects manifests with attestations, and old clients know no --provenance to switch them off.
    env = settings.child(DOCKER_BUILDKIT="1", BUILDX_NO_DEFAULT_ATTESTATIONS="1")
    done = subprocess.run(command, env=env, check=False)
    if done.returncode:
        raise UserError(f"docker build ended with exit code {done.returncode}, see above")


def _has_buildkit(docker: str) -> bool:
    try:
        if subprocess.run([docker, "buildx", "version"], capture_output=True, check=False).returncode == 0:
            return True
        version = subprocess.run([docker, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    return re.match(r"Docker version (18\.09|19|20)\.", version) is not None


if __name__ == "__main__":
    sys.exit(main())
