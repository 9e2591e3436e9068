"""`kennel invoke` against real endpoints of every mode, and what it sends where a photo is too large."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel_launch.hosting import specs
from kennel_launch.inference import invocation, photo_sources, shrink
from kennel_launch.machine.http_probe import RefusedPhotoError
from kennel_launch.settings import Settings

from ...emulated_aws.client import Aws
from ...emulated_aws.runners import pictures
from ..conftest import Command
from ..deployments import JOB, Kennel, in_service, noise, of


@pytest.fixture
def kennel(aws: Aws, command: Command, tmp_path: Path) -> Iterator[Kennel]:
    with of(aws, command, tmp_path) as kennel:
        yield kennel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos, one of them none, and a file that does not count."""
    root = pictures.photos(tmp_path / "new", {"red": 2, "green": 1})
    (root / "broken.jpg").write_bytes(b"no photo")
    (root / "notes.txt").write_text("nothing")
    return root


def lines(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_a_photo_a_folder_and_a_prefix(kennel: Kennel, programs: Path, folder: Path) -> None:
    in_service(kennel)
    one = kennel("invoke", JOB, str(folder / "red" / "0.png"))
    assert one.returncode == 0, one.stderr
    rows = [line.split("│")[1:4] for line in one.stdout.splitlines() if line.startswith("│")]
    assert sorted(cells[1].strip() for cells in rows) == ["green", "red"]
    assert sum(float(cells[2]) for cells in rows) == pytest.approx(1, abs=1e-3)

    all_ = kennel("invoke", JOB, str(folder), "--json", "--top-k", "1")
    assert all_.returncode == 1
    answers = lines(all_.stdout)
    assert [row["photo"] for row in answers] == ["broken.jpg", "green/0.png", "red/0.png", "red/1.png"]
    assert "not a readable photo" in str(answers[0]["error"])
    assert all(len(row["predictions"]) == 1 for row in answers[1:])  # type: ignore[arg-type]
    assert f"refused: broken.jpg ({answers[0]['error']})" in all_.stderr
    assert all_.stderr.splitlines()[-1] == "kennel invoke: 1 of 4 photos have no answer"

    for path in folder.rglob("*.png"):
        kennel.put(f"asked/{path.relative_to(folder)}", path.read_bytes())
    kennel.put("asked/notes.txt")
    kennel.put("asked2/other.png")
    there = kennel("invoke", JOB, f"s3://{kennel.aws.bucket}/asked", "--json", "--top-k", "1")
    assert there.returncode == 0, there.stderr
    assert lines(there.stdout) == answers[1:]
    alone = kennel("invoke", JOB, f"s3://{kennel.aws.bucket}/asked/red/1.png", "--json")
    assert [row["photo"] for row in lines(alone.stdout)] == [f"s3://{kennel.aws.bucket}/asked/red/1.png"]

    table = kennel("invoke", JOB, str(folder / "red"))
    assert table.returncode == 0
    assert [name in table.stdout for name in ("0.png", "1.png", "probability")] == [True] * 3

    assert "endpoint kennel-pets has one model" in kennel("invoke", JOB, str(folder), "--target-model", "x").stderr
    kinds = {request["ContentType"] for request in kennel.aws.asked("sagemaker-runtime", "InvokeEndpoint")}
    assert kinds == {"image/png", "image/jpeg"}


def test_a_serverless_endpoint_gets_a_smaller_photo(kennel: Kennel, programs: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="a laptop without Pillow makes no photo smaller")
    in_service(kennel, "--mode", "serverless")
    large = tmp_path / "large.png"
    large.write_bytes(noise(1300))
    done = kennel("invoke", JOB, str(large), "--json")
    assert done.returncode == 0, done.stderr
    assert "large.png: 4.8 MB, this endpoint takes 4.0 MB: sent as a JPEG of 1300 × 1300 pixels, " in done.stderr
    (request,) = kennel.aws.asked("sagemaker-runtime", "InvokeEndpoint")
    assert request["ContentType"] == "image/jpeg"
    assert int(request["Body"].split()[0]) <= 4 * 1024 * 1024
    large.write_bytes(b"x" * 5 * 1024 * 1024)
    done = kennel("invoke", JOB, str(large), "--json")
    assert done.returncode == 1
    assert "it is too large, and cannot be read to make it smaller" in str(lines(done.stdout)[0]["error"])


def test_an_asynchronous_endpoint_answers_through_s3(kennel: Kennel, programs: Path, folder: Path) -> None:
    in_service(kennel, "--mode", "async", "--name", "later")
    done = kennel("invoke", "later", str(folder), "--json", "--top-k", "2")
    assert done.returncode == 1
    first, *others = lines(done.stdout)
    assert first["photo"] == "broken.jpg"
    assert "Received client error" not in str(first["error"])  # the endpoint's own sentence, out of SageMaker's
    assert all(len(row["predictions"]) == 2 for row in others)  # type: ignore[arg-type]
    assert kennel.keys("kennel/async/later/input") == []
    assert len(kennel.keys("kennel/async/later/output")) == 3
    address = kennel.put("asked/red.png", pictures.photo("red", 5))
    there = kennel("invoke", "later", address, "--json")
    assert there.returncode == 0, there.stderr
    assert kennel.aws.asked("sagemaker-runtime", "InvokeEndpointAsync")[-1]["InputLocation"] == address
    assert kennel.keys("asked") == ["asked/red.png"]


def test_a_multi_model_endpoint_has_a_model_by_name_and_gets_others(
    kennel: Kennel, programs: Path, folder: Path
) -> None:
    said = in_service(kennel, "--mode", "multi-model", "--name", "zoo")
    assert f"kennel invoke zoo PHOTO --target-model {JOB}.tar.gz" in said
    before = kennel.made()
    body = kennel.aws.client("s3").get_object(Bucket=kennel.aws.bucket, Key=f"kennel/jobs/{JOB}/output/model.tar.gz")
    other = kennel.put("kennel/jobs/other/output/model.tar.gz", body["Body"].read())
    added = kennel("deploy", "--model", other, "--mode", "multi-model", "--name", "zoo", "--yes")
    assert added.returncode == 0, added.stderr
    assert added.stdout == "added other: kennel invoke zoo PHOTO --target-model other.tar.gz\n"
    assert kennel.made()[len(before) :] == ["CopyObject"]
    photo = str(folder / "red" / "0.png")
    for name in (JOB, "other"):
        done = kennel("invoke", "zoo", photo, "--target-model", f"{name}.tar.gz", "--json")
        assert done.returncode == 0, done.stderr
    assert "endpoint zoo has many models: add --target-model" in kennel("invoke", "zoo", photo).stderr
    none = kennel("invoke", "zoo", photo, "--target-model", "none.tar.gz")
    assert none.returncode == 2
    assert "Failed to download model data" in none.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent", "."], "there is no endpoint absent in eu-west-1"),
        (["no_body", "."], "endpoint 'no_body': a name is up to 63"),
        (["absent", ".", "--top-k", "0"], "--top-k 0: write a whole number from 1"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(kennel: Kennel, words: list[str], said: str) -> None:
    assert said in kennel.refused("invoke", *words)


def test_an_endpoint_that_is_not_in_service_and_photos_that_are_none(kennel: Kennel, tmp_path: Path) -> None:
    kennel.aws.hold()
    said = kennel.start("deploy", "--model", kennel.put("m/model.tar.gz"), "--name", "pets", "--yes")
    try:
        while "CreateEndpoint" not in kennel.made():
            assert said.poll() is None
        assert "endpoint pets is Creating and takes no requests: wait" in kennel("invoke", "pets", ".").stderr
    finally:
        said.terminate()
        _, stderr = said.communicate(timeout=60)
    assert "endpoint pets goes on starting, and costs: kennel delete pets ends it" in stderr


def test_photos_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a.webp", "b/.hidden.jpg", ".cache/x.jpg", "c.txt", "d.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [photo.name for photo in photo_sources.find(str(tmp_path), Settings())] == ["a.webp", "b/2.JPG", "d.gif"]
    with pytest.raises(UserError, match="is no file and no folder"):
        photo_sources.find(str(tmp_path / "none"), Settings())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no photos"):
        photo_sources.find(str(tmp_path / "empty"), Settings())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jpg", "image/jpeg"),
        ("A.JPEG", "image/jpeg"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.tif", "image/tiff"),
        ("a.bmp", "image/bmp"),
        ("a.svg", "application/x-image"),
        ("a", "application/x-image"),
    ],
)
def test_content_types(name: str, kind: str) -> None:
    assert photo_sources.content_type(name) == kind


@pytest.mark.parametrize(
    ("mode", "environment", "megabytes"),
    [
        ("real-time", {}, 25),
        ("serverless", {}, 4),
        ("multi-model", {}, 25),
        ("async", {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}, 100),
        ("async", {}, 25),
        ("real-time", {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}, 25),
        ("real-time", {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"}, 6),
        ("real-time", {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "much"}, 25),
    ],
)
def test_the_largest_body(mode: str, environment: dict[str, str], megabytes: int) -> None:
    assert specs.largest_body(mode, environment) == megabytes * 1024 * 1024


def test_a_photo_is_cut_no_more_than_it_must_and_turned_as_it_was_held() -> None:
    image = pytest.importorskip("PIL.Image", reason="a laptop without Pillow makes no photo smaller")
    body = noise(600)
    whole = shrink.fit(body, len(body))
    assert (whole.width, whole.height) == (600, 600)
    cut = shrink.fit(body, 100_000)
    assert 50_000 < len(cut.body) <= 100_000
    with image.open(io.BytesIO(cut.body)) as opened:
        assert opened.format == "JPEG"
        assert opened.size == (cut.width, cut.height)
    made = io.BytesIO()
    tall = image.new("RGBA", (40, 80), (255, 0, 0, 255))
    exif = tall.getexif()
    exif[0x0112] = 6  # turned by a quarter
    tall.save(made, "PNG", exif=exif)
    turned = shrink.fit(made.getvalue(), 100_000)
    assert (turned.width, turned.height) == (80, 40)
    with pytest.raises(UserError, match="does not fit into 10 bytes"):
        shrink.fit(made.getvalue(), 10)


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (400, '{"error": "it is no photo"}', "it is no photo"),
        (None, 'Received client error (400) from primary with message "{"error": "no "photo""}". See', "Received"),
        (None, 'Received client error (400) from primary with message "{"error": "no photo"}". See', "no photo"),
        (500, "Internal\nServer Error", "the endpoint failed with 500: Internal Server Error"),
        (400, "", "it gives no reason"),
    ],
)
def test_an_error_is_the_endpoints_own_sentence(status: int | None, message: str, said: str) -> None:
    assert str(invocation.refused(status, message)).startswith(said)


def test_an_answer_of_somebody_elses_is_no_prediction() -> None:
    with pytest.raises(RefusedPhotoError, match="the answer holds no predictions"):
        invocation._guesses(b"[1, 2]")
