"""What a time is: one rule for logs and topics. A time is epoch milliseconds inside the program.

A number may be in seconds, milliseconds, microseconds or nanoseconds. Its size says which, because a plausible time has
another number of digits in each. Text is a number or ISO 8601; without a zone it is UTC.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, TypeAlias

from model.values import in_words

Unit: TypeAlias = Literal["s", "ms", "us", "ns"]

TimeUnit: TypeAlias = Unit | Literal["iso"]
"""What a user says of times: the unit of numbers, or that no time is a number."""

UNIT_NAMES: Final[dict[Unit, str]] = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

PER_S: Final[dict[Unit, int]] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

BELOW: Final[tuple[tuple[Unit, int], ...]] = (("s", 10**11), ("ms", 10**14), ("us", 10**17))
"""The unit of a number whose unit nobody stated, by its absolute value; from 10**17 on it is nanoseconds.

In each unit, the numbers from one bound to the next are the times from March 1973 to the year 5138.
"""

ISO: Final = (
    r"^([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?(?: ?(Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?))?)?$"
)
"""Year, month, day, and then, if there are any: hour, minute, second, fraction, zone."""

NUMBER: Final = r"^-?[0-9]{1,20}(?:\.[0-9]{1,9}|(?:\.[0-9]{1,18})?[eE][+-]?[0-9]{1,2})?$"
"""Digits, or with a fraction or an exponent: `1.7040672E9`, as Java and spreadsheets write floats."""

FLOAT: Final = r"[.eE]"
"""What makes the text of a number that of a float."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_ISO: Final = re.compile(ISO)
_NUMBER: Final = re.compile(NUMBER)
_FLOAT: Final = re.compile(FLOAT)


def epoch_ms(when: datetime) -> int:
    """A date and time as epoch milliseconds, rounded down; without a zone it is UTC."""
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH) // _MS


EARLIEST_MS: Final = epoch_ms(datetime(1990, 1, 1, tzinfo=UTC))
LATEST_MS: Final = epoch_ms(datetime(2100, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class TimeRule:
    """How the times of a log or a topic are read."""

    unit: TimeUnit | None = None
    """The unit of every number; None: the size of each number says which. `iso`: a number is no time."""
    earliest_ms: int = EARLIEST_MS
    latest_ms: int = LATEST_MS
    """Plausible times are from `earliest_ms` until before `latest_ms`."""

    def milliseconds(self, value: object) -> int | None:
        """A time as epoch milliseconds, rounded down (a fraction of a float to the nearest).

        Returns:
            None if the time is not plausible.

        Raises:
            ValueError: it is not a time. The message says what was found and what was expected.
        """
        ms = self.read(value)
        return ms if ms is not None and self.earliest_ms <= ms < self.latest_ms else None

    def read(self, value: object) -> int | None:
        """A time as `milliseconds` reads it, plausible or not. None: a float that is not a number, or infinite.

        Raises:
            ValueError: it is not a time.
        """
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number(value)
        if isinstance(value, datetime):
            return epoch_ms(value)
        if isinstance(value, date):
            return epoch_ms(datetime(value.year, value.month, value.day, tzinfo=UTC))
        raise ValueError(f"is {in_words(value)}, expected a number or ISO 8601 text")

    def _number(self, value: float) -> int | None:
        if self.unit == "iso":
            raise ValueError("is a number, expected ISO 8601 text: the unit of time is stated as iso")
        if isinstance(value, float) and not math.isfinite(value):
            return None
        unit = self.unit or recognised(value)
        if isinstance(value, int):
            return value * 1000 // PER_S[unit]
        ms = value * (1000 / PER_S[unit])
        return math.floor(ms + 0.5) if math.isfinite(ms) else None

    def written(self, ms: int) -> int | float | str:
        """A time as a value that this rule reads as the same millisecond: a number in the stated unit, else in
        milliseconds; ISO 8601 text where a number would be taken for another unit.
        """
        number: int | float = ms
        if self.unit == "iso":
            return (_EPOCH + ms * _MS).isoformat()
        if self.unit is not None:
            number = ms * PER_S[self.unit] // 1000 if self.unit != "s" or ms % 1000 == 0 else ms / 1000
        if self.read(number) == ms:
            return number
        return (_EPOCH + ms * _MS).isoformat()

    def _text(self, value: str) -> int | None:
        text = value.strip(" ")
        if _NUMBER.fullmatch(text):
            return self._number(float(text) if _FLOAT.search(text) else int(text))
        if (found := _ISO.fullmatch(text)) is None:
            raise ValueError("is text that is neither a number nor ISO 8601")
        year, month, day, hour, minute, second, fraction, zone = found.groups(default="")
        try:
            when = datetime(
                int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
            )
        except ValueError as error:
            raise ValueError(f"is not a date of the calendar ({error})") from error
        return epoch_ms(when) + int((fraction + "000")[:3]) - _zone_ms(zone)


def time_range(text: str) -> tuple[int, int]:
    """The plausible times that a text `FROM..UNTIL` states, as epoch milliseconds.

    Args:
        text: two ISO 8601 dates, or dates and times, with two dots between them: `2015-01-01..2030-01-01`. Times from
            FROM on and before UNTIL are plausible.

    Raises:
        ValueError: it is not such a text, or UNTIL is not after FROM.
    """
    bounds = [part.strip(" ") for part in text.split("..")]
    if len(bounds) != 2 or not all(_ISO.fullmatch(bound) for bound in bounds):
        raise ValueError(f"is {_short(text)}, expected FROM..UNTIL with ISO 8601 dates, such as 1990-01-01..2100-01-01")
    rule = TimeRule()
    earliest, latest = (rule.read(bound) for bound in bounds)
    if earliest is None or latest is None or earliest >= latest:
        raise ValueError(f"is {_short(text)}: UNTIL must be later than FROM")
    return earliest, latest


def recognised(number: float) -> Unit:
    """The unit of a number whose unit nobody stated."""
    size = abs(number)
    return next((unit for unit, bound in BELOW if size < bound), "ns")


def _zone_ms(zone: str) -> int:
    """The offset of a zone from UTC."""
    if zone in ("", "Z", "UTC"):
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = (int(digits[:2]) * 60 + int(digits[2:])) * 60_000
    return -offset if zone[0] == "-" else offset


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
