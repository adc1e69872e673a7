"""Baselines know what was there before, leave out what a worker leaves out, and agree with counting by hand."""

import itertools
from collections import Counter as Tally
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from model.evaluation.replay import baselines, together
from model.evaluation.replay.baselines import LISTED, OWN, POPULAR, RECENT, TOGETHER, column, names
from model.evaluation.replay.histories import OWN as OWN_WINDOW
from model.evaluation.replay.histories import Exclude, Rule, earlier_equal
from model.evaluation.replay.popular import DAYS, HOUR_MS
from model.evaluation.replay.together import REACH, Together
from tests.model.evaluation.replay import made

EXCLUDES: tuple[Exclude, ...] = ("none", "working", "kept")


def _by_hand(log: pl.DataFrame, rule: Rule) -> list[dict[str, Any]]:
    """Every list in full, one interaction after another, with plain dictionaries."""
    rows = log.select("user_id", "item_id", "timestamp").rows()
    begins = {part.start for part in baselines._chunks(log["timestamp"].to_numpy())}
    histories: dict[str, list[str]] = defaultdict(list)
    counts: Tally[str] = Tally()
    past: list[tuple[int, str]] = []
    pairs: Tally[tuple[str, str]] = Tally()
    waiting: list[tuple[str, str]] = []
    born: dict[str, int] = {}
    orders: dict[str, list[str]] = {}
    known_pairs: dict[str, dict[str, int]] = {}
    known_counts: Tally[str] = Tally()
    found = []
    for at, (user, item, ms) in enumerate(rows):
        if at in begins:
            first = ms // HOUR_MS - 24 * DAYS
            recent = Tally(each for when, each in past if when // HOUR_MS >= first)
            known_counts = counts.copy()
            orders = {
                name: sorted(of, key=lambda each: (-of[each], each))
                for name, of in ((POPULAR, counts), (RECENT, recent))
            }
            if waiting and len(waiting) * 16 >= len(pairs):
                pairs.update(waiting)
                waiting = []
                known_pairs = defaultdict(dict)
                for (a, b), count in pairs.items():
                    known_pairs[a][b] = count
        history = histories[user]
        L, taken = rule.segment_length, len(history)
        back = {
            "none": 0,
            "working": taken % L,
            "kept": taken % L + L * min(taken // L, rule.keep_segments),
        }[rule.exclude]
        hidden = set(history[taken - back :])
        lists = {name: [each for each in order if each not in hidden] for name, order in orders.items()}
        scores: Tally[str] = Tally()
        for seed in history[-REACH:]:
            scores.update(known_pairs.get(seed, {}))
        lists[TOGETHER] = sorted(
            (each for each in scores if each not in hidden), key=lambda each: (-scores[each], -known_counts[each], each)
        )
        if rule.exclude == "none":
            lists[OWN] = list(dict.fromkeys(reversed(history[-OWN_WINDOW:])))
        row: dict[str, Any] = {"seen": counts[item], "age_ms": ms - born[item] if item in born else None}
        for name, each in lists.items():
            rank = each.index(item) + 1 if item in each[:LISTED] else 0
            row[column(name)] = rank if history else None
        found.append(row)
        born.setdefault(item, ms)
        counts[item] += 1
        past.append((ms, item))
        waiting += [(earlier, item) for earlier in history[-REACH:] if earlier != item]
        history.append(item)
    return found


def _written(log: pl.DataFrame, rule: Rule, out: Path) -> pl.DataFrame:
    """The columns of the file, in time order."""
    written = pl.read_parquet(baselines.write(log.lazy(), out, rule))
    return log.select("row", "partition", "offset").join(written, on=["partition", "offset"], how="left").sort("row")


@pytest.mark.parametrize("exclude", EXCLUDES)
@pytest.mark.parametrize("days", [0.02, 60.0])
def test_ranks_are_those_of_lists_that_are_made_by_hand(exclude: Exclude, days: float, tmp_path: Path) -> None:
    log, rule = made.log(rows=2_500, users=40, items=150, days=days, seed=3), Rule(exclude, 8, 2)
    written = _written(log, rule, tmp_path)
    expected = pl.DataFrame(_by_hand(log, rule), infer_schema_length=None)
    for name in ("seen", "age_ms", *map(column, names(rule))):
        assert written[name].to_list() == expected[name].to_list(), name
        assert written[name].drop_nulls().n_unique() > 5, name


def test_nothing_after_an_interaction_changes_its_ranks(tmp_path: Path) -> None:
    log, rule = made.log(rows=1_500, seed=5), Rule("working", 8, 2)
    whole = _written(log, rule, tmp_path / "whole")
    for rows in (1, 64, 700):
        assert _written(log.head(rows), rule, tmp_path / str(rows)).equals(whole.head(rows)), rows


@pytest.mark.parametrize("exclude", EXCLUDES)
def test_small_tables_and_slices_give_the_same(
    exclude: Exclude, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, rule = made.log(rows=1_500, seed=6), Rule(exclude, 8, 2)
    written = _written(log, rule, tmp_path / "large")
    shown = pl.read_parquet(tmp_path / "large" / baselines.SHOWN)
    monkeypatch.setattr(baselines, "_TABLE", 7 * 60)
    assert _written(log, rule, tmp_path / "small").equals(written)
    assert pl.read_parquet(tmp_path / "small" / baselines.SHOWN).equals(shown)
    monkeypatch.setattr(baselines, "_SLICE", 128)
    sliced = _written(log, rule, tmp_path / "slices")
    assert sliced["seen"].equals(written["seen"])
    assert sliced["rank_popular"].is_null().equals(written["rank_popular"].is_null())


def test_rows_are_by_partition_and_offset_whatever_the_order_of_offsets(tmp_path: Path) -> None:
    log = made.log(rows=400).with_columns(offset=1_000 - pl.col("offset"))
    written = pl.read_parquet(baselines.write(log.lazy(), tmp_path, Rule("none", 8, 2)))
    assert written.select("partition", "offset").rows() == sorted(log.select("partition", "offset").rows())
    assert not list(tmp_path.glob(".baselines*"))


@pytest.mark.parametrize("exclude", EXCLUDES)
def test_shown_items_are_the_first_ten_of_each_list(exclude: Exclude, tmp_path: Path) -> None:
    log, rule = made.log(rows=600, users=20, items=150), Rule(exclude, 8, 2)
    written = _written(log, rule, tmp_path)
    shown = pl.read_parquet(tmp_path / baselines.SHOWN)
    for name in names(rule):
        lists = dict(shown.filter(pl.col("baseline") == name).select("item_id", "lists").iter_rows())
        assert 0 < max(lists.values()) <= len(log), name
        hit = log.filter(written[column(name)].is_between(1, 10))["item_id"].value_counts()
        # Whoever was hit among the first ten was shown at least so often.
        assert all(lists.get(item, 0) >= count for item, count in hit.iter_rows()), name
        assert sum(lists.values()) <= 10 * int((log["taken"] > 0).sum()), name


def test_the_popular_ten_are_shown_to_everybody_where_nothing_is_left_out(tmp_path: Path) -> None:
    log = made.log(rows=300, users=20, items=150, days=0.01)
    baselines.write(log.lazy(), tmp_path, Rule("none", 8, 2))
    shown = pl.read_parquet(tmp_path / baselines.SHOWN).filter(pl.col("baseline") == POPULAR)
    edges = [0, *(part.stop for part in baselines._chunks(log["timestamp"].to_numpy()))]
    expected: Tally[str] = Tally()
    for begin, end in itertools.pairwise(edges):
        counts = Tally(log["item_id"][:begin].to_list())
        users = int((log["taken"][begin:end] > 0).sum())
        expected.update(dict.fromkeys(sorted(counts, key=lambda each: (-counts[each], each))[:10], users))
    assert dict(shown.select("item_id", "lists").iter_rows()) == {item: n for item, n in expected.items() if n}


def test_an_interaction_knows_only_refreshed_counts_and_refreshes_are_an_hour_apart_at_most() -> None:
    dense = np.arange(5_000) * 1_000
    assert [part.stop - part.start for part in baselines._chunks(dense)] == [1_024] * 4 + [904]
    sparse = np.arange(300) * 10 * HOUR_MS
    assert [part.stop - part.start for part in baselines._chunks(sparse)] == [64] * 4 + [44]
    hourly = np.sort(np.concatenate([np.arange(3) * HOUR_MS] * 200))
    assert [part.stop - part.start for part in baselines._chunks(hourly)] == [200] * 3


def test_the_rarest_pairs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PAIRS", 3)
    counter = Together(10)
    first, second = np.array([1, 1, 1, 2, 2, 3, 4], np.int32), np.array([2, 2, 3, 5, 5, 6, 7], np.int32)
    counter.add(first, second)
    counter.refresh()
    items, counts = counter.followers(np.array([1, 2, 3, 4, 9], np.int32))
    kept = {
        (a, int(b)): int(c)
        for a, row, n in zip((1, 2, 3, 4, 9), items, counts, strict=True)
        for b, c in zip(row, n, strict=True)
        if c
    }
    assert kept == {(1, 2): 2, (2, 5): 2, (4, 7): 1}


def test_the_most_frequent_followers_are_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "FOLLOWERS", 2)
    counter = Together(10)
    counter.add(np.array([1, 1, 1, 1, 1, 1], np.int32), np.array([2, 3, 3, 4, 4, 4], np.int32))
    counter.refresh()
    items, counts = counter.followers(np.array([1], np.int32))
    assert (items.tolist(), counts.tolist()) == ([[4, 3]], [[3.0, 2.0]])


def test_equal_values_are_counted_in_order() -> None:
    assert earlier_equal(np.array([5, 3, 5, 5, 3, 1])).tolist() == [0, 0, 1, 2, 1, 0]
