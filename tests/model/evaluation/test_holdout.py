import hashlib
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import EvaluationImpossible
from model.evaluation.holdout import SplitName, cut

# In file order; times are out of order, and some are equal.
EVENTS = [
    ("b", "x", 50),
    ("a", "x", 10),
    ("a", "y", 20),
    ("a", "z", 20),
    ("b", "y", 40),
    ("c", "x", 45),
    ("a", "x", 30),
    ("b", "w", 60),
    ("d", "x", 70),
    ("d", "y", 70),
]
LOG = pl.DataFrame(EVENTS, schema=["user_id", "item_id", "timestamp"], orient="row").lazy()


def _told(holdout: object) -> list[tuple[str, str, str]]:
    from model.evaluation.holdout import Holdout

    assert isinstance(holdout, Holdout)
    names = holdout.item_ids
    return [
        (str(holdout.user_ids[user]), "".join(str(names[i]) for i in holdout.history(user)), str(names[target]))
        for user, target in zip(holdout.asked.tolist(), holdout.target.tolist(), strict=True)
    ]


def test_last_out_asks_for_everybodys_last_interaction() -> None:
    """Of the same millisecond, the later in the file is the later; one interaction is a target without history."""
    assert _told(cut(LOG, "last-out")) == [("a", "xyz", "x"), ("b", "yx", "w"), ("c", "", "x"), ("d", "x", "y")]


def test_time_asks_for_the_first_interaction_after_the_point_of_those_who_have_one() -> None:
    """The first six in time order: x y z x(a), y(b), x(c)."""
    assert _told(cut(LOG, "time", 0.6)) == [("b", "y", "x"), ("d", "", "x")]


def test_items_are_numbered_by_how_often_they_are_in_histories() -> None:
    holdout = cut(LOG, "last-out")
    assert (holdout.item_ids, holdout.n_known) == (("x", "y", "z", "w"), 3)
    assert cut(LOG, "time", 0.6).item_ids == ("x", "y", "z", "w")


def test_what_comes_after_a_history_is_not_counted() -> None:
    """In the time split, b's second item x and d's are after the point; y would win if they were left out of account
    wrongly.
    """
    log = pl.DataFrame({"user_id": [1, 2, 1, 1, 1], "item_id": [7, 7, 8, 8, 8], "timestamp": [1, 2, 3, 4, 5]}).lazy()
    assert cut(log, "time", 0.4).item_ids == (7, 8)


def test_a_window_is_the_newest_items_of_a_history() -> None:
    holdout = cut(LOG, "last-out")
    assert [holdout.item_ids[i] for i in holdout.history(0, 2)] == ["y", "z"]
    assert holdout.history(0, 9).tolist() == holdout.history(0).tolist()


def test_the_hash_is_over_the_targets_and_nothing_else() -> None:
    want = hashlib.sha256(b"a,x,30\nb,w,60\nc,x,45\nd,y,70\n").hexdigest()
    assert cut(LOG, "last-out").target_sha256() == want
    assert cut(LOG.filter(pl.col("timestamp") != 10), "last-out").target_sha256() == want
    assert cut(LOG.filter(pl.col("timestamp") != 60), "last-out").target_sha256() != want


def test_users_are_drawn_by_the_seed() -> None:
    log = pl.DataFrame(
        {"user_id": np.repeat(np.arange(100), 2), "item_id": np.arange(200) % 7, "timestamp": np.arange(200)}
    ).lazy()
    holdout = cut(log, "last-out")
    drawn = holdout.drawn(10, 1)
    assert len(drawn.asked) == 10
    assert (np.diff(drawn.asked) > 0).all()
    assert drawn.asked.tolist() == holdout.drawn(10, 1).asked.tolist() != holdout.drawn(10, 2).asked.tolist()
    assert holdout.drawn(100, 1) is holdout


def test_a_point_in_time_after_which_nothing_happens_is_refused() -> None:
    with pytest.raises(EvaluationImpossible, match="no user has an interaction after the first 99%"):
        cut(LOG, "time", 0.99)


@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=12),
    split=st.sampled_from(("last-out", "time")),
    at=st.floats(0.01, 0.99),
)
def test_of_any_small_log_there_is_a_holdout_or_an_advice_that_works(
    rows: list[tuple[int, int, int]], split: SplitName, at: float
) -> None:
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").lazy()
    try:
        found = cut(log, split, at)
    except EvaluationImpossible as error:
        advised = re.search(r"(--split time )?--at ([0-9.]+) works", str(error))
        if advised is None and len(rows) == 1:
            return
        found = cut(log, "time", float(advised[2]) if advised else at)
    assert len(found.asked) > 0
    assert found.n_known > 0
