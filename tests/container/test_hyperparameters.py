"""The table of hyperparameters: what SageMaker's strings become, and the message for a bad one."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kennel import hyperparameters
from kennel.errors import UserError
from kennel.hyperparameters import TABLE, Hyperparameters, parse


@pytest.mark.parametrize("sent", ["128", '"128"', " 128 ", "128.0", 128, '"\\"128\\""'])
@pytest.mark.parametrize("key", ["batch_size", "batch-size"])
def test_a_whole_number_in_every_form_that_is_sent(key, sent):
    assert parse({key: sent}) == Hyperparameters(batch_size=128)


@pytest.mark.parametrize(
    ("sent", "meant"), [("False", False), ("true", True), ('"false"', False), ("0", False), (True, True)]
)
def test_booleans(sent, meant):
    assert parse({"pretrained": sent}).pretrained is meant


def test_a_choice_in_capitals():
    assert parse({"optimizer": "AdamW", "class_weights": None}) == Hyperparameters(optimizer="adamw")


def test_the_defaults_and_the_tuning_ranges_are_those_that_were_promised():
    assert Hyperparameters().backbone == "resnet50"
    assert parse({}) == Hyperparameters()
    rate = TABLE["learning_rate"].tuning
    assert (rate.low, rate.high, rate.log) == (0.001, 0.1, True)
    assert TABLE["batch_size"].tuning.values == (32, 64, 128, 256, 512)
    assert [name for name, rule in TABLE.items() if rule.tuning] == ["batch_size", "learning_rate"]


def test_every_default_and_every_tuned_value_is_allowed():
    assert parse({k: str(v) for k, v in dataclasses.asdict(Hyperparameters()).items()}) == Hyperparameters()
    for name, rule in TABLE.items():
        for value in (rule.tuning and (*rule.tuning.values, rule.tuning.low, rule.tuning.high)) or ():
            if value:
                assert getattr(parse({name: str(value)}), name) == value


def test_the_platforms_own_keys_are_dropped():
    sent = {"sagemaker_program": '"x.py"', "sagemaker_region": "eu", "_tuning_objective_metric": "validation:accuracy"}
    assert parse(sent) == Hyperparameters()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"learning_rate": "1e99"}, "hyperparameter learning_rate='1e99': write a number between 1e-08 and 10"),
        ({"learning_rate": "nan"}, "hyperparameter learning_rate='nan': write a number between 1e-08 and 10"),
        ({"epochs": "2.5"}, "hyperparameter epochs='2.5': write a whole number between 1 and 10000"),
        ({"batch-size": "0"}, "hyperparameter batch_size='0': write a whole number between 1 and 65536"),
        ({"pretrained": "maybe"}, "hyperparameter pretrained='maybe': write true or false"),
        (
            {"strategy": "fine-tune"},
            "write one of auto, probe, finetune, probe-then-finetune (did you mean 'finetune'?)",
        ),
        ({"backbone": " "}, "hyperparameter backbone is empty: leave it out for 'resnet50'"),
        ({"epoch": "3"}, "unknown hyperparameter 'epoch': did you mean 'epochs'?"),
        ({"zzz": "3"}, "unknown hyperparameter 'zzz': known: backbone, pretrained"),
        (
            {"batch-size": "8", "batch_size": "8"},
            "hyperparameter 'batch_size' is given twice, as batch-size and as batch_size: keep one",
        ),
        ({"batch_size": "8", "batch-size": "0"}, "is given twice, as batch_size and as batch-size: keep one"),
        ({"Batch-Size": "8"}, "unknown hyperparameter 'Batch-Size': did you mean 'batch_size'?"),
        ({"learning_rate": "0,01"}, "write a number between 1e-08 and 10, with a point and no comma"),
        ({"epochs": "9" * 2000}, f"hyperparameter epochs='{'9' * 80}...': write a whole number"),
        ({"image_size": "16"}, "hyperparameter image_size='16': write a whole number between 32 and 1024, or 0"),
        ({"optimizer": "addamw"}, "write one of sgd, adamw (did you mean 'adamw'?)"),
    ],
)
def test_a_bad_one_is_named_with_its_value_and_bound(sent, said):
    with pytest.raises(UserError) as caught:
        parse(sent)
    assert said in str(caught.value)


def test_all_bad_ones_are_named_at_once():
    with pytest.raises(UserError, match=r"epochs='0'.*seed='-1'"):
        parse({"epochs": "0", "seed": "-1"})


@given(st.dictionaries(st.sampled_from(list(TABLE)), st.text() | st.floats().map(str) | st.integers().map(str)))
def test_any_text_is_parsed_or_refused_in_one_line(sent):
    try:
        made = parse(sent)
    except UserError:
        return
    for name, rule in TABLE.items():
        value = getattr(made, name)
        zero = rule.or_zero and value == 0
        assert isinstance(value, str | bool) or zero or rule.low <= value <= rule.high


def test_files_that_hold_no_table_are_named(tmp_path):
    assert hyperparameters.load(tmp_path / "absent.json") == {}
    path = tmp_path / "hyperparameters.json"
    for text, said in (("[1]", "holds a list"), ("{", "cannot be read as JSON")):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            hyperparameters.load(path)
    path.write_text(json.dumps({"epochs": "3"}))
    assert hyperparameters.load(path) == {"epochs": "3"}
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors begin a file
    assert hyperparameters.load(path) == {"epochs": "3"}
