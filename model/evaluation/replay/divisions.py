"""The parts of a replay that have figures of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from model.evaluation.replay.files import Ranking
from model.evaluation.user_groups import FOLDS, HISTORY_LENGTHS, labels

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
WINDOWS_MS: Final = (
    HOUR_MS,
    6 * HOUR_MS,
    *(days * DAY_MS for days in (1, 2, 7, 14, 30, 90, 180, 365, 1_826, 3_652, 18_262)),
)
MOST_WINDOWS: Final = 40

_AGES_MS: Final = (0, HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 365 * DAY_MS)
_AGE_LABELS: Final = ("new", "< 1 hour", "< 1 day", "< 7 days", "< 30 days", "< 1 year", "older")
_SINCE_FOLD: Final = (0, 1, 5, 10, 20, 50, 100, 200, 500)
_POPULARITY: Final = (0, 1, 10, 100, 1_000, 10_000, 100_000)


@dataclass(frozen=True, slots=True)
class Division:
    """`number(ranking)` is the index of the part that a row is in; null: in none. `own`: it differs between models, and
    baselines are divided as the first model.
    """

    name: str
    title: str
    x_label: str
    labels: Sequence[str]
    least: Sequence[float]
    number: Callable[[Ranking], pl.Expr]
    own: bool = False


def _classes(value: pl.Expr, edges: Sequence[int]) -> pl.Expr:
    return pl.sum_horizontal((value >= edge).cast(pl.Int32) for edge in edges[1:])


DIVISIONS: Final = (
    Division(
        "history",
        "By length of the history",
        "interactions of the user before",
        labels(HISTORY_LENGTHS[1:]),
        HISTORY_LENGTHS[1:],
        lambda _: _classes(pl.col("taken"), HISTORY_LENGTHS[1:]),
    ),
    Division(
        "folds",
        "By number of folds",
        "folds of the user when the list was made",
        labels(FOLDS),
        FOLDS,
        lambda ranking: _classes(ranking.of("folds"), FOLDS),
        own=True,
    ),
    Division(
        "since_fold",
        "By position since the last fold",
        "items in working memory when the list was made, for users with a fold",
        labels(_SINCE_FOLD),
        _SINCE_FOLD,
        lambda ranking: pl.when(ranking.of("folds") > 0).then(_classes(ranking.of("since_fold"), _SINCE_FOLD)),
        own=True,
    ),
    Division(
        "popularity",
        "By popularity of the item",
        "interactions that the item had before",
        labels(_POPULARITY),
        _POPULARITY,
        lambda _: _classes(pl.col("seen"), _POPULARITY),
    ),
    Division(
        "age",
        "By age of the item",
        "time since the item's first interaction in the log",
        _AGE_LABELS,
        (-1, *_AGES_MS),
        lambda _: pl.when(pl.col("age_ms").is_null()).then(0).otherwise(1 + _classes(pl.col("age_ms"), _AGES_MS)),
    ),
    Division(
        "hour",
        "By hour of the day",
        "hour of the day, UTC",
        [str(hour) for hour in range(24)],
        range(24),
        lambda _: (pl.col("timestamp") % DAY_MS // HOUR_MS).cast(pl.Int32),
    ),
    Division(
        "repeat",
        "Repeats",
        "whether the user had the item before",
        ("first time", "repeat"),
        (0, 1),
        lambda _: (pl.col("had") > 0).cast(pl.Int32),
    ),
)


def window_ms(from_ms: int, until_ms: int) -> int:
    """The shortest round width of at most `MOST_WINDOWS` windows."""
    return next((width for width in WINDOWS_MS if until_ms // width - from_ms // width < MOST_WINDOWS), WINDOWS_MS[-1])
