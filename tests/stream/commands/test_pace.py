"""When interactions are sent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.commands.pace import Pace, in_words


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


TIMES = st.lists(st.integers(0, 50_000), max_size=60).map(lambda each: np.array(sorted(each), np.int64))


@given(
    TIMES, st.sampled_from([Pace(), Pace(rate=3.0), Pace(speed=10.0), Pace(speed=0.5, tick_s=0.2)]), st.floats(0, 0.3)
)
def test_each_is_sent_once_in_order_and_not_before_its_time(times: np.ndarray, pace: Pace, busy: float) -> None:  # type: ignore[type-arg]
    clock = Clock()
    due, sent = pace.due_s(times), []
    for start, end in pace.chunks(times, clock, clock.sleep):
        assert start < end
        if due is not None:
            late = clock.now - 5.0 - due[start:end]
            assert (late >= 0).all()
        sent += range(start, end)
        clock.now += busy
    assert sent == list(range(len(times)))
    if (takes := pace.takes_s(times)) is not None and len(times):
        assert takes <= clock.now - 5.0 <= takes + pace.tick_s + 1 + busy * (len(times) + 1)


def test_the_spacing_is_that_of_the_log() -> None:
    times = np.array([1_000, 3_000, 3_000, 13_000], np.int64)
    assert Pace(speed=2.0).due_s(times) == pytest.approx([0, 1, 1, 6])
    assert Pace(rate=2.0).due_s(times) == pytest.approx([0, 0.5, 1, 1.5])
    assert Pace().takes_s(times) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (2.5, "2.5 seconds"),
        (60, "1 minute"),
        (61, "1 minute 1 second"),
        (7_260, "2 hours 1 minute"),
        (90_000, "1 day 1 hour"),
        (86_400 * 800, "800 days"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
