"""What is measured user by user, of every interaction: order, ties, duplicates, repeats, lengths, gaps.

Users are divided into parts by the hash of their ids, so that one part fits in memory whatever the length of the log. A
user and an item are the hash of their id here: in a log of ten million interactions, the chance that two pairs of them
are taken for one is below one in a hundred thousand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.log import Log

SHARD_ROWS: Final = 2_000_000
"""About how many interactions are in memory at a time. With what is made of them, they take some 200 MB."""
GAP_STEPS: Final = 16
"""Buckets of gaps for each doubling: a gap is known to 4 %."""
_MIX: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))


@dataclass(frozen=True, slots=True)
class ByUser:
    """Sums over all users.

    `out_of_order`: interactions that stand in the file before an earlier one of their user. `tied`: interactions whose
    time another one of their user has. `duplicates`: interactions that another one equals in user, item and time, but
    for the first of them. `repeats`: interactions with an item that the user had before; `at_once`: that was the user's
    item just before. `lengths` (U,): the interactions of each user.

    Of the interactions from the split on: `cold` are of users who have none before it. `gaps`: how many of them come so
    long after the user's one before, by bucket: `gap_ms` says how long.

    `last_out`: users with two interactions or more. `leaking`: of their last interactions, those that are earlier than
    somebody's interaction that is not the last one.
    """

    out_of_order: int
    tied: int
    duplicates: int
    repeats: int
    at_once: int
    lengths: NDArray[np.int64]
    cold: int
    gaps: NDArray[np.int64]
    last_out: int
    leaking: int


def by_user(log: Log, split_ms: int) -> ByUser:
    """Measure a log, in a scan for each part. `split_ms`: from this time on, interactions are predicted."""
    rows = log.interactions.select("user_id", "item_id", "timestamp").with_row_index("row")
    found = [_measured(part, split_ms) for part in shards(rows, "user_id", log.rows)]
    last = np.concatenate([each.last for each in found])
    inputs_until = max((each.inputs_until for each in found if each.inputs_until is not None), default=None)
    longest = max(len(each.gaps) for each in found)
    return ByUser(
        out_of_order=sum(each.out_of_order for each in found),
        tied=sum(each.tied for each in found),
        duplicates=sum(each.duplicates for each in found),
        repeats=sum(each.repeats for each in found),
        at_once=sum(each.at_once for each in found),
        lengths=np.concatenate([each.lengths for each in found]),
        cold=sum(each.cold for each in found),
        gaps=np.sum([np.pad(each.gaps, (0, longest - len(each.gaps))) for each in found], axis=0),
        last_out=len(last),
        leaking=0 if inputs_until is None else int((last < inputs_until).sum()),
    )


def shards(rows: pl.LazyFrame, column: str, count: int) -> Iterator[pl.LazyFrame]:
    """Rows divided by the hash of a column, each part in the order of the file."""
    every = max(1, -(-count // SHARD_ROWS))
    for number in range(every):
        yield rows if every == 1 else rows.filter(pl.col(column).hash(seed=0) % every == number)


def gap_ms(bucket: int) -> float:
    """The shortest gap of a bucket."""
    return float(2.0 ** (bucket / GAP_STEPS) - 1)


@dataclass(frozen=True, slots=True)
class _Part:
    out_of_order: int
    tied: int
    duplicates: int
    repeats: int
    at_once: int
    lengths: NDArray[np.int64]
    cold: int
    gaps: NDArray[np.int64]
    last: NDArray[np.int64]
    """When the last interaction of each user was, of those with two or more."""
    inputs_until: int | None
    """When the last one of all others was."""


def _measured(part: pl.LazyFrame, split_ms: int) -> _Part:
    hashed = [pl.col(name).hash(seed=number) for number, name in enumerate(("user_id", "item_id"), start=1)]
    frame = part.select(*hashed, "timestamp", "row").collect(engine="streaming").sort("user_id", "timestamp", "row")
    user, item, ms, row = (frame[name].to_numpy() for name in ("user_id", "item_id", "timestamp", "row"))
    same = user[1:] == user[:-1]  # (n - 1,) whether an interaction is of the user of the one before
    after_another = np.insert(same, 0, False)[: len(user)]
    before_another = np.append(same, False)[: len(user)]
    tied = same & (ms[1:] == ms[:-1])
    start = np.flatnonzero(~after_another)
    lengths = np.diff(np.append(start, len(user)))
    first = np.repeat(ms[start], lengths)
    target = ms >= split_ms
    gap = (ms[1:] - ms[:-1])[same & target[1:]]
    last = after_another & ~before_another
    inputs = ms[before_another]
    return _Part(
        out_of_order=int((same & (row[1:] < row[:-1])).sum()),
        tied=int((np.insert(tied, 0, False)[: len(user)] | np.append(tied, False)[: len(user)]).sum()),
        duplicates=len(user) - _distinct(user, item, ms.view(np.uint64)),
        repeats=len(user) - _distinct(user, item),
        at_once=int((same & (item[1:] == item[:-1])).sum()),
        lengths=lengths,
        cold=int((target & (first >= split_ms)).sum()),
        gaps=np.bincount((np.log2(gap + 1.0) * GAP_STEPS).astype(np.int64), minlength=1),
        last=ms[last],
        inputs_until=int(inputs.max()) if len(inputs) else None,
    )


def _distinct(*columns: NDArray[np.uint64]) -> int:
    """How many distinct rows there are, by a hash of each."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column, factor in zip(columns, _MIX, strict=False):
        mixed = (mixed ^ column) * factor
        mixed ^= mixed >> np.uint64(29)
    mixed.sort()  # np.unique takes five times as long
    return int((mixed[1:] != mixed[:-1]).sum()) + min(1, len(mixed))
