"""Phases: inner ones are not counted twice, and everything adds up."""

import time

from kennel_train.measure.timing import Timing


def test_time_goes_to_the_innermost_phase_and_to_it_alone():
    phases = Timing()
    begun = time.monotonic()
    with phases("outer"):
        time.sleep(0.02)
        with phases("inner"):
            time.sleep(0.2)
        time.sleep(0.02)
    with phases("outer"):
        pass
    passed = time.monotonic() - begun
    assert list(phases.seconds) == ["start", "outer", "inner"]
    assert phases.seconds["inner"] >= 0.2
    assert 0.04 <= phases.seconds["outer"] <= passed - 0.2


def test_a_phase_that_raises_is_closed():
    phases = Timing()
    try:
        with phases("broken"):
            raise ValueError
    except ValueError:
        pass
    broken = phases.seconds["broken"]
    with phases("next"):
        time.sleep(0.01)
    assert phases.seconds["broken"] == broken
