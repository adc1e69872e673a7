"""When a candidate is too slow or too large beside the champion."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.version.trial import Trial
from stream.promotion.checks.trial import MOST_ROUNDS, ROUNDS, Round, judged, trial

MB = 1 << 20


def _took(p95_ms: float, mb: float = 300) -> Trial:
    return Trial(load_s=1.0, warm_up_s=1.0, p50_ms=p95_ms / 2, p95_ms=p95_ms, rss_bytes=int(mb * MB))


def _rounds(champion: Sequence[float], candidate: Sequence[float]) -> list[Round]:
    return [(_took(before), _took(after)) for before, after in zip(champion, candidate, strict=True)]


SLOW = "the time of a list is"
JUDGED = {
    "the same": (_rounds([20, 20, 20], [20, 20, 20]), None),
    "a little slower": (_rounds([20, 20, 20], [21.9, 21.9, 21.9]), None),
    "more than a tenth slower": (_rounds([20, 20, 20], [22.5, 22.5, 22.5]), f"{SLOW} 12% higher"),
    "faster": (_rounds([20, 20, 20], [5, 5, 5]), None),
    "one slow round is noise": (_rounds([20, 20, 20], [20, 90, 20]), None),
    "one busy round among rounds of different speed": (_rounds([10, 20, 60], [50, 21, 61]), None),
    "the machine became busy for both": (_rounds([20, 40, 80], [20, 40, 80]), None),
    "the machine became busy between the rounds": (_rounds([20, 80, 80], [23, 92, 92]), f"{SLOW} 15% higher"),
    "many times as slow, and less than a millisecond": (_rounds([0.2] * 3, [1.1] * 3), None),
    "larger": ([(_took(20, 300), _took(20, 340))] * 3, "memory is 13% higher"),
    "larger by what no machine measures": ([(_took(20, 100), _took(20, 115))] * 3, None),
    "slower and larger": ([(_took(20, 300), _took(40, 600))] * 3, f"{SLOW} 100% higher and memory is 100% higher"),
    "a system that does not say the memory": ([(Trial(p95_ms=20), Trial(p95_ms=20))] * 3, None),
}


@pytest.mark.parametrize(("rounds", "wrong"), JUDGED.values(), ids=list(JUDGED))
def test_a_tenth_more_than_the_champion_is_too_much(rounds: list[Round], wrong: str | None) -> None:
    found = judged(rounds)
    assert (found.result == "failed") == (wrong is not None)
    assert wrong is None or wrong in found.figure


@given(st.lists(st.floats(1, 500), min_size=ROUNDS, max_size=MOST_ROUNDS), st.floats(0.2, 1.09))
def test_what_slows_both_in_a_round_changes_nothing(busy: list[float], share: float) -> None:
    assert judged(_rounds(busy, [each * share for each in busy])).result == "passed"


def _in_turn(trials: Sequence[Trial], said: list[str], name: str) -> Iterator[Trial]:
    for each in trials:
        said.append(name)
        yield each


def test_both_are_tried_in_turn_and_a_candidate_that_looks_slow_is_looked_at_longer() -> None:
    said: list[str] = []
    champion = _in_turn([_took(20)] * MOST_ROUNDS, said, "champion")
    # Two of the first three rounds are slow; in the end three of seven are.
    candidate = _in_turn([_took(each) for each in (90, 90, 20, 20, 20, 90, 20)], said, "candidate")
    found = trial(lambda: next(candidate), lambda: next(champion))
    assert found.check.result == "passed"
    assert "medians of 5 rounds" in found.check.figure
    assert said == ["candidate", "champion", *["champion", "candidate"] * 4]


def test_a_candidate_that_stays_slow_fails_after_the_last_round() -> None:
    found = trial(lambda: _took(90), lambda: _took(20))
    assert found.check.result == "failed"
    assert f"medians of {MOST_ROUNDS} rounds" in found.check.figure
    assert found.usable, "slow, and nothing else"


@pytest.mark.parametrize("passes_first", [0, 1, 2])
def test_a_candidate_that_fails_alone_fails_whenever_it_does(passes_first: int) -> None:
    answers = iter([_took(20)] * passes_first + [Trial("it did not end within 60 s: it was warming up")])
    found = trial(lambda: next(answers), lambda: _took(20))
    assert found.check.result == "failed"
    assert "it did not end within 60 s: it was warming up" in found.check.figure
    assert not found.usable


def test_without_a_champion_it_is_tried_once() -> None:
    said: list[str] = []
    found = trial(lambda: next(_in_turn([_took(20)], said, "candidate")), None)
    assert found.check.result == "passed"
    assert said == ["candidate"]


def test_a_champion_that_fails_its_trial_leaves_nothing_to_compare_with() -> None:
    found = trial(lambda: _took(20), lambda: Trial("it is too large"))
    assert found.check.result == "failed"
    assert "because the champion fails: it is too large" in found.check.figure
    assert found.usable
