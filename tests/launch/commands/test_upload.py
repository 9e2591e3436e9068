"""`kennel upload`: what is sent, what is not sent again, what is deleted, what a dry run shows; AWS is emulated."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ...emulated_aws.client import Aws
from ..conftest import Command

MakePhotos = Callable[[dict[str, int]], Path]


def keys(aws: Aws) -> dict[str, str]:
    """Key -> content, of all that lies in the bucket."""
    client = aws.client("s3")
    found = client.list_objects_v2(Bucket=aws.bucket).get("Contents", [])
    return {
        row["Key"]: client.get_object(Bucket=aws.bucket, Key=row["Key"])["Body"].read().decode(errors="replace")
        for row in found
    }


def put(aws: Aws) -> list[str]:
    """The keys that were sent since the test began."""
    return sorted(asked["Key"] for asked in aws.asked("s3", "PutObject"))


def test_only_what_changed_is_sent(aws: Aws, command: Command, make_photos: MakePhotos) -> None:
    data = make_photos({"train/ant": 2, "train/bee": 1, "val/ant": 1})
    (data / "train" / ".DS_Store").write_text("hidden")
    (data / "__MACOSX").mkdir()
    (data / "__MACOSX" / "0.jpg").write_text("no photo")
    words = ["upload", str(data), "--bucket", aws.bucket]
    done = command("cli", *words, **aws.env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"s3://{aws.bucket}/kennel/data/photos/\n"
    assert "4 files sent" in done.stderr
    names = ["train/ant/0.jpg", "train/ant/1.jpg", "train/bee/0.jpg", "val/ant/0.jpg"]
    assert keys(aws) == {f"kennel/data/photos/{name}": (data / name).read_text() for name in names}
    head = aws.client("s3").head_object(Bucket=aws.bucket, Key="kennel/data/photos/train/ant/0.jpg")
    assert head["ContentType"] == "image/jpeg"

    (data / "train/ant/0.jpg").write_text("tran/ant 0")  # another photo
    (data / "train/ant/1.jpg").write_text("train/ant 9")  # of the same size
    (data / "train/cat").mkdir()
    (data / "train/cat/7.jpg").write_text("new")
    (data / "train/bee/0.jpg").touch()
    before = len(put(aws))
    done = command("cli", *words, **aws.env)
    assert "3 files sent" in done.stderr
    assert "2 were there already" in done.stderr
    assert len(put(aws)) == before + 3
    assert keys(aws)["kennel/data/photos/train/ant/1.jpg"] == "train/ant 9"
    assert "0 files sent" in command("cli", *words, **aws.env).stderr
    assert len(put(aws)) == before + 3


def test_nothing_is_deleted_without_the_switch_and_a_yes(aws: Aws, command: Command, make_photos: MakePhotos) -> None:
    data = make_photos({"ant": 2, "bee": 1})
    words = ["upload", str(data), "--bucket", aws.bucket, "--name", "pets", "--channel", "train"]
    assert command("cli", *words, **aws.env).stdout == f"s3://{aws.bucket}/kennel/data/pets/train/\n"
    aws.client("s3").put_object(Bucket=aws.bucket, Key="kennel/data/pets/validation/ant/0.jpg", Body=b"other")
    (data / "ant" / "1.jpg").unlink()
    done = command("cli", *words, **aws.env)
    assert "1 in S3 are not in the folder (--delete removes them)" in done.stderr
    assert "kennel/data/pets/train/ant/1.jpg" in keys(aws)
    done = command("cli", *words, "--delete", **aws.env)
    assert done.returncode == 2
    assert "delete 1 files there: ant/1.jpg" in done.stderr
    assert "add --yes" in done.stderr
    assert "kennel/data/pets/train/ant/1.jpg" in keys(aws)
    done = command("cli", *words, "--delete", "--yes", **aws.env)
    assert done.returncode == 0, done.stderr
    assert "1 deleted" in done.stderr
    assert set(keys(aws)) == {
        "kennel/data/pets/train/ant/0.jpg",
        "kennel/data/pets/train/bee/0.jpg",
        "kennel/data/pets/validation/ant/0.jpg",
        "kennel/uploads/pets/train.json",
    }


def test_what_was_uploaded_as_a_channel_is_not_deleted_with_the_rest(
    aws: Aws, command: Command, make_photos: MakePhotos
) -> None:
    data = make_photos({"validation/ant": 1, "train/ant": 2, "train/bee": 1})
    words = ["--bucket", aws.bucket, "--name", "pets"]
    for channel in ("validation", "extra"):
        folder = str(data / "validation")
        assert command("cli", "upload", folder, *words, "--channel", channel, **aws.env).returncode == 0
    done = command("cli", "upload", str(data / "train"), *words, **aws.env)
    assert "not in the folder" not in done.stderr
    (data / "train/ant/1.jpg").unlink()
    done = command("cli", "upload", str(data / "train"), *words, "--delete", "--yes", **aws.env)
    assert done.returncode == 0, done.stderr
    assert "1 deleted; channel extra, validation there is left as it is" in done.stderr
    names = ["ant/0.jpg", "bee/0.jpg", "extra/ant/0.jpg", "validation/ant/0.jpg"]
    assert [key for key in keys(aws) if "/data/" in key] == [f"kennel/data/pets/{name}" for name in names]
    # A folder of that name in what is uploaded takes the channel's place.
    (data / "train/ant/0.jpg").unlink()
    done = command("cli", "upload", str(data), *words, "--delete", "--yes", **aws.env)
    assert "kennel/data/pets/validation/ant/0.jpg" in keys(aws)
    assert "kennel/data/pets/extra/ant/0.jpg" in keys(aws)
    assert "kennel/data/pets/ant/0.jpg" not in keys(aws)


def test_what_has_no_md5_for_an_etag_is_not_sent_again_either(
    aws: Aws, command: Command, make_photos: MakePhotos
) -> None:
    data = make_photos({"ant": 1})
    (data / "weights.bin").write_bytes(b"w" * (65 * 2**20))  # in two pieces
    words = ["upload", str(data), "--bucket", aws.bucket]
    assert "2 files sent" in command("cli", *words, **aws.env).stderr
    assert len(aws.asked("s3", "UploadPart")) == 2
    assert set(keys(aws)) == {
        "kennel/data/photos/ant/0.jpg",
        "kennel/data/photos/weights.bin",
        "kennel/uploads/photos.json",
    }
    assert "0 files sent" in command("cli", *words, **aws.env).stderr
    (data / "weights.bin").write_bytes(b"v" * (65 * 2**20))
    assert "1 files sent" in command("cli", *words, **aws.env).stderr
    assert "0 files sent" in command("cli", *words, **aws.env).stderr
    aws.client("s3").put_object(Bucket=aws.bucket, Key="kennel/data/photos/weights.bin", Body=b"u" * (65 * 2**20))
    assert "1 files sent" in command("cli", *words, **aws.env).stderr


def test_a_key_encrypts_each_object(aws: Aws, command: Command, make_photos: MakePhotos) -> None:
    data = make_photos({"ant": 1})
    (data / "weights.bin").write_bytes(b"w" * (65 * 2**20))  # sent in pieces: its MD5 is noted beside the photos
    words = ["upload", str(data), "--bucket", aws.bucket, "--kms-key", "alias/photos"]
    assert command("cli", *words, **aws.env).returncode == 0
    for key in ("data/photos/ant/0.jpg", "data/photos/weights.bin", "uploads/photos.json"):
        head = aws.client("s3").head_object(Bucket=aws.bucket, Key=f"kennel/{key}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/photos")


def test_a_dry_run_shows_the_requests_and_sends_none(aws: Aws, command: Command, make_photos: MakePhotos) -> None:
    data = make_photos({"ant": 2})
    aws.client("s3").put_object(Bucket=aws.bucket, Key="kennel/data/photos/old.jpg", Body=b"old")
    done = command("cli", "upload", str(data), "--bucket", aws.bucket, "--delete", "--dry-run", **aws.env)
    assert done.returncode == 0, done.stderr
    shown = json.loads("[" + done.stdout.replace("}\n{", "},{") + "]")
    assert [row["operation"] for row in shown] == ["PutObject", "PutObject", "DeleteObjects"]
    assert {row["request"].get("Key") for row in shown[:2]} == {f"kennel/data/photos/ant/{i}.jpg" for i in range(2)}
    assert shown[2]["request"]["Delete"]["Objects"] == [{"Key": "kennel/data/photos/old.jpg"}]
    assert list(keys(aws)) == ["kennel/data/photos/old.jpg"]


def test_a_link_is_followed_and_a_circle_is_not(aws: Aws, command: Command, make_photos: MakePhotos) -> None:
    data = make_photos({"ant": 1})
    (data.parent / "bee").mkdir()
    (data.parent / "bee" / "0.jpg").write_text("bee")
    (data / "bee").symlink_to(data.parent / "bee")
    (data / "ant" / "all").symlink_to(data)
    assert command("cli", "upload", str(data), "--bucket", aws.bucket, **aws.env).returncode == 0
    assert set(keys(aws)) == {"kennel/data/photos/ant/0.jpg", "kennel/data/photos/bee/0.jpg"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--bucket", "kennel-test-bucket"], "nowhere is no folder: give one that holds"),
        ([".", "--bucket", "kennel-test-bucket"], ". holds no files"),
        (["."], "the bucket is missing"),
        ([".", "--bucket", "s3://pets/"], "--bucket='s3://pets/': write the bucket's name alone"),
        ([".", "--bucket", "b", "--prefix", "/"], "--prefix='/': write a folder's name"),
        ([".", "--bucket", "b", "--name", "a/b"], "'a/b' is no name for a data set or channel"),
        ([".", "--bucket", "b", "--chanel", "x"], "unknown argument --chanel: did you mean '--channel'?"),
    ],
)
def test_bad_usage_is_one_sentence(aws: Aws, command: Command, words: list[str], said: str) -> None:
    done = command("cli", "upload", *words, **aws.env)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert aws.asked("s3", "PutObject") == []


def test_a_bucket_that_is_not_there_says_how_to_fix_it(aws: Aws, command: Command, make_photos: MakePhotos) -> None:
    done = command("cli", "upload", str(make_photos({"ant": 1})), "--bucket", "kennel-none", **aws.env)
    assert done.returncode == 2
    assert "NoSuchBucket" in done.stderr
    assert "name another by --bucket" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(aws: Aws, command: Command, make_photos: MakePhotos) -> None:
    data = make_photos({"ant": 1})
    (data / "ant" / "0.jpg").chmod(0)
    done = command("cli", "upload", str(data), "--bucket", aws.bucket, **aws.env)
    assert done.returncode == 2
    assert "0.jpg can't be read" in done.stderr
