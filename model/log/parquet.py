"""Parquet files as lazy frames with the wanted columns."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from model.errors import LogUnreadable
from model.log.columns import OPTIONS
from model.log.source import Part
from model.log.wording import listed, shown


def wanted(part: Part, named: Mapping[str, str]) -> pl.LazyFrame:
    """The wanted columns of a file, under our names.

    Args:
        named: the names of the columns in the log, or paths into structs, by our names.

    Raises:
        LogUnreadable: a column is missing, or the file is damaged.
    """
    try:
        frame = pl.scan_parquet(part.path, glob=False, hive_partitioning=False)
        schema = frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
        raise damaged(part) from error
    found: dict[str, pl.Expr] = {}
    missing: list[str] = []
    for name, column in named.items():
        expression = _at(schema, column)
        if expression is None and column in part.folders:
            expression = pl.lit(part.folders[column], pl.String)
        if expression is None:
            missing.append(name)
        else:
            found[name] = expression
    if missing:
        raise LogUnreadable(
            f"{part.name}: no column {', '.join(shown(named[name]) for name in missing)}. The log has {listed(_paths(schema))}. "
            f"Give the name or the path of the column with {', '.join(OPTIONS[name] for name in missing)}"
        )
    return frame.select(expression.alias(name) for name, expression in found.items())


def damaged(part: Part) -> LogUnreadable:
    """The error of a file that polars cannot read."""
    return LogUnreadable(f"{part.name}: is damaged or cut short: it begins like Parquet, but cannot be read as such")


def _at(schema: Mapping[str, pl.DataType], path: str) -> pl.Expr | None:
    if path in schema:
        return pl.col(path)
    first, *rest = path.split(".")
    dtype = schema.get(first)
    expression = pl.col(first)
    for name in rest:
        if not isinstance(dtype, pl.Struct):
            return None
        dtype = next((each.dtype for each in dtype.fields if each.name == name), None)  # type: ignore[assignment]
        expression = expression.struct.field(name)
    return expression if dtype is not None else None


def _paths(schema: Mapping[str, Any]) -> list[str]:
    """The columns, and the fields of those that are structs."""
    found: list[str] = []
    for name, dtype in schema.items():
        found += [f"{name}.{inner}" for inner in _paths(dtype.to_schema())] if isinstance(dtype, pl.Struct) else [name]
    return found
