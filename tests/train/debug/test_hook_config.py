"""SageMaker's files of settings as the platform, the SDK and people write them."""

import json
from pathlib import Path

import pytest

from kennel.errors import UserError
from kennel_train.debug.hook_config import Asked, read


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "ml" / "input" / "config"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def output(tmp_path):
    return tmp_path / "ml" / "output"


def profiler(config, **row):
    (config / "profilerconfig.json").write_text(json.dumps(row))


def detailed(config, given):
    profiler(config, ProfilingParameters={"DetailedProfilingConfig": given})


def test_no_files_ask_for_nothing(config, output):
    assert read(config, output) == Asked(None, None, None, None, None)


def test_a_job_by_the_sdk(config, output):
    """As sagemaker.debugger's FrameworkProfile(start_step=5, num_steps=3) sends it."""
    (config / "profilerconfig.json").write_text(
        r"""{"S3OutputPath": "s3://b/p", "DisableProfiler": false, "ProfilingIntervalInMilliseconds": 500,
        "ProfilingParameters": {"LocalPath": "/opt/ml/output/profiler", "RotateMaxFileSizeInBytes": "10485760",
        "DataloaderProfilingConfig": "{\"StartStep\": 5, \"NumSteps\": 3, \"MetricsRegex\": \".*\", }",
        "DetailedProfilingConfig": "{\"StartStep\": 5, \"NumSteps\": 3, }"}}"""
    )
    (config / "tensorboardoutputconfig.json").write_text(
        '{"S3OutputPath": "s3://b/t", "LocalPath": "/opt/ml/output/tensorboard/run"}'
    )
    (config / "debughookconfig.json").write_text('{"S3OutputPath": "s3://b/d", "HookParameters": {}}')
    expected = (output / "profiler", 0.5, (5, 7), output / "tensorboard" / "run", config / "debughookconfig.json")
    assert read(config, output) == Asked(*expected)


@pytest.mark.parametrize("nothing", ["", " \n", "null"])
def test_a_file_that_holds_nothing_is_none(config, output, nothing):
    for name in ("profilerconfig.json", "tensorboardoutputconfig.json", "debughookconfig.json"):
        (config / name).write_text(nothing)
    assert read(config, output) == Asked()


def test_defaults_of_empty_objects(config, output):
    for name in ("profilerconfig.json", "tensorboardoutputconfig.json", "debughookconfig.json"):
        (config / name).write_text("{}")
    hook = config / "debughookconfig.json"
    assert read(config, output) == Asked(output / "profiler", None, None, output / "tensorboard", hook)


def test_a_profiler_that_is_switched_off_asks_for_nothing(config, output):
    for value in (True, "true", "True"):
        profiler(config, DisableProfiler=value, ProfilingIntervalInMilliseconds=500, ProfilingParameters={"x": "y"})
        assert read(config, output) == Asked()


def test_keys_are_read_in_any_case_and_paths_stay_as_they_are(config, output):
    profiler(config, profilingintervalinmilliseconds="1000", PROFILINGPARAMETERS={"localPATH": "/data/MyTraces"})
    assert read(config, output) == Asked(Path("/data/MyTraces"), 1.0)


@pytest.mark.parametrize(
    ("given", "below"),
    [
        ("/opt/ml/output/a/b", "a/b"),
        ("/opt/ml/output/", ""),
        ("relative", "relative"),
        (None, "tensorboard"),
        ("", "tensorboard"),
    ],
)
def test_paths_below_the_output_folder(config, output, given, below):
    (config / "tensorboardoutputconfig.json").write_text(json.dumps({"LocalPath": given}))
    assert read(config, output).tensorboard == output / below


def test_a_path_that_only_begins_alike_is_another(config, output):
    (config / "tensorboardoutputconfig.json").write_text('{"LocalPath": "/opt/ml/output2/x"}')
    assert read(config, output).tensorboard == Path("/opt/ml/output2/x")


@pytest.mark.parametrize(
    ("given", "trace"),
    [
        ('{"StartStep": 5, "NumSteps": 3, }', (5, 7)),
        ('{"startstep": "7", "numsteps": "1"}', (7, 7)),
        ({"StartStep": 20, "NumSteps": 100}, (20, 119)),
        ('{"StartStep": 9}', (9, 9)),
        ('{"NumSteps": 2}', (0, 1)),
        ("{}", None),
        ("", None),
    ],
)
def test_steps_to_trace(config, output, given, trace):
    detailed(config, given)
    assert read(config, output).trace == trace


def test_a_trace_by_time_is_left_out_with_a_word(config, output, caplog):
    detailed(config, '{"StartTimeInSecSinceEpoch": 1700000000, "Duration": 10, }')
    assert read(config, output).trace is None
    assert "names no steps and is left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "profilerconfig.json: is no JSON"),
        ("[1]", "profilerconfig.json: expected a JSON object"),
        ('{"ProfilingParameters": "x"}', "profilerconfig.json: expected a JSON object, got 'x'"),
        ('{"ProfilingParameters": {"LocalPath": 3}}', "profilerconfig.json: LocalPath=3"),
        ('{"ProfilingIntervalInMilliseconds": "fast"}', "Milliseconds='fast': give 100 to 60000"),
        ('{"ProfilingIntervalInMilliseconds": 0}', "Milliseconds=0: give 100 to 60000"),
        ('{"ProfilingIntervalInMilliseconds": [1]}', "give 100 to 60000"),
    ],
)
def test_a_broken_file_is_named(config, output, text, message):
    (config / "profilerconfig.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read(config, output)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["tensorboardoutputconfig.json", "debughookconfig.json"])
def test_the_other_files_are_held_to_json_too(config, output, name):
    (config / name).write_bytes(b'{"a": }')
    with pytest.raises(UserError, match=rf"{name}: is no JSON"):
        read(config, output)
    (config / name).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=rf"{name}: is no UTF-8"):
        read(config, output)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("__import__('os').getpid()", "DetailedProfilingConfig="),
        ("{'StartStep': ", "DetailedProfilingConfig="),
        ("[1, 2]", "expected a JSON object"),
        ({"StartStep": -1}, "StartStep=-1: give a whole number of at least 0"),
        ({"StartStep": 1.5}, "StartStep=1.5"),
        ({"StartStep": 5, "NumSteps": 0}, "NumSteps=0: give a whole number of at least 1"),
        ({"StartStep": 5, "NumSteps": 101}, "NumSteps=101: trace at most 100 steps"),
    ],
)
def test_steps_that_cannot_be_meant(config, output, given, message):
    detailed(config, given)
    with pytest.raises(UserError) as caught:
        read(config, output)
    assert message in str(caught.value)
