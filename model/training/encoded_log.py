"""A log as arrays on disk: encoded, then grouped by user, then sorted by time, one piece after another.

Users and items must fit in memory; interactions need not. A *variant* is an item, or an item with one of its attributes
if the log has attributes. Variants are kept apart until the training part is known.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Split = Literal["time", "last-out"]

PIECE = 1 << 20
"""Interactions in memory at a time, some tens of MB. A user with more interactions is one piece."""
ROWS, TIMES = "rows.npy", "times.npy"
BINS = 1 << 16
"""Of the histogram of times that finds where a part ends: three passes find a millisecond in ten years."""


def _empty(path: Path | None, dtype: type, n: int) -> NDArray[Any]:
    """An array in a file; in memory without a path, or if it is empty, because an empty file cannot be mapped."""
    if path is None or n == 0:
        return np.empty(n, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n,))


@dataclass(frozen=True, slots=True)
class Encoded:
    """The log in its own order: codes of users and of variants, which are in the order of their ids, and times."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    timestamps: Rows

    @property
    def length(self) -> int:
        return len(self.timestamps)

    def pieces(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], Rows]]:
        for at in range(0, self.length, PIECE):
            piece = slice(at, at + PIECE)
            yield self.users[piece], self.items[piece], self.timestamps[piece]

    def times(self) -> Iterator[Rows]:
        for at in range(0, self.length, PIECE):
            yield self.timestamps[at : at + PIECE]


def encode(log: pl.LazyFrame, scratch: Path) -> tuple[Encoded, int, pl.DataFrame]:
    """The encoded log, how many users it has, and its variants by code: `item_id`, and `attribute` if the log has it.

    It first writes a copy of the log that can be read in pieces. group_by and join of polars need memory in proportion
    to the interactions, although they stream.
    """
    copy = scratch / "log.parquet"
    variant = ["item_id", "attribute"] if "attribute" in log.collect_schema() else ["item_id"]
    log.select("user_id", *variant, "timestamp").sink_parquet(
        copy, compression="lz4", row_group_size=PIECE // 4 or 1, engine="streaming"
    )
    length = int(pl.scan_parquet(copy).select(pl.len()).collect(engine="streaming").item())
    users, variants = (_distinct(copy, columns, length) for columns in (["user_id"], variant))
    encoded = Encoded(
        _empty(scratch / "users.npy", np.int32, length),
        _empty(scratch / "items.npy", np.int32, length),
        _empty(scratch / "timestamps.npy", np.int64, length),
    )
    for at in range(0, length, PIECE):
        frame = pl.scan_parquet(copy).slice(at, PIECE).collect(engine="streaming")
        encoded.users[at : at + PIECE] = _codes(frame, users)
        encoded.items[at : at + PIECE] = _codes(frame, variants)
        encoded.timestamps[at : at + PIECE] = frame["timestamp"].to_numpy()
    copy.unlink()
    return encoded, len(users), variants


def _codes(frame: pl.DataFrame, ids: pl.DataFrame) -> NDArray[Any]:
    """The index among the ids of each row of a frame, by the columns of `ids`."""
    codes = ids.with_row_index("code")
    return (
        frame.select(ids.columns)
        .join(codes, on=ids.columns, how="left", nulls_equal=True, maintain_order="left")["code"]
        .to_numpy()
    )


def _distinct(copy: Path, columns: list[str], length: int) -> pl.DataFrame:
    """The distinct rows of some columns, sorted. New rows are merged when there are as many as before, so each row is
    merged only a few times."""
    merged = pl.scan_parquet(copy).select(columns).head(0).collect(engine="streaming")
    new: list[pl.DataFrame] = []
    for at in range(0, length, PIECE):
        new.append(pl.scan_parquet(copy).select(columns).slice(at, PIECE).collect(engine="streaming").unique())
        if sum(len(each) for each in new) > len(merged) + PIECE:
            merged, new = pl.concat([merged, *new]).unique(), []
    return pl.concat([merged, *new]).unique().sort(columns)


class _Prefix:
    """Says which interactions are among the first `count` in time order, while the log is read once in its own
    order.
    """

    def __init__(self, encoded: Encoded, count: int) -> None:
        self._time, self._ties = _time_of(encoded, count)
        self._met = 0

    def contains(self, times: Rows) -> NDArray[np.bool_]:
        tied = times == self._time
        nth = self._met + np.cumsum(tied)
        self._met += int(tied.sum())
        inside: NDArray[np.bool_] = (times < self._time) | (tied & (nth <= self._ties))
        return inside


def _time_of(encoded: Encoded, count: int) -> tuple[int, int]:
    """The time of interaction number `count` (from 1) in time order, and its number among those of that time (from
    1).
    """
    bounds = [(int(times.min()), int(times.max())) for times in encoded.times()]
    low, high = min(least for least, _ in bounds), max(most for _, most in bounds)
    before = 0  # interactions earlier than `low`
    while low < high:
        width = -(-(high - low + 1) // BINS)
        histogram = np.zeros(BINS, np.int64)
        for times in encoded.times():
            histogram += np.bincount((times[(times >= low) & (times <= high)] - low) // width, minlength=BINS)
        reached = before + np.cumsum(histogram)
        found = int(np.searchsorted(reached, count))
        before = int(reached[found - 1]) if found else before
        low, high = low + found * width, min(high, low + (found + 1) * width - 1)
    return low, count - before


@dataclass(frozen=True, slots=True)
class Grouped:
    """Interactions by user, each user's in the order of the log."""

    start: Rows  # (U + 1,)
    items: NDArray[np.int32]
    times: Rows
    training: NDArray[np.bool_]


def by_user(encoded: Encoded, scratch: Path, users: int, n_seen: int, n_trained: int) -> Grouped:
    seen = _Prefix(encoded, n_seen)
    counts = np.zeros(users, np.int64)
    for user, _, times in encoded.pieces():
        counts += np.bincount(user[seen.contains(times)], minlength=users)
    start = np.concatenate([[0], np.cumsum(counts)])
    grouped = Grouped(
        start,
        _empty(scratch / "grouped-items.npy", np.int32, n_seen),
        _empty(scratch / "grouped-times.npy", np.int64, n_seen),
        _empty(scratch / "grouped-training.npy", np.bool_, n_seen),
    )
    seen, training = _Prefix(encoded, n_seen), _Prefix(encoded, n_trained)
    free = start[:-1].copy()
    for user, item, times in encoded.pieces():
        inside, trained = seen.contains(times), training.contains(times)
        order = np.argsort(user[inside], kind="stable")
        owner = user[inside][order]
        of, first, count = np.unique(owner, return_index=True, return_counts=True)
        index = free[owner] + np.arange(len(owner)) - np.repeat(first, count)
        free[of] += count
        grouped.items[index], grouped.times[index] = item[inside][order], times[inside][order]
        grouped.training[index] = trained[inside][order]
    return grouped


@dataclass(frozen=True, slots=True)
class Sorted:
    """Histories in time order, as codes of variants, and their times if wanted. `counts`: of each code, in the training
    part.
    """

    rows: NDArray[np.int32]
    times: Rows | None
    start: Rows
    trained: Rows
    counts: Rows
    from_ms: int
    until_ms: int


def in_time_order(grouped: Grouped, split: Split, n_items: int, with_times: bool, folder: Path | None) -> Sorted:
    users = len(grouped.start) - 1
    counts = np.diff(grouped.start)
    kept = counts if split == "time" else np.maximum(counts - 1, 0)
    start = np.concatenate([[0], np.cumsum(kept)])
    rows = _empty(None if folder is None else folder / ROWS, np.int32, int(start[-1]))
    when = _empty(None if folder is None else folder / TIMES, np.int64, int(start[-1])) if with_times else None
    trained = np.zeros(users, np.int64) if split == "time" else np.maximum(counts - 2, 0)
    item_counts = np.zeros(n_items, np.int64)
    spans: list[tuple[int, int]] = []
    first = 0
    while first < users:
        last = max(first + 1, int(np.searchsorted(grouped.start, grouped.start[first] + PIECE, side="right")) - 1)
        part = slice(int(grouped.start[first]), int(grouped.start[last]))
        user = np.repeat(np.arange(first, last), counts[first:last])
        order = np.lexsort((grouped.times[part], user))
        items, times = grouped.items[part][order], grouped.times[part][order]
        if split == "time":
            # The training part ends by time and then by the order of the log, as this sort does. So the training part
            # of a user comes first.
            trained[first:last] = np.bincount(user[grouped.training[part]] - first, minlength=last - first)
        nth = np.arange(part.start, part.stop) - grouped.start[user]
        rows[start[first] : start[last]] = items[nth < kept[user]]
        if when is not None:
            when[start[first] : start[last]] = times[nth < kept[user]]
        learned = nth < trained[user]
        item_counts += np.bincount(items[learned], minlength=n_items)
        if learned.any():
            spans.append((int(times[learned].min()), int(times[learned].max())))
        first = last
    from_ms, until_ms = (min(least for least, _ in spans), max(most for _, most in spans)) if spans else (0, 0)
    return Sorted(rows, when, start, trained, item_counts, from_ms, until_ms)
