"""The small language of a search space, and the grid that is laid over one."""

import math

import pytest

from kennel.errors import UserError
from kennel.hyperparameters import TABLE, Tuning
from kennel.search.search_space import grid, space


def test_without_a_text_it_is_the_tables_own():
    assert space("") == {name: rule.tuning for name, rule in TABLE.items() if rule.tuning}
    assert set(space(" ")) == {"learning_rate", "batch_size"}


def test_ranges_choices_and_names_alone():
    found = space("learning-rate batch_size=16,32 weight_decay=1e-5..1e-2 epochs=3..6 optimizer=sgd,adamw")
    assert found["learning_rate"] == TABLE["learning_rate"].tuning
    assert found["batch_size"] == Tuning(values=(16, 32))
    assert found["weight_decay"] == Tuning(1e-5, 1e-2)
    assert found["weight_decay"].log
    assert found["epochs"] == Tuning(3, 6)
    assert not found["epochs"].log
    assert found["optimizer"].values == ("sgd", "adamw")
    assert space("trivial_augment=true,false")["trivial_augment"].values == (True, False)
    assert not space("momentum=0..0.9")["momentum"].log, "no logarithm of 0"
    assert space("weight_decay=0.01..0.1")["weight_decay"].log, "a factor of ten is enough"
    assert not space("weight_decay=0.02..0.1")["weight_decay"].log


@pytest.mark.parametrize(
    "text",
    [
        "learning_rate = 0.001 .. 0.1 batch_size = 8 , 16 optimizer= SGD,AdamW",
        "learning_rate=0.001..0.1, batch_size=8, 16, optimizer=sgd, adamw",
        "learning-rate=1e-3..1e-1;batch-size=8,16 ;\noptimizer=sgd,adamw",
    ],
)
def test_blanks_around_signs_and_commas_between_settings_change_nothing(text):
    assert space(text) == space("learning_rate=0.001..0.1 batch_size=8,16 optimizer=sgd,adamw")
    assert set(space("learning_rate, batch-size,epochs=1..3")) == {"learning_rate", "batch_size", "epochs"}


@pytest.mark.parametrize(
    "text",
    [
        "learning_rate=[0.001,0.1]",
        "learning_rate=(0.001, 0.1)",
        "learning_rate=0.001...0.1",
        "learning_rate=0.001-0.1",
        "learning_rate=0,001..0,1",
        "learning_rate=0.1..",
        "momentum=",
        "batch_size=8,16,",
        "learning_rate: 0.001..0.1",
        "learning_rate 0.001..0.1",
        "'learning_rate=0.001..0.1'",
        '{"learning_rate": [0.001, 0.1]}',
        ";",
    ],
)
def test_another_form_is_answered_by_the_form(text):
    with pytest.raises(
        UserError, match=r"^search_space: .*: write a range as in learning_rate=0.001..0.1, a choice as"
    ):
        space(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rat=1..2", "search_space: unknown hyperparameter 'learning_rat': did you mean 'learning_rate'?"),
        ("seed=1..5", "search_space: seed is the same for all trials: search over any of solver, "),
        ("momentum", "search_space: momentum has no range of its own: write one"),
        ("LEARNING_RATE=1..2", "search_space: unknown hyperparameter 'LEARNING_RATE': did you mean 'learning_rate'?"),
        ("learning_rate=0.1..0.01", "search_space: learning_rate=0.1..0.01 is empty: write the lower end first"),
        ("learning_rate=0.1..0.1", "search_space: learning_rate=0.1..0.1 is empty: write the lower end first"),
        ("learning_rate=0.1..99", "hyperparameter learning_rate='99': write a number between 1e-08 and 10"),
        ("optimizer=adamw..sgd", "search_space: optimizer=adamw..sgd is a range of words: write a choice"),
        ("optimizer=sgd,adm", "hyperparameter optimizer='adm': write one of sgd, adamw"),
        ("batch_size=32", "search_space: batch_size=32 is no choice: write two values or more, all different"),
        ("batch_size=32,32,64", "search_space: batch_size=32,32,64 is no choice"),
        (
            "batch_size=32,64 batch-size=8,16",
            "search_space: batch_size is given twice, as batch_size and as batch-size",
        ),
    ],
)
def test_what_is_no_space_is_one_sentence(text, said):
    with pytest.raises(UserError) as caught:
        space(text)
    assert str(caught.value).startswith(said)


def test_a_grid_has_all_choices_and_ranges_from_end_to_end():
    made = grid(space(""), 20)
    assert made["batch_size"] == [32, 64, 128, 256, 512]
    assert made["learning_rate"] == pytest.approx([0.001, 0.001 * 10 ** (2 / 3), 0.001 * 10 ** (4 / 3), 0.1])
    assert (min(made["learning_rate"]), max(made["learning_rate"])) == (0.001, 0.1)


@pytest.mark.parametrize("trials", [1, 2, 7, 9, 27, 100])
def test_a_grid_has_no_more_points_than_trials_where_the_choices_allow_it(trials):
    made = grid(space("learning_rate momentum=0..0.9 epochs=3..5"), trials)
    assert math.prod(len(values) for values in made.values()) <= trials
    assert all(0 <= value <= 0.9 for value in made["momentum"])
    assert set(made["epochs"]) <= {3, 4, 5}


def test_one_point_of_a_range_is_its_middle():
    assert grid(space("learning_rate"), 1) == {"learning_rate": [pytest.approx(0.01)]}
    assert grid(space("momentum=0.2..0.6"), 1) == {"momentum": [pytest.approx(0.4)]}
