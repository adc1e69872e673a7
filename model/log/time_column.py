"""The rule of `model.times` for a column: expressions that equal it value by value."""

from typing import Final, get_args

import polars as pl

from model.times import BELOW, FLOAT, ISO, NUMBER, PER_S, TimeRule, TimeUnit, Unit

UNITS: Final[tuple[Unit, ...]] = get_args(Unit)

_ISO_AT: Final = {"year": 1, "month": 2, "day": 3, "hour": 4, "minute": 5, "second": 6, "fraction": 7, "zone": 8}
_FITS: Final = r"^-?[0-9]{1,18}$"
"""The text of an integer that has 64 bits."""
_LONG: Final = r"^-?[0-9]{19,20}$"
_MOST: Final = 9 * 10**15
"""No plausible time has so many milliseconds, and seconds of this number still have 64 bits as milliseconds."""


def as_milliseconds(column: pl.Expr, dtype: pl.DataType, rule: TimeRule) -> pl.Expr:
    """A column as epoch milliseconds, int64. null: the value is none, is not a time, or is not plausible."""
    ms = _any(column, dtype, rule)
    return pl.when(ms.is_between(rule.earliest_ms, rule.latest_ms, closed="left")).then(ms)


def units(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The unit of each number in a column by its size: its index in `UNITS`. null: the value is not a number."""
    if dtype.is_integer() or dtype.is_float():
        return _unit(column)
    if _is_text(dtype):
        return column.cast(pl.String).map_batches(_units_of_text, return_dtype=pl.UInt8, is_elementwise=True)
    return pl.when(column.is_null() & pl.lit(value=False)).then(pl.lit(0, pl.UInt8))


def _is_text(dtype: pl.DataType) -> bool:
    return dtype == pl.String or isinstance(dtype, pl.Decimal) or dtype in (pl.Categorical, pl.Enum)


def _unit(number: pl.Expr) -> pl.Expr:
    found = pl.lit(len(BELOW), pl.UInt8)
    for index, (_, bound) in reversed(list(enumerate(BELOW))):
        found = pl.when((number < bound) & (number > -bound)).then(pl.lit(index, pl.UInt8)).otherwise(found)
    return pl.when(number.is_not_null()).then(found)


def _any(column: pl.Expr, dtype: pl.DataType, rule: TimeRule) -> pl.Expr:
    if dtype.is_numeric() and not isinstance(dtype, pl.Decimal) and rule.unit == "iso":
        return _none(column)
    if dtype.is_integer():
        signed = _of_integer(column.cast(pl.Int64, strict=False), rule.unit)
        if dtype != pl.UInt64:
            return signed
        # From 2**63 on, only nanoseconds can be plausible.
        large = (column // 10**6).cast(pl.Int64) if rule.unit in (None, "ns") else pl.lit(None, pl.Int64)
        return pl.when(column > (1 << 63) - 1).then(large).otherwise(signed)
    if dtype.is_float():
        return _of_float(column.cast(pl.Float64), rule.unit)
    if dtype == pl.Date:
        return column.cast(pl.Int32).cast(pl.Int64) * 86_400_000
    if isinstance(dtype, pl.Datetime):
        number = column.cast(pl.Int64)
        return number if dtype.time_unit == "ms" else number // (1000 if dtype.time_unit == "us" else 10**6)
    if _is_text(dtype):
        return column.cast(pl.String).map_batches(
            lambda text: _of_text(text, rule.unit), return_dtype=pl.Int64, is_elementwise=True
        )
    return _none(column)


def _none(column: pl.Expr) -> pl.Expr:
    # It has as many rows as the column.
    return pl.when(column.is_null() & pl.lit(value=False)).then(pl.lit(0, pl.Int64))


def _of_integer(number: pl.Expr, unit: TimeUnit | None) -> pl.Expr:
    if unit == "s":
        return pl.when(number.is_between(-_MOST, _MOST)).then(number) * 1000
    if unit == "ms":
        return number
    if unit == "us" or unit == "ns":
        return number // (PER_S[unit] // 1000)
    found = number // 10**6
    for name, bound in reversed(BELOW):
        found = pl.when((number < bound) & (number > -bound)).then(_of_integer(number, name)).otherwise(found)
    return found


def _of_float(number: pl.Expr, unit: TimeUnit | None) -> pl.Expr:
    if unit is not None and unit != "iso":
        ms = (number * (1000 / PER_S[unit]) + 0.5).floor()
        return pl.when(ms.is_between(-_MOST, _MOST)).then(ms).cast(pl.Int64)
    found = _of_float(number, "ns")
    for name, bound in reversed(BELOW):
        found = pl.when(number.abs() < bound).then(_of_float(number, name)).otherwise(found)
    return found


def _of_text(column: pl.Series, unit: TimeUnit | None) -> pl.Series:
    """Each text by its own pattern. Most columns have one pattern, and one pass over them is enough."""
    text = column.str.strip_chars(" ").alias("text")
    found = pl.Series(pl.repeat(None, len(text), dtype=pl.Int64, eager=True))
    kinds = ((_FITS, _of_digits), (ISO, _of_iso), (NUMBER, _of_long_number)) if unit != "iso" else ((ISO, _of_iso),)
    for pattern, read in kinds:
        matching = text.str.contains(pattern).fill_null(value=False)
        if matching.all() and len(text):
            return read(text, unit)
        if matching.any():
            index = matching.arg_true()
            found = found.scatter(index, read(text.gather(index), unit))
            text = text.scatter(index, None)
    return found


def _of_digits(text: pl.Series, unit: TimeUnit | None) -> pl.Series:
    return text.cast(pl.Int64).to_frame("x").select(_of_integer(pl.col("x"), unit)).to_series()


def _of_long_number(text: pl.Series, unit: TimeUnit | None) -> pl.Series:
    """Text with a fraction or an exponent, or with more than 18 digits."""
    column = pl.col("x")
    fraction = pl.when(column.str.contains(FLOAT)).then(column).cast(pl.Float64)
    # More than 18 digits are plausible only as nanoseconds; the last six are less than a millisecond.
    long = pl.when(column.str.contains(_LONG) & pl.lit(unit in (None, "ns"))).then(column)
    below = long.str.starts_with("-") & (long.str.tail(6) != "000000")
    whole = long.str.head(-6).cast(pl.Int64) - below.cast(pl.Int64)
    return text.to_frame("x").select(pl.coalesce(whole, _of_float(fraction, unit))).to_series()


def _units_of_text(column: pl.Series) -> pl.Series:
    text = column.str.strip_chars(" ")
    fits, number = text.str.contains(_FITS), text.str.contains(NUMBER)
    if not number.any():
        return pl.Series(pl.repeat(None, len(text), dtype=pl.UInt8, eager=True))
    frame = pl.DataFrame({"fits": fits, "number": number, "text": text})
    short = pl.when("fits").then("text").cast(pl.Int64)
    long = pl.when(pl.col("number") & ~pl.col("fits")).then("text").cast(pl.Float64)
    return frame.select(pl.coalesce(_unit(short), _unit(long))).to_series()


def _of_iso(text: pl.Series, _unit: TimeUnit | None) -> pl.Series:
    groups = text.str.extract_groups(ISO).struct.unnest()

    def part(name: str) -> pl.Expr:
        return pl.col(str(_ISO_AT[name]))

    def number(name: str) -> pl.Expr:
        return part(name).cast(pl.Int64)

    year, month, day = number("year"), number("month"), number("day")
    hour, minute, second = (number(name).fill_null(0) for name in ("hour", "minute", "second"))
    leap = ((year % 4 == 0) & (year % 100 != 0)) | (year % 400 == 0)
    longest = pl.when(month == 2).then(28 + leap.cast(pl.Int64)).when(month.is_in([4, 6, 9, 11])).then(30).otherwise(31)
    valid = (year >= 1) & month.is_between(1, 12) & (day >= 1) & (day <= longest)
    valid &= (hour <= 23) & (minute <= 59) & (second <= 59)
    seconds = (_days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second
    fraction = (part("fraction").fill_null("") + "000").str.head(3).cast(pl.Int64)
    ms = pl.when(valid).then(seconds * 1000 + fraction - _zone(part("zone")))
    return groups.select(ms).to_series()


def _days(year: pl.Expr, month: pl.Expr, day: pl.Expr) -> pl.Expr:
    """Days from 1970-01-01 in the Gregorian calendar. Years begin in March, so that a leap day is the last one."""
    of_march = year - (month <= 2).cast(pl.Int64)
    era = of_march // 400
    of_era = of_march - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _zone(zone: pl.Expr) -> pl.Expr:
    """The offset of a zone from UTC, in milliseconds."""
    digits = zone.str.replace(":", "", literal=True).str.slice(1)
    hours = digits.str.head(2).cast(pl.Int64, strict=False)
    minutes = pl.when(digits.str.len_bytes() == 4).then(digits.str.tail(2)).cast(pl.Int64, strict=False).fill_null(0)
    offset = (hours * 60 + minutes) * 60_000
    return (
        pl.when(zone.str.contains("^[+-]"))
        .then(pl.when(zone.str.starts_with("-")).then(-offset).otherwise(offset))
        .otherwise(0)
    )
