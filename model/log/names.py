"""Which columns the first file of a log has, before any of it is read."""

import json
from collections.abc import Collection
from dataclasses import replace

import polars as pl

from model.log import parquet
from model.log.columns import Columns
from model.log.dialect import dialect_of
from model.log.source import Part
from model.log.text import TextFile
from model.times import TimeRule

_TIMESTAMP = Columns().timestamp
_DATETIME = "datetime"


def with_datetime(columns: Columns, part: Part, rule: TimeRule, chosen: list[str]) -> Columns:
    """The columns of a log whose times are in `datetime`, as recommender libraries call the column, if it has no
    `timestamp` and nobody named another one.

    Args:
        part: the first file.
        chosen: what is chosen is appended.

    Raises:
        LogUnreadable: the file is damaged.
    """
    if columns.timestamp != _TIMESTAMP:
        return columns
    there = _names(part, columns.named().values(), rule)
    if _TIMESTAMP in there or _DATETIME not in there:
        return columns
    chosen.append(f"times are in the column '{_DATETIME}', because there is no '{_TIMESTAMP}'")
    return replace(columns, timestamp=_DATETIME)


def _names(part: Part, wanted: Collection[str], rule: TimeRule) -> set[str]:
    """The columns of a file, and those that its folders say. Empty if reading it will say what is wrong with it."""
    found: Collection[str]
    if part.format == "Parquet":
        try:
            found = pl.read_parquet_schema(part.path)
        except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
            raise parquet.damaged(part) from error
    elif part.format == "JSON lines":
        found = _keys(TextFile(part.path).sample())
    else:
        found = dialect_of(TextFile(part.path).sample(), wanted, rule).names
    return {*found, *part.folders}


def _keys(sample: str) -> set[str]:
    """The keys of the first object."""
    line = next((line for line in sample.split("\n") if line.strip()), "")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return set()
    return set(record) if isinstance(record, dict) else set()
