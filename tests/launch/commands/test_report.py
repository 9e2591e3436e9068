"""`kennel report`: one member out of an archive in S3, nothing else of it, and the browser; AWS is emulated."""

import io
import tarfile
from pathlib import Path

import pytest

from ...emulated_aws.client import Aws
from ..conftest import Command
from .test_status import train

KEY = "out/pets/output/output.tar.gz"


@pytest.fixture(autouse=True)
def job(aws: Aws) -> None:
    """A training job that has ended."""
    aws.client("s3").put_object(Bucket=aws.bucket, Key="data/ant/0.jpg", Body=b"a photo")
    aws.hold()
    train(aws, "pets")
    aws.change("TrainingJob", "pets", TrainingJobStatus="Completed")


def pack(aws: Aws, members: dict[str, bytes | str]) -> bytes:
    """An output.tar.gz where the job would leave it; a member that is a string is a link there."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    aws.client("s3").put_object(Bucket=aws.bucket, Key=KEY, Body=packed.getvalue())
    return packed.getvalue()


def test_the_report_alone_is_written(aws: Aws, command: Command, tmp_path: Path) -> None:
    pack(aws, {"../evil": b"evil", "report.json": b"{}", "./report.html": b"<html>mine</html>", "z/report.html": b"no"})
    done = command("cli", "report", "pets", **aws.env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "pets.html\n"
    assert (tmp_path / "cwd" / "pets.html").read_text() == "<html>mine</html>"
    assert [path.name for path in (tmp_path / "cwd").iterdir()] == ["pets.html"]
    assert not (tmp_path / "evil").exists()


def test_it_is_shown_in_the_browser(aws: Aws, command: Command, tmp_path: Path) -> None:
    pack(aws, {"report.html": b"<html>"})
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/shown\n')
    browser.chmod(0o755)
    done = command("cli", "report", "pets", "--open", "--out", "a/b.html", BROWSER=f"{browser} %s", **aws.env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shown").read_text() == f"file://{tmp_path}/cwd/a/b.html\n"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"report.json": b"{}"}, "holds no report.html"),
        ({"report.html": "/etc/passwd"}, "holds no report.html"),
        (None, "training job pets has left no output"),
    ],
)
def test_no_report_is_one_sentence(aws: Aws, command: Command, tmp_path: Path, members: dict | None, said: str) -> None:
    if members:
        pack(aws, members)
    done = command("cli", "report", "pets", **aws.env)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "cwd").iterdir()) == []


def test_a_damaged_archive_and_a_job_that_goes_on(aws: Aws, command: Command) -> None:
    packed = pack(aws, {"trials.json": bytes(range(256)) * 500, "report.html": b"<html>"})
    aws.client("s3").put_object(Bucket=aws.bucket, Key=KEY, Body=packed[: len(packed) // 2])
    done = command("cli", "report", "pets", **aws.env)
    assert done.returncode == 2
    assert "cannot be unpacked" in done.stderr
    aws.change("TrainingJob", "pets", TrainingJobStatus="InProgress")
    done = command("cli", "report", "pets", **aws.env)
    assert done.returncode == 2
    assert "training job pets is InProgress: its report comes at the end" in done.stderr
