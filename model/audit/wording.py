"""Times, durations and shares as findings show them."""

from datetime import UTC, datetime, timedelta
from typing import Final

DAY_MS: Final = 86_400_000


def percent(part: int, whole: int) -> str:
    """A share. It is 0 % or 100 % only if it is exactly that."""
    value = part / whole if whole else 0.0
    if part and value < 0.0005:
        return "<0.1%"
    if part < whole and value >= 0.9995:
        return ">99.9%"
    return f"{value:.1%}" if 0 < part < whole else f"{value:.0%}"


def moment(ms: int) -> str:
    """A time in UTC, to the minute."""
    when = _when(ms)
    return f"{ms} ms" if when is None else when.strftime("%Y-%m-%d %H:%M")


def day(number: int) -> str:
    """A day, counted from 1970."""
    when = _when(number * DAY_MS)
    return f"day {number}" if when is None else when.strftime("%Y-%m-%d")


def duration(ms: float) -> str:
    for unit, size in (("days", DAY_MS), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if ms >= 2 * size:
            return f"{ms / size:.0f} {unit}"
    return f"{ms:.0f} ms"


def _when(ms: int) -> datetime | None:
    """None: beyond the years of the calendar."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    except OverflowError:
        return None
