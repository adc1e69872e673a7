"""A log that was read."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from model.times import TimeUnit, Unit


@dataclass(frozen=True, slots=True)
class Log:
    """The interactions of a log, and what is known of the whole of it."""

    interactions: pl.LazyFrame
    """`user_id` and `item_id` (text, int64 or uint64), `timestamp` (int64, epoch ms), and if wanted `attribute` (as
    ids, or null) and `event` (text), in file order."""
    rows: int
    passed_over: int
    """Rows with other events than the wanted ones."""
    units: Mapping[Unit, int]
    """How many times were numbers of each unit: the stated one, or by their size."""
    notes: tuple[str, ...]
    """What was guessed about the files, which were passed over, and which ids are strange: a sentence each."""
    chosen: tuple[str, ...] = ()
    """What was chosen where only one choice is likely: a sentence each."""
    stated_unit: TimeUnit | None = None
    """What a user said of the unit of times."""
