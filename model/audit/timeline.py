"""The interactions of a log in time: where they begin and end, their order, and which have the same time."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.audit.finding import Finding, graded, share
from model.audit.users import ByUser, shards
from model.audit.wording import DAY_MS, day, moment, percent
from model.log import Log

_EDGE: Final = 0.0005
"""Times are compared with the span of the others: all but this share at both ends."""
_SHUFFLED: Final = 0.25
"""In a shuffled file, half of the neighbours are in the wrong order."""
_TIED: Final = 0.01
"""As in `model.log.facts`."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A log in time.

    `days`: the days with interactions, counted from 1970, and `counts`: how many there are on each. `backwards`: rows
    that are earlier than the row before them in the file. `tied`: interactions whose time another one has, of whatever
    user. `split_ms`: from this time on, `after` interactions are predicted. `later` than the clock are so many, and
    `days_later` by more than a day.
    """

    rows: int
    first_ms: int
    last_ms: int
    days: NDArray[np.int64]
    counts: NDArray[np.int64]
    backwards: int
    tied: int
    split_ms: int
    after: int
    later: int
    days_later: int


def in_time(log: Log, split: float | int, now_ms: int | None) -> Timeline:
    """Measure a log, in several scans of its times.

    Args:
        split: where predicted interactions begin: a share of the log as float, or epoch ms as int.
        now_ms: as for `model.audit.audit`.
    """
    times, ms = log.interactions.select("timestamp"), pl.col("timestamp")
    found = (
        times.select(
            pl.len().alias("rows"),
            ms.min().alias("first"),
            ms.max().alias("last"),
            (ms.diff() < 0).sum().alias("backwards"),
            _number(ms > now_ms if now_ms is not None else pl.lit(value=False), "later"),
            _number(ms > now_ms + DAY_MS if now_ms is not None else pl.lit(value=False), "days later"),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    days = _counted(times, DAY_MS)
    split_ms = split
    if isinstance(split, float):
        # Interactions of the same millisecond are all on one side, so that no order within it decides on which.
        split_ms = _at(times, days, min(round(found["rows"] * split), found["rows"] - 1))
    after = times.select((ms >= split_ms).sum()).collect(engine="streaming").item()
    return Timeline(
        rows=found["rows"],
        first_ms=found["first"],
        last_ms=found["last"],
        days=days["bucket"].to_numpy(),
        counts=days["count"].to_numpy(),
        backwards=found["backwards"],
        tied=_tied(times, found["rows"]),
        split_ms=int(split_ms),
        after=after,
        later=found["later"],
        days_later=found["days later"],
    )


def times(when: Timeline) -> Finding:
    """Where the log begins and ends, and times that are hardly meant."""
    figure = f"{moment(when.first_ms)} to {moment(when.last_ms)}"
    if when.days_later:
        return Finding(
            "times",
            "FAIL",
            f"{figure}; {when.later} later than the clock",
            "Such times are in the future: a wrong unit, a wrong zone or a wrong clock wrote them. They would be the newest "
            "interactions of their users for ever. Leave them out: --time-range FROM..UNTIL refuses them by row.",
            when.later,
        )
    if when.rows > 1 and when.first_ms == when.last_ms:
        return Finding(
            "times", "FAIL", figure, "All interactions have the same time, so nothing says which came before which."
        )
    low, high, far = _far(when)
    if when.later:
        return Finding(
            "times",
            "attention",
            f"{figure}; {when.later} later than the clock",
            "These are less than a day in the future, as times without a zone are where the clock is ahead of UTC. "
            "Write the zone with the times.",
            when.later,
        )
    if far:
        return Finding(
            "times",
            "attention",
            f"{figure}; {far} far from the others",
            f"The others are from {day(low)} to {day(high)}. Programs write such a date for a time that they do not "
            "know, or a clock was wrong. If so, leave the rows out.",
            far,
        )
    return Finding("times", "OK", figure, "No time is in the future, or far from the others.", 0)


def order(when: Timeline, users: ByUser) -> Finding:
    """Whether rows are in time order, in the file and for each user."""
    rows = when.rows
    if not when.backwards:
        return Finding("order", "OK", "in time order", "No row is earlier than the row before it.", 0.0)
    if not users.out_of_order:
        words = f"{percent(when.backwards, rows)} of the rows are earlier than the row before them: of another user."
        return Finding("order", "OK", "in time order for each user", words, 0.0)
    value = share(users.out_of_order, rows)
    words = "Rows are sorted by time before a model sees them. Within a tie they keep the order of the file."
    if value >= _SHUFFLED:
        words = "The file looks shuffled. Rows are sorted by time before a model sees them, but within a tie their order is chance."
    figure = f"{percent(users.out_of_order, rows)} of the interactions stand before an earlier one of their user"
    return Finding("order", "attention", figure, words, value)


def ties(when: Timeline, users: ByUser) -> Finding:
    """Interactions with the same time, within a user and overall."""
    value = share(users.tied, when.rows)
    figure = f"{percent(users.tied, when.rows)} of the interactions within their user, {percent(when.tied, when.rows)} over all"
    words = (
        "Interactions with the time of another one keep the order of the file."
        if value < _TIED
        else "Nothing says which of them came first: they keep the order of the file. A model is scored on that order "
        "too. Write finer times, or remember this when you compare small differences."
    )
    return Finding("ties", graded(value, _TIED), figure, words, value)


def _number(condition: pl.Expr, name: str) -> pl.Expr:
    return condition.sum().alias(name)


def earliest_but(times: pl.LazyFrame, rank: int) -> int:
    """The time, epoch ms, of the interaction that so many come before in the order of time: three scans, no sort."""
    return _at(times, _counted(times, DAY_MS), rank)


def _counted(times: pl.LazyFrame, width: int) -> pl.DataFrame:
    """How many times are in each `bucket` of so many milliseconds; only buckets that have some, in order."""
    buckets = times.select((pl.col("timestamp") // width).alias("bucket")).group_by("bucket")
    return buckets.agg(pl.len().cast(pl.Int64).alias("count")).sort("bucket").collect(engine="streaming")


def _at(times: pl.LazyFrame, days: pl.DataFrame, rank: int) -> int:
    """The time at a place in time order, from 0: looked for by day, then by second of the day, then by millisecond.
    `days`: what `_counted` finds for days.
    """
    found = days
    for width, finer in pairwise((DAY_MS, 1000, 1, 0)):
        until = found["count"].cum_sum()
        at = int(until.search_sorted(rank, side="right"))
        rank -= int(until[at]) - int(found["count"][at])
        low = int(found["bucket"][at]) * width
        if finer:
            found = _counted(times.filter(pl.col("timestamp").is_between(low, low + width, closed="left")), finer)
    return low


def _tied(times: pl.LazyFrame, rows: int) -> int:
    """Interactions whose time another one has. Times are divided by their hash, so that each part fits in memory."""
    tied = 0
    for part in shards(times, "timestamp", rows):
        ms = np.sort(part.collect(engine="streaming")["timestamp"].to_numpy())
        same = ms[1:] == ms[:-1]
        tied += int((np.append(same, False) | np.insert(same, 0, False)).sum())
    return tied


def _far(when: Timeline) -> tuple[int, int, int]:
    """The first and the last day of nearly all interactions, and how many are further away from them than they are
    from each other.
    """
    until = np.cumsum(when.counts)
    low, high = (int(when.days[np.searchsorted(until, until[-1] * edge, side="right")]) for edge in (_EDGE, 1 - _EDGE))
    span = high - low + 1
    far = (when.days < low - span) | (when.days > high + span)
    return low, high, int(when.counts[far].sum())
