"""The rule of `model.ids` for a column: expressions that equal it value by value."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from model.ids import ANY_CONTROL, DECIMAL, LOWEST, MAX_ID_BYTES, MOST_EXACT_FLOAT, PADDED, Id, IdType, checked, stated

ABSENT = ("NULL", "null", "Null", "NaN", "nan", "NAN", "None", "N/A", "n/a", "<NA>", "\\N")
"""How programs write that there is no value. In a log, they are ids."""

_HIGHEST_SIGNED = (1 << 63) - 1


def as_ids(column: pl.Expr, dtype: pl.DataType, id_type: IdType | None) -> pl.Expr:
    """A column as ids: text, or integers. null: the value is none, or is not an id."""
    if dtype.is_integer():
        if id_type == "text":
            return column.cast(pl.String)
        return column if dtype == pl.UInt64 else column.cast(pl.Int64)
    if dtype.is_float():
        whole = (column == column.floor()) & (column.abs() <= MOST_EXACT_FLOAT)
        return pl.when(whole if id_type == "integer" else pl.lit(value=False)).then(column).cast(pl.Int64)
    if isinstance(dtype, pl.Decimal):
        text = column.cast(pl.String)
        if dtype.scale == 0 or id_type == "integer":
            return pl.when(text.str.contains(PADDED) | pl.lit(dtype.scale == 0)).then(_of_text(text, "integer"))
        return _no_id(column)
    if dtype in (pl.Categorical, pl.Enum):
        return _of_text(column.cast(pl.String), id_type)
    if dtype == pl.Binary and id_type == "text":
        # polars raises ComputeError if it is not UTF-8.
        return _of_text(column.cast(pl.String), id_type)
    if dtype == pl.String:
        return _of_text(column, id_type)
    return _no_id(column)


def as_id(value: Any, id_type: IdType | None) -> Id:
    """What `as_ids` makes of one value. Raises ValueError if it is not an id."""
    return checked(value) if id_type is None else stated(value, id_type)


def is_decimal(text: pl.Expr) -> pl.Expr:
    """Whether text is an integer of the range, as programs write it."""
    return text.str.contains(DECIMAL) & _in_range(text)


def is_padded(text: pl.Expr) -> pl.Expr:
    """Whether text is an integer of the range, but not as programs write it: `00022`, `22.0`."""
    return text.str.contains(PADDED) & _in_range(text.str.replace(PADDED, "${1}${2}")) & ~is_decimal(text)


def _no_id(column: pl.Expr) -> pl.Expr:
    # It has as many rows as the column.
    return pl.when(column.is_null() & pl.lit(value=False)).then(pl.lit(""))


def _of_text(column: pl.Expr, id_type: IdType | None) -> pl.Expr:
    if id_type == "integer":
        number = column.str.replace(PADDED, "${1}${2}").str.replace("^-0+$", "0")
        column = pl.when(column.str.contains(PADDED) & _in_range(number)).then(number).otherwise(column)
    return pl.when(column.str.len_bytes().is_between(1, MAX_ID_BYTES) & ~column.str.contains(ANY_CONTROL)).then(column)


def _in_range(number: pl.Expr) -> pl.Expr:
    return number.cast(pl.Int64, strict=False).is_not_null() | number.cast(pl.UInt64, strict=False).is_not_null()


@dataclass(slots=True)
class Kind:
    """What a column of ids has been so far, over all files of a log."""

    integers: bool = True
    """Every id is an integer, or text that may be read as one."""
    lowest: int = 0
    highest: int = 0
    whole: bool = True
    """Every id is an integer, or text that `--id-type integer` reads as one."""
    padded: str | None = None
    """An id that only `--id-type integer` reads as an integer."""
    absent: str | None = None
    """An id that is one of `ABSENT`."""

    def add(self, lowest: int | None, highest: int | None, *, integers: bool) -> None:
        self.integers &= integers
        if integers and lowest is not None and highest is not None:
            self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)

    def dtype(self) -> pl.DataType:
        """The type that all ids fit in. Text if there are negative ones and some that only fit without a sign: the text
        of an integer is the same id.
        """
        if not self.integers or (self.lowest < 0 and self.highest > _HIGHEST_SIGNED):
            return pl.String()
        return pl.UInt64() if self.highest > _HIGHEST_SIGNED else pl.Int64()


assert LOWEST == -_HIGHEST_SIGNED - 1
