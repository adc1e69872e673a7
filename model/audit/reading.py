"""What was read: how much, what ids are, and in which unit times came."""

from typing import Final

import polars as pl

from model.audit.finding import Finding
from model.audit.items import ByItem
from model.audit.users import ByUser
from model.log import Log
from model.times import UNIT_NAMES

_FEW: Final = 100
"""With fewer interactions, shares say nothing."""


def rows(log: Log, users: ByUser, items: ByItem) -> Finding:
    """How much was read."""
    figure = f"{log.rows:,} interactions of {len(users.lengths):,} users with {len(items.counts):,} items"
    words = "Every row has a user, an item and a plausible time; reading refuses a log where one has not."
    if log.passed_over:
        words = f"{log.passed_over:,} rows with other events were passed over."
    if log.rows < _FEW:
        return Finding("rows", "attention", figure, f"{words} Shares of so few say little.", log.rows)
    return Finding("rows", "OK", figure, words, log.rows)


def ids(log: Log) -> Finding:
    """What ids are, and what was guessed about the files."""
    schema = log.interactions.collect_schema()
    kinds = {name: "text" if schema[name] == pl.String else "integers" for name in ("user_id", "item_id")}
    figure = f"users are {kinds['user_id']}, items are {kinds['item_id']}"
    if log.notes:
        return Finding("ids", "attention", figure, " ".join(f"{note.rstrip('.')}." for note in log.notes))
    return Finding("ids", "OK", figure, "Nothing had to be guessed about files and ids.")


def unit(log: Log) -> Finding:
    """In which unit times came, and who said so."""
    if log.stated_unit == "iso":
        return Finding("time unit", "OK", "ISO 8601", "--time-unit states it; a number would have been refused.")
    if not log.units:
        return Finding("time unit", "OK", "dates and times", "Without a zone they are UTC.")
    if log.stated_unit is not None:
        words = "--time-unit states it; a number that is no plausible time in it would have been refused."
        return Finding("time unit", "OK", UNIT_NAMES[log.stated_unit], words)
    if len(log.units) == 1:
        (name,) = log.units
        words = f"The size of each number says so. --time-unit {name} would refuse another one."
        return Finding("time unit", "OK", f"{UNIT_NAMES[name]}, by size", words)
    figure = ", ".join(f"{count:,} in {UNIT_NAMES[name]}" for name, count in log.units.items())
    words = "Each number was read by its size. Several programs wrote this log: see that they mean the same."
    return Finding("time unit", "attention", figure, words)
