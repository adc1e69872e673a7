"""What a reader should know of a log before trusting what is made from it: a sentence each."""

from typing import Final

import polars as pl

from model.log.opened import Log
from model.times import UNIT_NAMES

_COUNTED: Final = 4_000_000
"""Interactions that ties are counted among. In a longer log, those of some users, drawn by the hash of their ids."""
_TIES_WORTH_SAYING: Final = 0.01


def facts(log: Log) -> list[str]:
    """What was guessed about files, ids and the unit of times, what was passed over, and ties."""
    said = [*log.chosen, *log.notes]
    if log.passed_over:
        rows = "1 row" if log.passed_over == 1 else f"{log.passed_over} rows"
        said.append(f"{rows} with other events passed over; {log.rows} interactions are left")
    if len(log.units) == 1 and log.stated_unit is None:
        (unit,) = log.units
        said.append(f"times are {UNIT_NAMES[unit]}, by their size: --time-unit {unit} states it")
    elif len(log.units) > 1:
        counts = ", ".join(f"{count} in {UNIT_NAMES[unit]}" for unit, count in log.units.items())
        said.append(
            f"times are numbers of several units: {counts}. Each was read by its size; --time-unit states one unit"
        )
    if (share := ties(log)) >= _TIES_WORTH_SAYING:
        said.append(
            f"{share:.1%} of the interactions have the same time as another one of their user. They keep the order of the log"
        )
    return said


def ties(log: Log) -> float:
    """The share of interactions whose user has another one in the same millisecond."""
    every = -(-log.rows // _COUNTED)
    rows = log.interactions.select("user_id", "timestamp")
    if every > 1:
        rows = rows.filter(pl.col("user_id").hash(seed=0) % every == 0)
    moments = rows.group_by("user_id", "timestamp").len("count")
    tied = pl.col("count").filter(pl.col("count") > 1).sum()
    found = moments.select(tied.alias("tied"), pl.col("count").sum().alias("all")).collect(engine="streaming").row(0)
    return found[0] / found[1] if found[1] else 0.0
