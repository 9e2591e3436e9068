"""Random numbers: nothing but (seed, epoch, photo) moves them."""

import numpy as np

from kennel_train.data import randomness


def test_draws_are_a_function_of_seed_epoch_and_photo():
    table = randomness.draws(7, 3, 50)
    assert (table.shape, table.dtype) == ((50, randomness.COLUMNS), np.float32)
    assert (table == randomness.draws(7, 3, 50)).all()
    assert (table == randomness.draws(7, 3, 900)[:50]).all()
    assert all((table != other).any() for other in (randomness.draws(7, 4, 50), randomness.draws(8, 3, 50)))
    assert 0 <= table.min() <= table.max() < 1


def test_columns_do_not_depend_on_each_other():
    correlation = np.corrcoef(randomness.draws(1, 1, 20_000).T) - np.eye(randomness.COLUMNS)
    assert np.abs(correlation).max() < 0.03


def test_order_is_a_permutation_of_its_own():
    order = randomness.order(7, 3, 500)
    assert (np.sort(order) == np.arange(500)).all()
    assert order.dtype == np.int64
    assert (order == randomness.order(7, 3, 500)).all()
    assert all((order != other).any() for other in (randomness.order(7, 4, 500), randomness.order(8, 3, 500)))
