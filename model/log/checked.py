"""Checks pieces of a log and makes them clean: ids and times by their rules, and only the wanted events.

A value that is refused ends the reading, with its place and the cure.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import polars as pl

from model.errors import LogUnreadable
from model.ids import IdType
from model.log.id_column import ABSENT, Kind, as_id, as_ids, is_decimal, is_padded
from model.log.piece import Piece
from model.log.time_column import UNITS, as_milliseconds, units
from model.log.wording import listed, shown
from model.times import PER_S, UNIT_NAMES, TimeRule, Unit

IDS: Final = ("user_id", "item_id", "attribute")
"""Columns whose values are ids. An attribute is none, but has the same types."""


@dataclass(slots=True)
class Checked:
    """What is known of the rows so far."""

    named: Mapping[str, str]
    """The names of the columns in the log, by our names."""
    id_type: IdType | None
    rule: TimeRule
    events: Collection[str]
    """The wanted ones, if there is a column of events."""
    typed: bool
    """The format says what is text and what is a number. If it does not, text that looks like an integer may be one."""
    rows: int = 0
    passed_over: int = 0
    """Rows with other events."""
    units: dict[Unit, int] = field(default_factory=lambda: dict.fromkeys(PER_S, 0))
    """Numbers by their unit, of a log in which times are numbers."""
    kinds: dict[str, Kind] = field(default_factory=dict)
    _other_events: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kinds = {name: Kind() for name in IDS if name in self.named}

    def expressions(self, schema: Mapping[str, pl.DataType]) -> list[pl.Expr]:
        """The clean columns of a frame that has these columns, under the same names."""
        return [self._clean(name, schema[name]) for name in self.named]

    def kept(self, schema: Mapping[str, pl.DataType]) -> pl.Expr:
        """Whether a row has a wanted event, or none, which `check` refuses."""
        if "event" not in self.named:
            return pl.lit(value=True)
        return _event(schema["event"]).is_in(list(self.events)).fill_null(value=True)

    def check(self, frame: pl.LazyFrame, place: Callable[[int], str]) -> None:
        """Check rows, in one pass.

        Args:
            frame: the wanted columns as they are in the log.
            place: where a row of it is.

        Raises:
            LogUnreadable: a value is refused.
        """
        schema = frame.collect_schema()
        # One step after the other, so that no column is made twice.
        clean = frame.filter(self.kept(schema)).with_columns(
            *(self._clean(name, schema[name]).alias(f"clean {name}") for name in self.named),
            units(pl.col("timestamp"), schema["timestamp"]).alias("unit"),
        )
        found = clean.select(self._measures(schema)).collect(engine="streaming").row(0, named=True)
        if refused := max(found[f"{name} refused"] for name in self.named):
            try:
                self._refuse(frame, schema, place)
            except LogUnreadable as error:
                others = (
                    f". At least {refused - 1} more like it: {refused} of {found['rows']} rows" if refused > 1 else ""
                )
                raise LogUnreadable(f"{error}{others}") from error
        self.rows += found["rows"]
        if "event" in self.named:
            self._pass_over(frame.select(pl.len()).collect(engine="streaming").item() - found["rows"], frame, schema)
        for unit in UNITS:
            self.units[unit] += found[unit]
        for name, kind in self.kinds.items():
            kind.add(found[f"{name} lowest"], found[f"{name} highest"], integers=bool(found[f"{name} integers"]))
            if not found[f"{name} integers"] and kind.whole:
                self._look_for_padded(kind, clean.select(pl.col(f"clean {name}").alias("id")))
            kind.absent = kind.absent or found.get(f"{name} absent")

    def cleaned(self, piece: Piece) -> pl.DataFrame:
        """The clean rows of a piece; ids are text.

        Raises:
            LogUnreadable: a value is refused.
        """
        frame = self._unmixed(piece) if piece.mixed else piece.frame
        self.check(frame.lazy(), piece.place)
        kept = frame.filter(self.kept(frame.schema)).select(self.expressions(frame.schema))
        return kept.cast({name: pl.Int64 if name == "timestamp" else pl.String for name in self.named})

    def dtypes(self) -> dict[str, pl.DataType]:
        """The types of the columns of ids, after all pieces."""
        return {name: kind.dtype() for name, kind in self.kinds.items()}

    def notes(self) -> list[str]:
        """What a reader should know of the ids, after all pieces: a sentence each."""
        said = []
        for name, kind in self.kinds.items():
            column = shown(self.named[name])
            if kind.whole and kind.padded is not None:
                number = int(kind.padded.partition(".")[0])
                said.append(
                    f"ids such as {shown(kind.padded)} in {column} are text, not {number}: --id-type integer reads them "
                    "as numbers"
                )
            if name != "attribute" and kind.absent is not None:
                said.append(
                    f"{shown(kind.absent)} in {column} is an id as any other. If it means none, leave out its rows"
                )
        return said

    def ensure_rows(self, name: str) -> None:
        """Raise LogUnreadable if there were none."""
        if self.rows:
            return
        if self.passed_over:
            raise LogUnreadable(
                f"{name}: none of its {self.passed_over} rows has one of the events {listed(sorted(self.events))}. "
                f"It has {listed(list(self._other_events))}. Give others with --events"
            )
        raise LogUnreadable(f"{name}: the log is empty: it has columns but no rows")

    def _clean(self, name: str, dtype: pl.DataType) -> pl.Expr:
        column = pl.col(name)
        if name == "timestamp":
            return as_milliseconds(column, dtype, self.rule).alias(name)
        if name == "event":
            return _event(dtype).alias(name)
        if name == "attribute":
            return _attribute(column, dtype, self.id_type).alias(name)
        return as_ids(column, dtype, self.id_type).alias(name)

    def _measures(self, schema: Mapping[str, pl.DataType]) -> list[pl.Expr]:
        found = [pl.len().alias("rows")]
        found += [(pl.col("unit") == index).sum().alias(unit) for index, unit in enumerate(UNITS)]
        for name in self.named:
            refused = self._refused(name, schema[name], pl.col(f"clean {name}"))
            found.append(refused.sum().alias(f"{name} refused"))
        for name in self.kinds:
            clean, dtype = pl.col(f"clean {name}"), schema[name]
            number = clean.cast(pl.Int128, strict=False)
            if self.id_type == "text":
                integers = pl.lit(value=False)
            elif dtype.is_integer() or dtype.is_float():
                integers = pl.lit(value=True)
            elif self.typed and self.id_type is None and not isinstance(dtype, pl.Decimal):
                integers = clean.is_null().all()
            else:
                integers = (is_decimal(clean) | clean.is_null()).all()
            found += [
                integers.alias(f"{name} integers"),
                number.min().alias(f"{name} lowest"),
                number.max().alias(f"{name} highest"),
            ]
            if schema[name].is_integer() or schema[name].is_float():
                continue
            found.append(pl.when(clean.is_in(ABSENT)).then(clean).min().alias(f"{name} absent"))
        return found

    def _look_for_padded(self, kind: Kind, ids: pl.LazyFrame) -> None:
        """Whether ids that are not all integers are so for `--id-type integer`. Most are not, and then the first look
        at a column is the last one.
        """
        kind.whole = not self.typed and self.id_type is None
        for rows in (ids.head(100), ids):
            if kind.whole:
                padded = is_padded(pl.col("id"))
                whole = (padded | is_decimal(pl.col("id")) | pl.col("id").is_null()).all()
                least = pl.when(padded).then("id").min()
                found = rows.select(whole=whole, padded=least).collect(engine="streaming").row(0, named=True)
                kind.whole, kind.padded = found["whole"], kind.padded or found["padded"]

    def _refused(self, name: str, dtype: pl.DataType, clean: pl.Expr) -> pl.Expr:
        if name != "attribute":
            return clean.is_null()
        given = pl.col(name).is_not_null()
        return (
            clean.is_null() & given & (pl.col(name).cast(pl.String) != "")
            if _is_text(dtype)
            else clean.is_null() & given
        )

    def _refuse(self, frame: pl.LazyFrame, schema: Mapping[str, pl.DataType], place: Callable[[int], str]) -> None:
        refused = pl.any_horizontal(
            self._refused(name, schema[name], self._clean(name, schema[name])) for name in self.named
        )
        # Not streaming: the row must be the first one.
        row = frame.with_row_index("row").filter(self.kept(schema) & refused).head(1).collect().row(0, named=True)
        where = place(row["row"])
        if "event" in self.named:
            self._refuse_event(where, row["event"])
        for name, column in self.named.items():
            value = row[name]
            if name == "timestamp":
                self._refuse_time(where, column, value)
            elif name != "event" and not (name == "attribute" and value in (None, "")):
                self._refuse_id(where, column, value)
        raise AssertionError(f"{where}: the columns refuse what the rules of model.ids and model.times take")

    def _refuse_event(self, where: str, value: Any) -> None:
        column = shown(self.named["event"])
        if value is None:
            raise LogUnreadable(
                f"{where}: has no event in {column}. A worker refuses such a record too. Correct the row, or leave it out"
            )
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise LogUnreadable(
                f"{where}: {column} is {type(value).__name__}, expected the kind of the event as text: {shown(value)}"
            )

    def _refuse_id(self, where: str, column: str, value: Any) -> None:
        if value is None:
            raise LogUnreadable(f"{where}: has no value in {shown(column)}. Correct the row, or leave it out")
        try:
            as_id(value, self.id_type)
        except ValueError as error:
            raise LogUnreadable(
                f"{where}: {shown(column)} {error}: {shown(value)}.{_cure_of_id(value, self.id_type)}"
            ) from error

    def _refuse_time(self, where: str, column: str, value: Any) -> None:
        if value is None:
            raise LogUnreadable(f"{where}: has no value in {shown(column)}. Correct the row, or leave it out")
        try:
            if self.rule.milliseconds(value) is not None:
                return
            read = self.rule.read(value)
        except ValueError as error:
            raise LogUnreadable(f"{where}: {shown(column)} {error}: {shown(value)}") from error
        when = f"is {_date(read)}" if read is not None else "is no number"
        expected = f"expected a time from {_date(self.rule.earliest_ms)} until before {_date(self.rule.latest_ms)}"
        by_size = replace(self.rule, unit=None).milliseconds(value)
        if (stated := self.rule.unit) is not None and stated != "iso" and by_size is not None:
            raise LogUnreadable(
                f"{where}: {shown(column)} {when}, {expected}: {shown(value)}. By its size it is {_date(by_size)}, in another "
                f"unit than {UNIT_NAMES[stated]}, which --time-unit states. Correct --time-unit, or the row"
            )
        raise LogUnreadable(
            f"{where}: {shown(column)} {when}, {expected}: {shown(value)}. If it is right, state the unit of numbers with --time-unit, or the "
            "plausible times with --time-range FROM..UNTIL"
        )

    def _pass_over(self, rows: int, frame: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> None:
        self.passed_over += rows
        if rows and len(self._other_events) < 10:
            others = frame.filter(~self.kept(schema)).select(_event(schema["event"]).alias("event")).head(1000).unique()
            self._other_events.update(dict.fromkeys(sorted(others.collect().to_series().to_list())))

    def _unmixed(self, piece: Piece) -> pl.DataFrame:
        """The piece with its mixed columns in one type: clean if they can be, and refused if not."""
        columns: dict[str, pl.Series] = {}
        for name, values in piece.mixed.items():
            columns[name] = pl.Series(name, [None] * len(values), dtype=pl.String)
        frame = piece.frame.with_columns(**columns)
        if "event" in columns:
            for row, value in enumerate(piece.mixed["event"]):
                self._refuse_event(piece.place(row), value)
            events = [str(value) for value in piece.mixed["event"]]
            frame = frame.with_columns(event=pl.Series(events, dtype=pl.String))
        kept = frame.select(self.kept(frame.schema).alias("kept")).to_series()
        chosen = list(kept) if len(kept) == len(frame) else [True] * len(frame)
        for name, values in piece.mixed.items():
            if name != "event":
                made = [
                    self._one(name, value, piece.place, row) if chosen[row] else None
                    for row, value in enumerate(values)
                ]
                frame = frame.with_columns(self._column(name, made))
        return frame.select(list(self.named))

    def _column(self, name: str, values: list[Any]) -> pl.Series:
        if name == "timestamp":
            return pl.Series(name, values, dtype=pl.Datetime("ms"))
        if {type(value) for value in values} <= {int, type(None)} and self.id_type != "text":
            low, high = (
                min((v for v in values if v is not None), default=0),
                max((v for v in values if v is not None), default=0),
            )
            if low >= 0 or high < 1 << 63:
                return pl.Series(name, values, dtype=pl.UInt64 if high >= 1 << 63 else pl.Int64)
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)

    def _one(self, name: str, value: Any, place: Callable[[int], str], row: int) -> Any:
        """A value of a mixed column, clean. Raises LogUnreadable if it is refused."""
        column = self.named[name]
        if name == "timestamp":
            try:
                ms = self.rule.milliseconds(value)
            except ValueError:
                ms = None
            if ms is None:
                self._refuse_time(place(row), column, value)
            return ms
        if name == "attribute" and value in (None, ""):
            return None
        try:
            return as_id(value, self.id_type)
        except ValueError:
            self._refuse_id(place(row), column, value)
            return value


def _is_text(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, pl.Categorical, pl.Enum)


def _event(dtype: pl.DataType) -> pl.Expr:
    column = pl.col("event")
    if dtype.is_integer() or _is_text(dtype):
        return column.cast(pl.String)
    return pl.when(column.is_null() & pl.lit(value=False)).then(pl.lit(""))


def _attribute(column: pl.Expr, dtype: pl.DataType, id_type: IdType | None) -> pl.Expr:
    """Text of any length, or integers. An empty attribute is none."""
    if not _is_text(dtype):
        return as_ids(column, dtype, id_type)
    text = column.cast(pl.String)
    return pl.when(text != "").then(text)


def _cure_of_id(value: Any, id_type: IdType | None) -> str:
    if isinstance(value, bytes) and id_type is None:
        return " If it is text in UTF-8, say --id-type text"
    if isinstance(value, float | Decimal) and id_type is None:
        return " If such ids are integers, say --id-type integer"
    return " A worker refuses such an id too. Correct the row, or leave it out"


def _date(ms: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).strftime("%Y-%m-%d")
    except OverflowError:
        return f"beyond the year {'9999' if ms > 0 else '1'}"
