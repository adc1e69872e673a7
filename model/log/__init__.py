"""An event log from any file, as a table of `user_id`, `item_id`, `timestamp` (int64, epoch ms), and `attribute` or
`event` if wanted.

Reading checks the whole log once and is lazy after that. Parquet is scanned where it is. Text is converted once, piece
by piece, to a temporary Parquet file, which the process deletes at its end.
"""

import atexit
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl

from model.errors import LogUnreadable
from model.ids import IdType
from model.log import json_lines, parquet, separated
from model.log.checked import Checked
from model.log.columns import Columns
from model.log.dialect import Dialect
from model.log.facts import facts
from model.log.names import with_datetime
from model.log.opened import Log
from model.log.piece import Piece
from model.log.source import Part, parts
from model.log.wording import shown_path
from model.times import TimeRule, Unit

__all__ = ["Columns", "Log", "facts", "in_time_order", "open_log", "read_log"]


def read_log(
    source: str | Path,
    user_column: str = "user_id",
    item_column: str = "item_id",
    timestamp_column: str = "timestamp",
    attribute_column: str | None = None,
) -> pl.LazyFrame:
    """The interactions of a log, as `open_log` gives them."""
    return open_log(source, Columns(user_column, item_column, timestamp_column, attribute_column)).interactions


def open_log(
    source: str | Path,
    columns: Columns | None = None,
    *,
    id_type: IdType | None = None,
    times: TimeRule | None = None,
    events: Collection[str] = (),
) -> Log:
    """Read a log.

    Args:
        source: a file, a folder with files at any depth, or a glob: Parquet, separated text or JSON lines, the text
            compressed or not. Several files are read in the order of their names and must have one format.
        columns: where users, items and times are; other columns are ignored.
        id_type: what ids are where the file cannot say (`model.ids.stated`). None: in Parquet and JSON lines what the
            file says; in separated text, integers if every id of the column is one as programs write it, else text.
        times: how times are read.
        events: only interactions with one of these events are read. Needs a column of events.

    Raises:
        LogUnreadable: there is no such log, it is empty or damaged, a column is missing, or a value is not an id or not
            a plausible time. The message has the file, the row, the value and the cure.
    """
    name = shown_path(source)
    columns = columns or Columns()
    notes: list[str] = []
    found = parts(str(source), notes)
    chosen: list[str] = []
    columns = with_datetime(columns, found[0], times or TimeRule(), chosen)
    checked = Checked(columns.named(), id_type, times or TimeRule(), events, typed=found[0].format != "separated text")
    frame = _scanned(found, checked) if found[0].format == "Parquet" else _converted(name, found, checked, notes)
    checked.ensure_rows(name)
    frame = frame.with_columns(pl.col(column).cast(dtype) for column, dtype in checked.dtypes().items())
    units: dict[Unit, int] = {unit: count for unit, count in checked.units.items() if count}
    if (stated := checked.rule.unit) is not None and stated != "iso":
        units = {stated: sum(units.values())} if units else {}
    said = (*notes, *checked.notes())
    return Log(frame, checked.rows, checked.passed_over, units, said, tuple(chosen), stated)


def in_time_order(log: pl.LazyFrame) -> pl.LazyFrame:
    """Sorted by time. Interactions of the same millisecond keep their order in the file."""
    return log.sort("timestamp", maintain_order=True)


def _scanned(found: list[Part], checked: Checked) -> pl.LazyFrame:
    clean: list[tuple[pl.LazyFrame, Part]] = []
    for part in found:
        frame = parquet.wanted(part, checked.named)
        try:
            checked.check(frame, lambda row, part=part: f"{part.name}, row {row + 1}")  # type: ignore[misc]
        except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
            raise parquet.damaged(part) from error
        schema = frame.collect_schema()
        clean.append((frame.filter(checked.kept(schema)).select(checked.expressions(schema)), part))
    dtypes = checked.dtypes()
    return pl.concat(
        frame.with_columns(pl.col(column).cast(dtype) for column, dtype in dtypes.items()) for frame, _ in clean
    )


def _converted(name: str, found: list[Part], checked: Checked, notes: list[str]) -> pl.LazyFrame:
    """A log of text as clean Parquet, a file for each piece."""
    folder = Path(tempfile.mkdtemp(prefix="rec2pm-log-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    count = 0
    try:
        for piece in _pieces(found, checked, notes):
            checked.cleaned(piece).write_parquet(folder / f"{count:08}.parquet", compression="lz4")
            count += 1
    except OSError as error:
        raise LogUnreadable(
            f"{name}: cannot be converted in {shown_path(folder)}: {(error.strerror or 'an error').lower()}. "
            "TMPDIR names another folder for temporary files"
        ) from error
    if count == 0:
        checked.ensure_rows(name)
    return pl.scan_parquet(folder / "*.parquet")


def _pieces(found: list[Part], checked: Checked, notes: list[str]) -> Iterator[Piece]:
    dialects: list[Dialect] = []
    for part in found:
        if part.format == "JSON lines":
            yield from json_lines.pieces(part, checked.named, notes)
        else:
            yield from separated.pieces(part, checked.named, checked.rule, dialects, notes)
