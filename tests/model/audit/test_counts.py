"""What is counted, part by part, equals what a reader of all rows counts."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.audit import next_item
from model.audit import users as parts
from model.audit.items import by_item
from model.audit.timeline import in_time
from model.audit.users import by_user, gap_ms
from model.log import Log

BASE_MS = 1_700_000_000_000
Row = tuple[str, int, int]
TIMES = st.integers(0, 5) | st.integers(0, 3).map(lambda days: days * 86_400_000 + 7)
ROWS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(0, 3), TIMES.map(lambda ms: BASE_MS + ms)), min_size=1, max_size=40
)


def _log(rows: list[Row]) -> Log:
    frame = pl.LazyFrame(rows, schema={"user_id": pl.String, "item_id": pl.Int64, "timestamp": pl.Int64}, orient="row")
    return Log(frame, len(rows), 0, {}, ())


def _histories(rows: list[Row]) -> dict[str, list[tuple[int, int, int]]]:
    """Of each user, (time, place in the file, item), in time order."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for place, (user, item, ms) in enumerate(rows):
        found.setdefault(user, []).append((ms, place, item))
    return {user: sorted(each) for user, each in found.items()}


@pytest.mark.parametrize("rows_of_a_part", [1, 7, 1000])
@settings(deadline=None, max_examples=60)
@given(ROWS, st.sampled_from([0.1, 0.5, 0.9]))
def test_counts_are_those_of_all_rows(rows_of_a_part: int, rows: list[Row], split: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SHARD_ROWS", rows_of_a_part)
        when = in_time(_log(rows), split, BASE_MS + 4)
        users = by_user(_log(rows), when.split_ms)
    times = [ms for *_, ms in rows]
    assert when.split_ms == sorted(times)[min(round(len(rows) * split), len(rows) - 1)]
    assert when.after == sum(ms >= when.split_ms for ms in times)
    assert when.backwards == sum(two < one for one, two in pairwise(times))
    assert when.tied == sum(times.count(ms) > 1 for ms in times)
    assert when.later == sum(ms > BASE_MS + 4 for ms in times)
    assert when.days_later == sum(ms > BASE_MS + 4 + 86_400_000 for ms in times)
    assert (when.first_ms, when.last_ms, when.rows) == (min(times), max(times), len(rows))

    histories = _histories(rows)
    neighbours = [pair for history in histories.values() for pair in pairwise(history)]
    assert sorted(users.lengths) == sorted(map(len, histories.values()))
    assert users.out_of_order == sum(two[1] < one[1] for one, two in neighbours)
    assert users.at_once == sum(two[2] == one[2] for one, two in neighbours)
    moments = [(user, ms) for user, _, ms in rows]
    assert users.tied == sum(moments.count(each) > 1 for each in moments)
    assert users.duplicates == len(rows) - len(set(rows))
    assert users.repeats == len(rows) - len({(user, item) for user, item, _ in rows})
    targets = [(one, two) for one, two in neighbours if two[0] >= when.split_ms]
    assert users.gaps.sum() == len(targets)
    gaps = sorted(two[0] - one[0] for one, two in targets)
    found = [gap_ms(bucket) for bucket, count in enumerate(users.gaps) for _ in range(count)]
    assert all(low <= gap + 1e-6 and gap + 1 <= (low + 1) * 1.05 for low, gap in zip(found, gaps, strict=True))
    assert users.cold == sum(
        ms >= when.split_ms for h in histories.values() if h[0][0] >= when.split_ms for ms, *_ in h
    )
    several = [history for history in histories.values() if len(history) > 1]
    until = max((history[-2][0] for history in several), default=0)
    assert users.last_out == len(several)
    assert users.leaking == sum(history[-1][0] < until for history in several)


@settings(deadline=None, max_examples=30)
@given(ROWS)
def test_items_are_counted_and_new_ones_found(rows: list[Row]) -> None:
    split_ms = BASE_MS + 3
    found = by_item(_log(rows), split_ms)
    items = [item for _, item, _ in rows]
    assert dict(found.counts.rows()) == {item: items.count(item) for item in items}
    known = {item for _, item, ms in rows if ms < split_ms}
    assert found.cold == sum(item not in known for item in items)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_a_lookup_knows_what_followed_most_often(pairs: list[tuple[int, int]]) -> None:
    earlier, later = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    known = {item for item, _ in earlier}
    asked = [(item, after) for item, after in later if item in known]
    # Of equally frequent ones, the lowest id.
    expected = {each: max(range(3), key=lambda after: (earlier.count((each, after)), -after)) for each in known}
    frame = pl.DataFrame(pairs, schema={"item": pl.Int64, "next": pl.Int64}, orient="row")
    assert next_item._looked_up(frame) == (len(asked), sum(after == expected[item] for item, after in asked))


def test_a_log_of_several_files_is_counted_in_their_order(tmp_path: Path) -> None:
    rows: list[list[Any]] = [[f"u{place % 7}", place % 5, BASE_MS + place] for place in range(1000)]
    for number, at in enumerate(range(0, 1000, 100)):
        frame = pl.DataFrame(rows[at : at + 100], schema=["user_id", "item_id", "timestamp"], orient="row")
        frame.write_parquet(tmp_path / f"{number}.parquet")
    log = Log(pl.scan_parquet(tmp_path / "*.parquet"), 1000, 0, {}, ())
    assert in_time(log, 0.5, None).backwards == 0
    assert by_user(log, BASE_MS).out_of_order == 0
