"""How much worse a version may be: what the bootstrap allows, how many targets that needs, and which part of a log it
is measured on.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import EvaluationImpossible
from model.evaluation import compare
from model.evaluation.drop import Drop, Part, drop, gains, least_targets, newest_part
from model.version.manifest import Manifest, Training
from model.version.runtime import Runtime
from tests.model import tiny

GAINS = np.array([0.0, 0.0, 0.0, 1.0, 0.5, 0.63, 0.29])


@pytest.mark.parametrize(("limit", "least"), [(0.01, 300), (0.03, 100), (0.1, 30), (0.5, 6), (1.0, 3)])
def test_the_smaller_the_drop_that_is_allowed_the_more_targets_are_needed(limit: float, least: int) -> None:
    assert least_targets(limit) == least


@pytest.mark.parametrize("limit", [0.01, 0.05])
def test_a_loss_of_whole_lists_is_missed_by_the_fewest_targets_in_one_case_of_twenty_at_most(limit: float) -> None:
    assert (1 - limit) ** least_targets(limit) <= 0.05


@given(st.lists(st.tuples(st.sampled_from(GAINS), st.sampled_from(GAINS)), min_size=2, max_size=40))
@settings(max_examples=30, deadline=None)
def test_the_mean_is_between_the_ends_of_the_interval_and_the_other_way_round_is_the_negative(
    pairs: list[tuple[float, float]],
) -> None:
    first, second = np.array(pairs).T
    there, back = drop(first, second), drop(second, first)
    assert there.least - 0.02 <= there.mean <= there.most + 0.02
    assert there.mean == pytest.approx(-back.mean)
    assert there.most == pytest.approx(-back.least, abs=0.02)


def test_equal_rankings_have_no_drop_and_no_doubt() -> None:
    found = drop(GAINS, GAINS)
    assert (found.mean, found.least, found.most) == (0, 0, 0)


def test_more_users_of_the_same_kind_allow_less() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.choice(GAINS, 4000), rng.choice(GAINS, 4000)
    few, many = drop(first[:400], second[:400]), drop(first, second)
    assert many.most - many.mean < 0.5 * (few.most - few.mean)


def test_a_version_that_is_worse_by_the_limit_passes_in_one_case_of_twenty_and_a_good_one_mostly() -> None:
    """The promise behind "with 95 % certainty", measured: 150 logs of 1,500 users each."""
    rng, limit = np.random.default_rng(1), 0.05
    passed = {0.0: 0, limit: 0}
    for true_drop in passed:
        for _ in range(150):
            first = rng.choice(GAINS, 1500)
            # Each user loses a list that had the target with such a chance that the mean drop is the true one.
            lost = rng.random(1500) < true_drop / GAINS.mean()
            # Lists of two trainings differ in both directions, whatever their means are.
            moved = rng.random(1500) < 0.2
            second = np.where(lost, 0.0, np.where(moved, rng.permutation(first), first))
            passed[true_drop] += drop(first, second).most <= limit
    assert passed[limit] <= 0.08 * 150
    assert passed[0.0] >= 0.95 * 150


def test_what_is_needed_shows_the_limit_when_it_is_there() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.choice(GAINS, 20_000), rng.choice(GAINS, 20_000)
    few = drop(first[:500], second[:500])
    needs = few.needs(few.mean + 0.01)
    assert needs is not None
    assert 500 < needs < 20_000
    again = drop(rng.choice(first[:500] - second[:500], needs), np.zeros(needs))
    assert again.most - again.mean == pytest.approx(0.01, rel=0.1)


def test_no_number_of_targets_helps_a_version_that_is_worse_than_the_limit() -> None:
    assert Drop(1000, 0.3, 0.2, 0.08, 0.12).needs(0.05) is None
    assert Drop(1000, 0.3, 0.2, 0.08, 0.12).needs(0.11) == 4000


def _log(users: int, each: int) -> pl.DataFrame:
    """Every user acts once in each of `each` rounds, at 0, 1, 2, …"""
    rng = np.random.default_rng(0)
    rounds = np.repeat(np.arange(each), users)
    return pl.DataFrame(
        {
            "user_id": [f"user-{at % users}" for at in range(users * each)],
            "item_id": [f"item-{at}" for at in rng.integers(1, 61, users * each)],
            "timestamp": rounds * 1_000,
        }
    )


def _manifest(until_ms: int | None, split: str = "time", number: int = 1) -> Manifest:
    made = tiny.manifest(tiny.serving())
    training = (
        None
        if until_ms is None
        else Training(
            log="log",
            rows=1,
            users=1,
            items=1,
            from_ms=0,
            until_ms=until_ms,
            split=split,
            seed=0,
            epochs=1,
            best_epoch=1,
            wall_s=1,
            samples=1,
        )
    )
    return _with(made, version=str(number), training=training)


def _with(manifest: Manifest, **fields: object) -> Manifest:
    return replace(manifest, **fields)  # type: ignore[arg-type]


LAST_OUT = "last out: the last interaction of each user is held out"
PARTS = {
    "what came after both": (_manifest(5_000), _manifest(6_000), 6_001, 20, "all after both trainings ended"),
    "the older one alone does not count": (_manifest(7_000), _manifest(2_000), 7_001, 20, "all after both"),
    "nothing came after, the last were left out": (
        _manifest(9_000, LAST_OUT),
        _manifest(9_000, LAST_OUT),
        9_000,
        20,
        "which both trainings left out",
    ),
    "one of the two saw it": (_manifest(5_000), _manifest(9_000, number=2), 9_000, 20, "tiny@2 was trained on 20"),
    "both saw it": (
        _manifest(9_000),
        _manifest(9_000, number=2),
        9_000,
        20,
        "tiny@1 was trained on 20 of these targets",
    ),
    "one does not say": (_manifest(None), _manifest(5_000), 9_000, 20, "tiny@1 does not say what it was trained on"),
}


@pytest.mark.parametrize(("first", "second", "from_ms", "targets", "words"), PARTS.values(), ids=list(PARTS))
def test_the_newest_part_is_one_that_neither_was_trained_on_or_says_so(
    first: Manifest, second: Manifest, from_ms: int, targets: int, words: str
) -> None:
    for pair in ((first, second), (second, first)):
        part = newest_part(_log(20, 10).lazy(), pair, wanted=10)
        assert words in part.words
        assert part.holdout.target_ms.min() >= from_ms
        assert len(part.holdout.asked) == targets


def test_too_few_targets_after_both_trainings_leave_the_newest_tenth() -> None:
    part = newest_part(_log(20, 10).lazy(), (_manifest(8_000), _manifest(8_000)), wanted=21)
    assert part.words == "the newest 10% of the log; neither was trained on it"


def test_a_log_that_begins_after_both_trainings_is_not_all_targets() -> None:
    part = newest_part(_log(20, 10).lazy(), (_manifest(-1), _manifest(-1)), wanted=10)
    assert part.words == "the newest 10% of the log; neither was trained on it"
    assert len(part.holdout.asked) == 20


def test_of_very_many_users_so_many_are_drawn_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.evaluation.drop.USERS", 7)

    def part() -> Part:
        return newest_part(_log(20, 10).lazy(), (_manifest(5_000), _manifest(5_000)), wanted=10)

    assert part().holdout.asked.tolist() == part().holdout.asked.tolist()
    assert len(part().holdout.asked) == 7


def test_a_log_without_a_target_cannot_be_asked() -> None:
    with pytest.raises(EvaluationImpossible):
        newest_part(_log(1, 1).lazy(), (_manifest(5), _manifest(5)), wanted=10)


def test_the_gains_are_those_of_an_evaluation(tmp_path: Path) -> None:
    version = tiny.add(tmp_path)
    log = _log(40, 30).lazy()
    part = newest_part(log, (_manifest(25_000), _manifest(25_000)), wanted=10)
    found = gains(Runtime.load(version.folder), part.holdout)
    options = compare.EvaluationOptions(split="time", at=26 / 30)
    evaluated = compare.evaluate(log, [version], options, log_name="log", progress=lambda done, of: None)
    assert evaluated.modes[0].name == "stream"
    assert evaluated.modes[0].rankings[0].ndcg[10].value == pytest.approx(found.mean())
    assert 0 < found.mean() < 1
