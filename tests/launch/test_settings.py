"""Where a setting comes from, what of a value is refused, what is shown of a call instead of sending it."""

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kennel.errors import UserError
from kennel_launch import settings
from kennel_launch.aws import session
from kennel_launch.console import confirm

from .conftest import REPOSITORY

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "something",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("KENNEL_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_a_flag_goes_before_the_environment_and_that_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load({}).instance_type == "ml.g5.xlarge"
    Path("kennel.toml").write_text('instance_type = "ml.p3.2xlarge"\nbucket = "photos"\ninstance_count = 2\n')
    assert settings.load({}).instance_type == "ml.p3.2xlarge"
    monkeypatch.setenv("KENNEL_INSTANCE_TYPE", "ml.g4dn.xlarge")
    assert settings.load({"instance_type": None}).instance_type == "ml.g4dn.xlarge"
    made = settings.load({"instance_type": "ml.g6.xlarge", "data": "no setting"})
    assert made.instance_type == "ml.g6.xlarge"
    assert (made.bucket, made.instance_count) == ("photos", 2)


def test_pauses_between_questions_are_no_longer_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.pause(2.0) == 2.0
    for given, pauses in (("0.5", (0.25, 0.5)), ("60", (0.25, 2.0)), ("", (0.25, 2.0)), ("0", (0, 0))):
        monkeypatch.setenv("KENNEL_PAUSE", given)
        assert (settings.pause(0.25), settings.pause(2.0)) == pauses
    for given in ("soon", "-1", "nan", "1e9"):
        monkeypatch.setenv("KENNEL_PAUSE", given)
        with pytest.raises(UserError, match=rf"KENNEL_PAUSE='{given}': write seconds"):
            settings.pause(2.0)


def test_lists_and_tables_are_written_as_toml_or_as_words(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("kennel.toml").write_text('subnets = ["subnet-1", "subnet-2"]\nprefix = "a/b/"\n[tags]\nteam = "vision"\n')
    made = settings.load({})
    assert (made.subnets, made.tags, made.prefix) == (("subnet-1", "subnet-2"), {"team": "vision"}, "a/b")
    monkeypatch.setenv("KENNEL_TAGS", "team=ears, owner=me")
    made = settings.load({"subnets": "subnet-3,subnet-4"})
    assert (made.subnets, made.tags) == (("subnet-3", "subnet-4"), {"team": "ears", "owner": "me"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('instance_typ = "x"', "unknown setting 'instance_typ': did you mean 'instance_type'?"),
        ("colour = 1", "unknown setting 'colour': known: role, region,"),
        ("region =", "kennel.toml cannot be read"),
        ("instance_count = 0", "instance_count in kennel.toml=0: write a whole number from 1"),
        ("instance_count = true", "write a whole number from 1"),
        ("region = 5", "region in kennel.toml=5: write one word"),
        ("subnets = [1]", "subnets in kennel.toml=[1]: write ID,..."),
        ("tags = {team = 1}", "tags in kennel.toml: write tags as"),
    ],
)
def test_a_bad_file_is_one_sentence(text: str, said: str) -> None:
    Path("kennel.toml").write_text(text + "\n")
    with pytest.raises(UserError) as raised:
        settings.load({})
    assert said in str(raised.value)


@pytest.mark.parametrize("tags", ["team", "=x", "team=a,team=b"])
def test_bad_tags(tags: str) -> None:
    with pytest.raises(UserError, match="--tags: write tags as"):
        settings.load({"tags": tags})


def test_every_setting_has_a_flag_that_is_read_back() -> None:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    words = dict.fromkeys(settings.ROWS, "1") | {"tags": "a=1"}
    options = parser.parse_args([word for name, value in words.items() for word in (settings.flag(name), value)])
    made = settings.load(vars(options))
    assert made.subnets == ("1",)
    assert made.profile == "1"
    assert vars(parser.parse_args([])) == dict.fromkeys(settings.ROWS)


def test_what_is_needed_and_missing_is_named_with_its_flag() -> None:
    with pytest.raises(UserError, match=r"the kms key is missing .*write --kms-key KEY, or kms_key = \.\.\. in kennel"):
        settings.needed(settings.Settings(bucket="b"), "bucket", "kms_key")


def test_without_a_terminal_a_yes_must_be_written(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UserError, match="add --yes"):
        confirm.ask(["a job"], yes=False)
    confirm.ask(["a job"], yes=True)
    assert capsys.readouterr().err == "a job\na job\n"


def asked_at_a_terminal(answer: str) -> tuple[int, str]:
    """Exit code and output of a question that is answered at a pseudo-terminal."""
    code = "from kennel_launch.console import confirm; confirm.ask(['a job'], yes=False); print('done')"
    program = f"import pty, sys; sys.exit(pty.spawn([sys.executable, '-c', {code!r}]) >> 8)"
    sources = os.pathsep.join(str(REPOSITORY / folder) for folder in ("scripts", "container"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=answer,
        env={**os.environ, "PYTHONPATH": sources},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_at_a_terminal_only_yes_is_yes() -> None:
    code, said = asked_at_a_terminal("y\n")
    assert code == 0
    assert "a job" in said
    assert "done" in said
    code, said = asked_at_a_terminal("\n")
    assert code == 1
    assert "nothing was done" in said
    assert "done\r\n" not in said.replace("nothing was done", "")


DRY = """
from kennel_launch import settings
from kennel_launch.aws import session
made = settings.Settings(region="eu-west-1")
session.dry_run(made)
client = session.client("sagemaker", made)
answer = client.create_endpoint(EndpointName="pets", EndpointConfigName="pets")
assert answer["EndpointArn"], answer
session.client("s3", made).put_object(Bucket="b", Key="k", Body=b"123")
session.client("s3", made).put_object(Bucket="b", Key="k", Body=b"\\xff")
client.describe_endpoint(EndpointName="pets")
"""


def test_a_dry_run_prints_what_would_be_sent_and_still_reads() -> None:
    sources = os.pathsep.join(str(REPOSITORY / folder) for folder in ("scripts", "container"))
    nowhere = {"PYTHONPATH": sources, "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1", **CREDENTIALS}
    done = subprocess.run(
        [sys.executable, "-c", DRY], env={**os.environ, **nowhere}, capture_output=True, text=True, check=False
    )
    first, *puts = json.loads("[" + done.stdout.replace("}\n{", "},{") + "]")
    assert first == {
        "service": "sagemaker",
        "operation": "CreateEndpoint",
        "request": {"EndpointName": "pets", "EndpointConfigName": "pets"},
    }
    bodies = [(put["operation"], put["request"]["Body"]) for put in puts]
    assert bodies == [("PutObject", "123"), ("PutObject", "<BytesIO>")]
    assert "EndpointConnectionError" in done.stderr
    assert "line 11, in <module>" in done.stderr  # the reading call, which was made


def test_a_request_that_botocore_would_not_send_is_not_printed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    made = settings.Settings(region="eu-west-2")  # a session of its own
    session.dry_run(made)
    with (
        pytest.raises(UserError, match=r"endpoint pets: AWS cannot be asked \(Parameter validation failed: Missing"),
        session.translate_errors("endpoint pets"),
    ):
        session.client("sagemaker", made).create_endpoint(EndpointName="pets")
    assert capsys.readouterr().out == ""


def test_what_aws_says_becomes_one_sentence() -> None:
    from botocore.exceptions import ClientError

    said = {"Error": {"Code": "ResourceLimitExceeded", "Message": "The account-level limit\nis 0."}}
    with pytest.raises(UserError) as raised, session.translate_errors("job j"):
        raise ClientError(said, "CreateTrainingJob")
    assert str(raised.value) == (
        "job j: AWS refuses (ResourceLimitExceeded: The account-level limit is 0): "
        "ask for a higher quota in the console's Service Quotas, or choose another instance type"
    )


def test_no_region_and_no_such_profile_say_where_to_write_them() -> None:
    with pytest.raises(UserError, match=r"no AWS region: write --region, or region = \.\.\. in kennel\.toml"):
        session.client("s3", settings.Settings())
    with pytest.raises(UserError, match=r"AWS profile absent: .*absent"):
        session.client("s3", settings.Settings(profile="absent", region="eu-west-1"))
