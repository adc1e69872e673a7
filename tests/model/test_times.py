"""What is a time, and what is not."""

import re
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.times import EARLIEST_MS, LATEST_MS, PER_S, TimeRule, TimeUnit, Unit, epoch_ms, recognised, time_range

NOON = 1_704_110_400_000  # 2024-01-01T12:00:00Z


@given(st.integers(EARLIEST_MS, LATEST_MS - 1), st.sampled_from(sorted(PER_S)))
def test_a_plausible_time_is_the_same_in_every_unit(ms: int, unit: Unit) -> None:
    number = ms * PER_S[unit] // 1000

    assert recognised(number) == unit
    assert TimeRule().milliseconds(number) == number * 1000 // PER_S[unit]
    assert TimeRule(unit).milliseconds(number) == TimeRule().milliseconds(number)
    assert TimeRule().milliseconds(str(number)) == TimeRule().milliseconds(number)


@given(st.integers(EARLIEST_MS, LATEST_MS - 1))
def test_fractions_of_a_second_count_to_the_nearest_millisecond(ms: int) -> None:
    assert TimeRule().milliseconds(ms / 1000) == ms
    assert TimeRule().milliseconds(float(ms)) == ms


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T12:00:00Z",
        "2024-01-01 12:00:00",
        "2024-01-01 12:00",
        "2024-01-01T12:00:00.000999999+00:00",
        "2024-01-01T12:00:00,0Z",
        "2024-01-01 12:00:00 UTC",
        " 2024-01-01T14:00:00+02:00 ",
        "2024-01-01T14:00:00+0200",
        "2024-01-01T14:00:00+02",
        "2024-01-01T06:30:00-05:30",
        "1704110400",
        "1704110400.0",
        "1.7041104E9",
        "1.704110400000e+12",
        "17041104e2",
        "1704110400000",
    ],
)
def test_text_is_a_number_or_iso_8601(text: str) -> None:
    assert TimeRule().milliseconds(text) == NOON


@given(
    st.datetimes(datetime(1990, 1, 2), datetime(2099, 12, 30)),  # noqa: DTZ001  the zone is added
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    st.sampled_from(["T", " "]),
)
def test_a_date_and_time_is_its_iso_text(when: datetime, zone: timezone, separator: str) -> None:
    aware = when.replace(tzinfo=zone)

    assert TimeRule().milliseconds(aware.isoformat(separator)) == TimeRule().milliseconds(aware) == epoch_ms(aware)
    assert TimeRule().milliseconds(when.isoformat(separator)) == epoch_ms(when.replace(tzinfo=UTC))
    assert TimeRule().milliseconds(when.date()) == TimeRule().milliseconds(when.date().isoformat())


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        5,
        10**8,
        10**20,
        -1_704_110_400,
        1.0,
        float("nan"),
        float("inf"),
        "0",
        "1969-12-31",
        date(1970, 1, 1),
        2**70,
        1e308,
    ],
)
def test_a_time_that_is_not_plausible_is_none(value: object) -> None:
    assert TimeRule().milliseconds(value) is None


def test_a_float_whose_milliseconds_are_infinite_is_not_plausible() -> None:
    assert TimeRule("s").milliseconds(1e308) is None


@given(st.integers(-(10**13), 10**14), st.sampled_from([None, *PER_S, "iso"]))
def test_a_time_is_written_as_it_is_read(ms: int, unit: TimeUnit | None) -> None:
    rule = TimeRule(unit, earliest_ms=-(10**15), latest_ms=10**15)
    assert rule.milliseconds(rule.written(ms)) == ms


def test_a_plausible_time_is_written_as_a_number() -> None:
    assert [TimeRule(unit).written(NOON) for unit in (None, "s", "ms", "us")] == [NOON, NOON // 1000, NOON, NOON * 1000]
    assert TimeRule("s").written(NOON + 1) == (NOON + 1) / 1000
    assert TimeRule().written(1) == "1970-01-01T00:00:00.001000+00:00"


def test_the_plausible_range_and_the_unit_can_be_stated() -> None:
    assert TimeRule("s", earliest_ms=0).milliseconds(5) == 5000
    assert TimeRule("ms", earliest_ms=0).milliseconds(5) == 5
    assert TimeRule("ms").milliseconds(1_704_110_400) is None
    assert TimeRule(earliest_ms=NOON).milliseconds(NOON) == NOON
    assert TimeRule(latest_ms=NOON).milliseconds(NOON) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "is true or false"),
        (None, "is null"),
        ({}, "is a map"),
        ("", "neither a number nor ISO 8601"),
        ("yesterday", "neither a number nor ISO 8601"),
        ("1704110400\n", "neither a number nor ISO 8601"),
        ("2024-01-01\n", "neither a number nor ISO 8601"),
        ("01/02/2024", "neither a number nor ISO 8601"),
        ("2024-02-30", "is not a date of the calendar"),
        ("2024-01-01T25:00:00Z", "is not a date of the calendar"),
    ],
)
def test_what_is_not_a_time_is_refused_with_what_was_found(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        TimeRule().milliseconds(value)


@pytest.mark.parametrize("value", [NOON, NOON // 1000, float(NOON), str(NOON), "1.7e9"])
def test_no_number_is_a_time_if_times_are_iso_8601(value: object) -> None:
    with pytest.raises(ValueError, match="is a number, expected ISO 8601 text"):
        TimeRule("iso").milliseconds(value)
    assert TimeRule("iso").milliseconds("2024-01-01T12:00:00Z") == NOON


def test_a_range_of_plausible_times_is_two_dates() -> None:
    assert time_range("1990-01-01..2100-01-01") == (EARLIEST_MS, LATEST_MS)
    assert time_range("1960-06-01 .. 2024-01-01T14:00:00+02:00") == (-302_486_400_000, NOON)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "2024-01-01",
        "2024-01-01..",
        "2024-01-01-2025-01-01",
        "5..6",
        "a..b",
        "2024-01-01...2025-01-01",
        "x" * 999,
    ],
)
def test_what_is_not_a_range_of_times_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected FROM\.\.UNTIL") as refused:
        time_range(text)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("text", ["2024-01-01..2024-01-01", "2025-01-01..2024-01-01"])
def test_a_range_of_times_ends_after_its_beginning(text: str) -> None:
    with pytest.raises(ValueError, match="UNTIL must be later than FROM"):
        time_range(text)


def test_a_range_of_times_has_dates_of_the_calendar() -> None:
    with pytest.raises(ValueError, match="is not a date of the calendar"):
        time_range("2024-02-30..2025-01-01")
