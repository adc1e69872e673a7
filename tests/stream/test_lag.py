"""How far a worker is behind."""

from hypothesis import given
from hypothesis import strategies as st

from stream.lag import Behind, Lag

STEPS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60)
"""What happens from one second to the next: seconds that pass, records that come, records that are taken."""


@given(STEPS)
def test_the_lag_is_the_age_of_the_oldest_record_that_is_not_taken_up_to_when_its_end_was_seen(
    steps: list[tuple[int, int, int]],
) -> None:
    lag, now, end, position = Lag(), 0.0, 0, 0
    seen: list[float] = []
    """When each record was seen first, by its offset."""
    for passed, came, taken in steps:
        now += passed
        seen += [now] * came
        end += came
        position = min(end, position + taken)
        lag.note(now, {0: position}, {0: end})
        expected = Behind(end - position, now - seen[position] if position < end else 0.0)
        assert lag.of(0, position, now) == expected
        assert lag.of(0, end, now) == Behind(0, 0.0), "a step that took the rest since the ends were noted"


def test_an_end_that_is_not_known_is_no_lag_of_zero() -> None:
    lag = Lag()
    assert lag.of(0, 5, 1.0) is None
    lag.note(1.0, {0: 5, 1: 5}, {0: 9})
    assert lag.of(0, 5, 3.0) == Behind(4, 2.0)
    assert lag.of(1, 5, 3.0) is None


def test_a_partition_that_goes_and_comes_back_begins_again() -> None:
    lag = Lag()
    lag.note(1.0, {0: 5}, {0: 9})
    lag.note(2.0, {}, {0: 9})
    lag.note(3.0, {0: 5}, {0: 9})
    assert lag.of(0, 5, 4.0) == Behind(4, 1.0)


def test_a_long_history_keeps_its_beginning_and_little_else() -> None:
    lag = Lag()
    for second in range(20_000):
        lag.note(float(second), {0: 0}, {0: second + 1})
    assert lag.of(0, 0, 20_000.0) == Behind(20_000, 20_000.0)
    assert sum(map(len, lag._seen.values())) <= 513
    half = lag.of(0, 10_000, 20_000.0)
    assert half is not None
    assert 9_800 < half.seconds <= 10_000, "a lower bound"
