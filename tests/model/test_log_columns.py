"""The expressions for columns of ids and times equal the rules of model.ids and model.times, value by value."""

import re
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.ids import HIGHEST, LOWEST, Id, IdType
from model.log.id_column import as_id, as_ids, is_decimal
from model.log.time_column import UNITS, as_milliseconds, units
from model.times import FLOAT, NUMBER, PER_S, TimeRule, Unit, recognised

without_deadline = settings(deadline=None)
"""The first expression of a kind takes long."""

ANY_TIME = TimeRule(earliest_ms=-(10**14), latest_ms=3 * 10**14)
RULES = st.sampled_from(
    [
        TimeRule(),
        *(TimeRule(unit) for unit in (*PER_S, "iso")),
        ANY_TIME,
        TimeRule("iso", -(10**14), 3 * 10**14),
        TimeRule("ns", -(10**14), 3 * 10**14),
        TimeRule("s", 0),
    ]
)
ID_TYPES = st.sampled_from([None, "text", "integer"])
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
EDGES = st.sampled_from([bound + by for bound in (10**11, 10**14, 10**17, 10**18, 0) for by in (-1, 0, 1)])
NUMBERS = INT64 | EDGES | EDGES.map(lambda edge: -edge) | st.integers(-(10**13), 10**13)
ISO_TEXT = st.from_regex(
    r"\A[0-2][0-9]{3}-[01][0-9]-[0-3][0-9](?:[T ][0-2][0-9]:[0-5][0-9](?::[0-6][0-9](?:[.,][0-9]{1,10})?)?"
    r"(?: ?(Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?))?)?\Z"
)
EXPONENTS = st.from_regex(r"\A-?[0-9]{1,3}(?:\.[0-9]{1,19})?[eE][+-]?[0-9]{1,3}\Z")
DECIMALS = EXPONENTS | st.from_regex(r"\A-?[0-9]{1,21}(?:\.[0-9]{1,10})?\Z")
TEXTS = (
    DECIMALS
    | ISO_TEXT
    | NUMBERS.map(str)
    | st.text(max_size=12)
    | st.tuples(DECIMALS | ISO_TEXT, st.sampled_from([" ", "\n", "\t", "x"])).map("".join)
)


def _ms(value: object, rule: TimeRule) -> int | None:
    try:
        return None if value is None else rule.milliseconds(value)
    except ValueError:
        return None


def _id(value: Any, id_type: IdType | None) -> Id | None:
    try:
        return None if value is None else as_id(value, id_type)
    except ValueError:
        return None


def _column(values: list[Any], dtype: Any) -> tuple[pl.DataFrame, pl.DataType]:
    frame = pl.DataFrame({"x": pl.Series(values, dtype=dtype, strict=False)})
    return frame, frame.schema["x"]


def _times_equal(values: list[Any], dtype: Any, rule: TimeRule) -> None:
    frame, kind = _column(values, dtype)
    found = frame.select(as_milliseconds(pl.col("x"), kind, rule)).to_series()
    assert found.to_list() == [_ms(value, rule) for value in frame["x"].to_list()]
    assert found.dtype == pl.Int64


@without_deadline
@given(st.lists(NUMBERS | st.none(), max_size=20), RULES)
def test_integers_are_the_times_that_the_rule_says(values: list[int | None], rule: TimeRule) -> None:
    _times_equal(values, pl.Int64, rule)


@without_deadline
@given(st.lists(st.integers(0, HIGHEST), max_size=20), RULES)
def test_integers_without_a_sign_are_the_times_that_the_rule_says(values: list[int], rule: TimeRule) -> None:
    _times_equal(values, pl.UInt64, rule)


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32])
@without_deadline
@given(st.lists(st.floats() | NUMBERS.map(float) | st.floats(1e8, 5e9), max_size=20), RULES)
def test_floats_are_the_times_that_the_rule_says(dtype: Any, values: list[float], rule: TimeRule) -> None:
    frame, kind = _column(values, dtype)
    found = frame.select(as_milliseconds(pl.col("x"), kind, rule)).to_series().to_list()
    assert found == [_ms(value, rule) for value in frame["x"].to_list()]


@without_deadline
@given(st.lists(TEXTS, min_size=1, max_size=20), RULES)
@example(["1.7040672e9", "1.704067E+12", "1.704067200123E12", "-9.9e99", "1e", "e9", "1.7e-3", "1.e9"], TimeRule())
@example(["2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "0000-01-01", "0001-01-01"], ANY_TIME)
@example(["18446744073709551616", "-9223372036854775809", "-1000000000000000001", "99999999999999999999"], ANY_TIME)
@example(
    ["2024-01-01T00:00:00+02:00", "2024-01-01T00:00:00-0230", "2024-01-01T00:00:00 UTC", "2024-01-01 00:00Z"],
    TimeRule(),
)
def test_texts_are_the_times_that_the_rule_says(values: list[str], rule: TimeRule) -> None:
    _times_equal(values, pl.String, rule)
    _times_equal(values, pl.Categorical, rule)


@without_deadline
@given(st.lists(st.dates(), max_size=9), RULES)
def test_dates_are_the_times_that_the_rule_says(values: list[date], rule: TimeRule) -> None:
    _times_equal(values, pl.Date, rule)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@without_deadline
@given(
    st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), max_size=9),  # noqa: DTZ001  zones are added
    st.sampled_from([TimeRule(), ANY_TIME]),
)
def test_dates_and_times_are_the_times_that_the_rule_says(
    unit: Any, zone: str | None, values: list[datetime], rule: TimeRule
) -> None:
    if zone is not None:
        values = [value.replace(tzinfo=UTC) for value in values]
    _times_equal(values, pl.Datetime(unit, zone), rule)


@without_deadline
@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_each_number_has_the_unit_that_the_rule_says(values: list[int]) -> None:
    for dtype in (pl.Int64, pl.Float64):
        frame, kind = _column(values, dtype)
        found = frame.select(units(pl.col("x"), kind)).to_series().to_list()
        assert [UNITS[index] for index in found] == [recognised(value) for value in frame["x"].to_list()]


@without_deadline
@given(st.lists(TEXTS | st.none(), min_size=1, max_size=20))
def test_each_number_in_text_has_the_unit_that_the_rule_says(values: list[str | None]) -> None:
    frame, kind = _column(values, pl.String)
    found = frame.select(units(pl.col("x"), kind)).to_series().to_list()
    assert [None if index is None else UNITS[index] for index in found] == [_unit(value) for value in values]


def _unit(value: str | None) -> Unit | None:
    text = (value or "").strip(" ")
    if not re.fullmatch(NUMBER, text):
        return None
    return recognised(float(text) if re.search(FLOAT, text) or len(text) > 18 else int(text))


IDS = (
    st.text(max_size=6)
    | st.from_regex(r"\A-?0{0,3}[0-9]{0,21}(?:\.0{0,3})?\Z")
    | st.sampled_from(
        ["x" * 255, "x" * 256, "é" * 127, "é" * 128, str(HIGHEST), str(HIGHEST + 1), str(LOWEST - 1), "-0"]
    )
    | INT64.map(str)
    | st.tuples(INT64.map(str), st.sampled_from([" ", "\n", ".0"])).map("".join)
)


@without_deadline
@given(st.lists(IDS | st.none(), max_size=20), ID_TYPES)
def test_texts_are_the_ids_that_the_rule_says(values: list[str | None], id_type: IdType | None) -> None:
    for dtype in (pl.String, pl.Categorical):
        frame, kind = _column(values, dtype)
        found = frame.select(as_ids(pl.col("x"), kind, id_type)).to_series().to_list()
        # An integer and its text are the same id.
        assert found == [None if (expected := _id(value, id_type)) is None else str(expected) for value in values]


@without_deadline
@given(st.lists(IDS, min_size=1, max_size=20))
def test_text_is_an_integer_only_as_programs_write_it_and_in_the_range(values: list[str]) -> None:
    frame = pl.DataFrame({"x": values})
    expected = [_is_canonical(value) for value in values]
    assert frame.select(is_decimal(pl.col("x"))).to_series().to_list() == expected


def _is_canonical(text: str) -> bool:
    try:
        return str(int(text)) == text and LOWEST <= int(text) <= HIGHEST
    except ValueError:
        return False


@pytest.mark.parametrize("dtype", [pl.Int64, pl.UInt64, pl.Int8])
@without_deadline
@given(st.lists(st.integers(0, 127) | st.none(), max_size=20), ID_TYPES)
def test_integers_are_the_ids_that_the_rule_says(dtype: Any, values: list[int | None], id_type: IdType | None) -> None:
    frame, kind = _column(values, dtype)
    found = frame.select(as_ids(pl.col("x"), kind, id_type)).to_series().to_list()
    assert found == [_id(value, id_type) for value in values]


@without_deadline
@given(st.lists(st.floats() | st.integers(-(1 << 54), 1 << 54).map(float), max_size=20), ID_TYPES)
def test_floats_are_the_ids_that_the_rule_says(values: list[float], id_type: IdType | None) -> None:
    frame, kind = _column(values, pl.Float64)
    found = frame.select(as_ids(pl.col("x"), kind, id_type)).to_series().to_list()
    assert found == [_id(value, id_type) for value in values]


@without_deadline
@given(st.lists(st.text(max_size=6).map(str.encode), max_size=20), ID_TYPES)
def test_binary_is_the_id_that_the_rule_says(values: list[bytes], id_type: IdType | None) -> None:
    frame, kind = _column(values, pl.Binary)
    found = frame.select(as_ids(pl.col("x"), kind, id_type)).to_series().to_list()
    assert found == [_id(value, id_type) for value in values]


@pytest.mark.parametrize("dtype", [pl.Boolean, pl.Date, pl.List(pl.Int64), pl.Null])
def test_what_cannot_be_an_id_or_a_time_is_none(dtype: Any) -> None:
    frame, kind = _column([None], dtype)
    for id_type in (None, "text", "integer"):
        assert frame.select(as_ids(pl.col("x"), kind, id_type)).to_series().to_list() == [None]  # type: ignore[arg-type]
    assert frame.select(as_milliseconds(pl.col("x"), kind, TimeRule())).to_series().to_list() == [None]
