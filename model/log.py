"""An event log from any file, as a table of `user_id`, `item_id`, `timestamp` (int64, epoch ms), and `attribute` if
wanted.

Reading checks the whole log once and is lazy after that. Ids keep the type that they have in the log: strings or
integers.
"""

import glob
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from model.errors import LogUnreadable

FORMATS = {".parquet": "Parquet", ".csv": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines", ".json": "JSON lines"}

SECONDS_BELOW = 100_000_000_000
"""As seconds this is the year 5138, as milliseconds March 1973. A smaller timestamp is in seconds."""

MILLISECONDS_BELOW = 100_000_000_000_000
"""As milliseconds this is the year 5138. A larger timestamp is in micro- or nanoseconds."""


def read_log(
    source: str | Path,
    user_column: str = "user_id",
    item_column: str = "item_id",
    timestamp_column: str = "timestamp",
    attribute_column: str | None = None,
) -> pl.LazyFrame:
    """The interactions of a log, in file order.

    Args:
        source: a Parquet, CSV or JSON lines file, a folder of such files, or a glob. Several files are read in the
            order of their names and must have one format.
        user_column, item_column, timestamp_column: the names of the columns in the log. Other columns are ignored.
        attribute_column: the name of a column that describes the item, a genre or a brand: strings, integers or nulls.
            None: there is none.

    Raises:
        LogUnreadable: there is no such log, it is empty, a column is missing or has another type than expected.
    """
    files = _files(str(source))
    named = {"user_id": user_column, "item_id": item_column, "timestamp": timestamp_column}
    if attribute_column is not None:
        named["attribute"] = attribute_column
    try:
        frame = _scan(files)
        schema = frame.collect_schema()
        _check_columns(source, named, schema)
        frame = frame.select(pl.col(column).alias(name) for name, column in named.items())
        _check_nulls(source, named, frame)
        return frame.with_columns(_milliseconds(source, timestamp_column, frame))
    except pl.exceptions.NoDataError as error:
        raise LogUnreadable(f"{source}: the log is empty: {error}") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LogUnreadable(f"{source}: not readable as {FORMATS[files[0].suffix]}: {error}") from error


def in_time_order(log: pl.LazyFrame) -> pl.LazyFrame:
    """Sorted by time. Interactions of the same millisecond keep their order in the file."""
    return log.sort("timestamp", maintain_order=True)


def _files(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in FORMATS)
    elif path.is_file():
        files = [path]
    else:
        files = sorted(Path(match) for match in glob.glob(source, recursive=True))  # noqa: PTH207  the pattern may be absolute
    files = [file for file in files if file.is_file()]
    if not files:
        raise LogUnreadable(f"{source}: no such log. Expected a file, a folder or a glob of {', '.join(FORMATS)}")
    formats = sorted({FORMATS.get(file.suffix, file.suffix or file.name) for file in files})
    if len(formats) > 1:
        raise LogUnreadable(f"{source}: files of several formats ({', '.join(formats)}). A log must have one")
    if files[0].suffix not in FORMATS:
        raise LogUnreadable(f"{source}: unknown format {files[0].suffix!r}. Expected {', '.join(FORMATS)}")
    return files


def _scan(files: Sequence[Path]) -> pl.LazyFrame:
    kind = FORMATS[files[0].suffix]
    if kind == "Parquet":
        return pl.scan_parquet(list(files))
    if kind == "CSV":
        # The whole log decides the types, because ids may look like integers for many rows. It is read once for this: a
        # scan that infers types does so in every collect, which takes longer than reading.
        schema = pl.scan_csv(list(files), infer_schema_length=None, try_parse_dates=True).collect_schema()
        return pl.scan_csv(list(files), schema_overrides=schema, infer_schema_length=0, try_parse_dates=True)
    if all(file.stat().st_size == 0 for file in files):
        raise pl.exceptions.NoDataError("no line in it")
    return pl.scan_ndjson(list(files), infer_schema_length=None)


def _check_columns(source: str | Path, named: dict[str, str], schema: pl.Schema) -> None:
    missing = [(name, column) for name, column in named.items() if column not in schema]
    if missing:
        options = ", ".join(f"--{name.removesuffix('_id')}-column" for name, _ in missing)
        raise LogUnreadable(
            f"{source}: no column {', '.join(repr(column) for _, column in missing)}. The log has {', '.join(schema.names())}. "
            f"Give the name of the column with {options}"
        )
    for name, what in (("user_id", "ids"), ("item_id", "ids"), ("attribute", "attributes")):
        if name not in named:
            continue
        kind = schema[named[name]]
        if not (kind.is_integer() or kind == pl.String):
            raise LogUnreadable(
                f"{source}: column {named[name]!r} has type {kind}. {what.capitalize()} must be strings or integers"
            )


def _check_nulls(source: str | Path, named: dict[str, str], frame: pl.LazyFrame) -> None:
    # An item may have no attribute.
    needed = {name: column for name, column in named.items() if name != "attribute"}
    counted = frame.select(pl.len().alias("rows"), *(pl.col(name).null_count().alias(name) for name in needed)).collect(
        engine="streaming"
    )
    found = counted.row(0, named=True)
    if found["rows"] == 0:
        raise LogUnreadable(f"{source}: the log is empty: it has columns but no rows")
    nulls = [f"{found[name]} in {column!r}" for name, column in needed.items() if found[name]]
    if nulls:
        raise LogUnreadable(f"{source}: values are missing: {', '.join(nulls)}, in {found['rows']} rows")


def _milliseconds(source: str | Path, column: str, frame: pl.LazyFrame) -> pl.Expr:
    timestamp = pl.col("timestamp")
    kind = frame.collect_schema()["timestamp"]
    if kind == pl.Date:
        return timestamp.cast(pl.Datetime("ms")).dt.epoch("ms")
    if isinstance(kind, pl.Datetime):
        return timestamp.dt.epoch("ms")
    if not kind.is_integer():
        raise LogUnreadable(
            f"{source}: column {column!r} has type {kind}. Expected integer epoch seconds or milliseconds, or a datetime"
        )
    least, most = (
        frame.select(timestamp.min().alias("least"), timestamp.max().alias("most")).collect(engine="streaming").row(0)
    )
    if least < 0:
        raise LogUnreadable(f"{source}: column {column!r} has the value {least}. A timestamp must not be negative")
    if most < SECONDS_BELOW:
        return timestamp.cast(pl.Int64) * 1000
    if most >= MILLISECONDS_BELOW:
        raise LogUnreadable(
            f"{source}: column {column!r} has the value {most}, which is finer than milliseconds. Expected epoch seconds or milliseconds"
        )
    if least < SECONDS_BELOW:
        raise LogUnreadable(
            f"{source}: column {column!r} mixes seconds and milliseconds: its values are from {least} to {most}"
        )
    return timestamp.cast(pl.Int64)
