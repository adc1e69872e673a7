"""Simple lists to compare models with, each scored before every interaction by what was known until then.

A model should be better than they are. All of them leave out what a worker's list would leave out at that moment. They
are refreshed together, see `REFRESH`; what a user did last is always up to date.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.evaluation.replay.histories import Codes, Histories, Ints, Rule, Windows, earlier_equal
from model.evaluation.replay.popular import HOUR_MS, Order, RecentCounts
from model.evaluation.replay.together import REACH, Together

FILE: Final = "baselines.parquet"
SHOWN: Final = "baselines_shown.parquet"
POPULAR, RECENT, TOGETHER, OWN = "popular", "popular 7 days", "together", "own items"
DESCRIPTIONS: Final = {
    POPULAR: "the items with the most interactions so far",
    RECENT: "the items with the most interactions in the last 7 days",
    TOGETHER: f"the items that most often came within {REACH} interactions after one of the user's newest {REACH} items, so far",
    OWN: "the user's own last items, newest first",
}
LISTED: Final = 100
"""The length of a list; ranks below are 0. The same for models."""
FIRST: Final = 10
"""Coverage and novelty count so many items of each list, the first ones."""

REFRESH: Final = 1_024
"""Counts are refreshed after so many interactions."""
_LEAST: Final = 64
"""… and earlier when an hour has passed, but not before so many interactions."""
_TABLE: Final = 8_000_000
"""The most entries of the tables of (row, item): 32 and 64 MB."""
_ROWS: Final = 256
"""The most rows of these tables: with a few thousand items they stay in the processor's cache."""
_SLICE: Final = 131_072
"""Interactions that are read at a time."""

Ranks = NDArray[np.int16]
Flags = NDArray[np.bool_]


def column(name: str) -> str:
    """The column of a baseline's ranks."""
    return f"rank_{name.replace(' ', '_')}"


def names(rule: Rule) -> tuple[str, ...]:
    """The baselines under a rule. If lists leave out what a user had, there are no own items to list."""
    return (POPULAR, RECENT, TOGETHER, OWN) if rule.exclude == "none" else (POPULAR, RECENT, TOGETHER)


def write(
    ordered: pl.LazyFrame | Path, out: Path, rule: Rule, *, progress: Callable[[int, int], None] = lambda *_: None
) -> Path:
    """Write `baselines.parquet` and `baselines_shown.parquet` into the folder `out`. Memory is bounded by users, items
    and `PAIRS`.

    Args:
        ordered: the log in time order, a file or a folder of Parquet: `user_id`, `item_id`, `timestamp` (epoch ms),
            `partition`, `offset`.
        rule: what lists leave out.
        progress: called with (done, of) interactions.

    Returns:
        The path of `baselines.parquet`: a row for each interaction, by partition and offset, with `rank_…` (int16) of
        each baseline: 1 to 100, 0 for an item that is not in the list, null before a user's first interaction; `seen`:
        how many interactions the item had before; `age_ms`: the time since its first one, null if there is none.
    """
    frame = pl.scan_parquet(ordered) if isinstance(ordered, Path) else ordered
    users = frame.group_by("user_id").agg(pl.len().cast(pl.Int64).alias("count")).collect(engine="streaming")
    items = frame.select(pl.col("item_id").unique()).collect(engine="streaming").sort("item_id")
    counter = Counter(users["count"].to_numpy(), len(items), rule)
    temporary = out / ".baselines"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    done, total = 0, int(users["count"].sum())
    codes = [
        (users.select("user_id").with_row_index("user"), "user_id"),
        (items.with_row_index("item"), "item_id"),
    ]
    for begin in range(0, total, _SLICE):
        part = frame.select("user_id", "item_id", "timestamp", "partition", "offset").slice(begin, _SLICE).collect()
        for known, name in codes:
            part = part.join(known, on=name, how="left", maintain_order="left")
        scored = counter.score(
            part["user"].to_numpy().astype(np.int64),
            part["item"].to_numpy().astype(np.int32),
            part["timestamp"].to_numpy().astype(np.int64),
        )
        part.select("partition", "offset").hstack(scored).write_parquet(temporary / f"time-{begin:012}.parquet")
        done += len(part)
        progress(done, total)
    _by_place(temporary, out / FILE)
    shutil.rmtree(temporary)
    pl.concat(
        items.with_columns(pl.lit(name).alias("baseline"), pl.Series("lists", shown)).filter(pl.col("lists") > 0)
        for name, shown in counter.shown.items()
    ).select("baseline", "item_id", "lists").write_parquet(out / SHOWN)
    return out / FILE


def _by_place(folder: Path, out: Path) -> None:
    """One file of the parts in time order, by partition and offset. One partition at a time is in memory."""
    scan = pl.scan_parquet(folder / "time-*.parquet")
    partitions = scan.select(pl.col("partition").unique()).collect(engine="streaming")["partition"].sort().to_list()
    for partition in partitions:
        one = scan.filter(pl.col("partition") == partition).collect(engine="streaming").sort("offset")
        one.write_parquet(folder / f"place-{partition:06}.parquet")
    pl.scan_parquet(folder / "place-*.parquet").sink_parquet(out, maintain_order=True)


@dataclass(frozen=True, slots=True)
class _Moment:
    """What was known when the lists were refreshed. `fraction` (V,): below 1, higher for the more popular item, of
    equally popular ones for the lower code.
    """

    orders: dict[str, Order]
    fraction: NDArray[np.float64]


class Counter:
    """Scores interactions in time order, and counts them in. `user_counts` (U,): interactions of each user in the log.

    `shown`: for each baseline, in how many lists each item was among the first `FIRST`.
    """

    def __init__(self, user_counts: Ints, n_items: int, rule: Rule) -> None:
        self._rule: Final = rule
        self._histories: Final = Histories(user_counts, max(rule.widest, REACH), REFRESH)
        self._counts: Final = np.zeros(n_items, np.int64)
        self._born: Final = np.zeros(n_items, np.int64)
        self._recent: Final = RecentCounts(n_items)
        self._together: Final = Together(n_items)
        self._block: Final = int(np.clip(_TABLE // max(1, n_items), 1, _ROWS))
        # One cell more, for candidates that are none.
        self._excluded: Final = np.full(self._block * n_items + 1, -1, np.int32)
        self._scores: Final = np.zeros(self._block * n_items + 1, np.float64)
        self.shown: Final = {name: np.zeros(n_items, np.int64) for name in names(rule)}

    def score(self, users: Ints, items: Codes, times: Ints) -> pl.DataFrame:
        """The columns of `baselines.parquet`, but for the place, for R interactions, at least one."""
        parts = [self._chunk(users[at], items[at], times[at]) for at in _chunks(times)]
        frame = pl.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        return frame.with_columns(
            *(pl.when(pl.col("taken") > 0).then(pl.col(column(name))).alias(column(name)) for name in self.shown),
            pl.when(pl.col("seen") > 0).then(pl.col("age_ms")).alias("age_ms"),
        ).drop("taken")

    def _chunk(self, users: Ints, items: Codes, times: Ints) -> dict[str, NDArray[np.integer]]:
        self._recent.move_to(int(times[0]))
        self._together.refresh()
        most = LISTED + self._rule.widest
        V = len(self._counts)
        key = self._counts * V + np.arange(V - 1, -1, -1)
        moment = _Moment(
            {POPULAR: Order(self._counts, most), RECENT: Order(self._recent.counts, most)}, key / (key.max() + 1)
        )
        taken = self._histories.add(users, items)
        found: dict[str, Ranks] = {name: np.zeros(len(users), np.int16) for name in self.shown}
        for begin in range(0, len(users), self._block):
            block = slice(begin, begin + self._block)
            # Nobody has a list before their first interaction.
            listed = np.flatnonzero(taken[block] > 0) + begin
            for name, ranks in self._ranks(users[listed], items[listed], taken[listed], moment).items():
                found[name][listed] = ranks
        seen = self._counts[items] + earlier_equal(items.astype(np.int64))
        new = seen == 0
        self._born[items[new]] = times[new]
        age = times - self._born[items]
        self._count(users, items, times, taken)
        return {
            **{column(name): ranks for name, ranks in found.items()},
            "seen": seen.astype(np.int32),
            "age_ms": age,
            "taken": taken,
        }

    def _count(self, users: Ints, items: Codes, times: Ints, taken: Ints) -> None:
        np.add.at(self._counts, items, 1)
        self._recent.add(items, times)
        for back in range(1, REACH + 1):
            earlier, there = self._histories.newest(users, taken, back)
            self._together.add(earlier[there], items[there])

    def _ranks(self, users: Ints, targets: Codes, taken: Ints, moment: _Moment) -> dict[str, Ranks]:
        """The ranks of the targets in the lists of R users, of at most a block."""
        V, R = len(self._counts), len(users)
        if R == 0:
            return {}
        windows = self._histories.windows(users, taken, self._rule.window(taken))
        cells = windows.rows * V + windows.items
        target_cells = np.arange(R) * V + targets
        at = np.arange(len(cells), dtype=np.int32)
        # The last write to a cell wins, so what stays is the newest of equal items.
        self._excluded[cells] = at
        newest = self._excluded[cells] == at
        found: dict[str, Ranks] = {}
        if OWN in self.shown:
            found[OWN] = self._own(windows, newest, self._excluded[target_cells], R)
            self._excluded[cells] = -1
            windows, newest = Windows(windows.rows[:0], windows.items[:0]), newest[:0]
        hidden = self._excluded[target_cells] >= 0
        for name, order in moment.orders.items():
            self._show_popular(name, order, windows, R)
            place = order.place[targets]
            rows, items = windows.rows[newest], windows.items[newest]
            ahead = np.bincount(rows[order.place[items] < place[rows]], minlength=R)
            found[name] = _cut(np.where(hidden | (place == V), 0, place + 1 - ahead))
        found[TOGETHER] = np.where(hidden, 0, self._follows(users, targets, taken, target_cells, moment))
        self._excluded[cells] = -1
        return found

    def _own(self, windows: Windows, newest: Flags, last: NDArray[np.int32], R: int) -> Ranks:
        """Ranks among a user's own items. `last` (R,): where in the windows the target is last; -1: nowhere."""
        rows = windows.rows[newest]
        # How many different items of the row are as new or newer: 1 is the newest one.
        total = np.bincount(rows, minlength=R)
        begin = np.cumsum(total) - total
        order = total[rows] - (np.arange(len(rows)) - begin[rows])
        np.add.at(self.shown[OWN], windows.items[newest][order <= FIRST], 1)
        rank = np.zeros(len(windows.rows), np.int64)
        rank[newest] = order
        return _cut(np.where(last >= 0, rank[np.maximum(last, 0)] if len(rank) else 0, 0))

    def _show_popular(self, name: str, order: Order, windows: Windows, R: int) -> None:
        """Count the first items of the lists of R users."""
        places = order.place[windows.items]
        left = np.arange(R)
        for width in (64, len(order.items)):
            T = min(width, len(order.items))
            free = np.ones((R, T), bool)
            inside = places < T
            free[windows.rows[inside], places[inside]] = False
            free = free[left]
            rank = np.cumsum(free, axis=1, dtype=np.int16)
            enough = (rank[:, -1] >= FIRST) if T else np.ones(len(left), bool)
            if len(order.items) == T:
                enough[:] = True
            counted = (free[enough] & (rank[enough] <= FIRST)).sum(axis=0)
            self.shown[name][order.items[:T]] += counted
            left = left[~enough]
            if not len(left):
                return

    def _follows(self, users: Ints, targets: Codes, taken: Ints, target_cells: Ints, moment: _Moment) -> Ranks:
        """Ranks among the items that follow the newest ones: by the sum of their counts, then by popularity."""
        V, R = len(self._counts), len(users)
        nowhere = len(self._scores) - 1
        cells, candidates, counted = [], [], []
        for back in range(1, REACH + 1):
            seeds, there = self._histories.newest(users, taken, back)
            items, counts = self._together.followers(seeds)
            real = (counts > 0) & there[:, None]
            cell = np.where(real, np.arange(R)[:, None] * V + items, nowhere)
            # The followers of one item differ, so no cell is added to twice in one call; what came before counts once.
            counted.append(real & (self._scores[cell] == 0) & (self._excluded[cell] < 0))
            self._scores[cell] += counts
            self._scores[nowhere] = 0
            cells.append(cell)
            candidates.append(items)
        cell, items, first = (np.concatenate(each, axis=1) for each in (cells, candidates, counted))
        total = np.where(first, self._scores[cell] + moment.fraction[items], 0.0)  # (R, REACH · FOLLOWERS)
        best = np.argpartition(-total, FIRST, axis=1)[:, :FIRST]
        np.add.at(
            self.shown[TOGETHER],
            np.take_along_axis(items, best, axis=1)[np.take_along_axis(total, best, axis=1) > 0],
            1,
        )
        mine = self._scores[target_cells]
        at = np.flatnonzero(mine > 0)
        ranks = np.zeros(R, np.int64)
        ranks[at] = (total[at] > (mine[at] + moment.fraction[targets[at]])[:, None]).sum(axis=1) + 1
        self._scores[cell] = 0
        return _cut(ranks)


def _chunks(times: Ints) -> Iterator[slice]:
    """The parts between two refreshes."""
    begin = 0
    while begin < len(times):
        hour = begin + int(np.searchsorted(times[begin : begin + REFRESH], times[begin] + HOUR_MS))
        end = min(begin + REFRESH, max(hour, begin + _LEAST))
        yield slice(begin, min(end, len(times)))
        begin = end


def _cut(ranks: NDArray[np.integer]) -> Ranks:
    return np.where(ranks <= LISTED, ranks, 0).astype(np.int16)
