"""What an input record says, read without the worker's own code: the oracle must not share its mistakes."""

import json
from typing import Final, NamedTuple

import msgpack

_FROM_MS: Final = 631_152_000_000
_UNTIL_MS: Final = 4_102_444_800_000
"""Plausible times: the years 1990 to 2099."""

_LONGEST_ID = 255
_MAPS = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_JSON = frozenset(b"{ \t\r\n")


class Said(NamedTuple):
    """One interaction: the item as text, and when it happened, epoch ms."""

    item: str
    time: int


def user_of(key: bytes | None) -> str | None:
    """The user id of a record's key; None when it cannot be one."""
    if not key or len(key) > _LONGEST_ID:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def said(value: bytes, timestamp: int) -> Said | None:
    """The interaction of a record's value; None when it is malformed."""
    try:
        if value[:1] and value[0] in _MAPS:
            found = msgpack.unpackb(value)
        elif value[:1] and value[0] in _JSON:
            found = json.loads(value)
        else:
            return None
    except (ValueError, RecursionError):  # what msgpack and json raise is one, or derived from one
        return None
    if not isinstance(found, dict):
        return None
    item, time = found.get("item"), found.get("ts")
    if isinstance(item, bool) or not isinstance(item, int | str) or not 0 < len(str(item).encode()) <= _LONGEST_ID:
        return None
    if isinstance(time, bool) or not (time is None or isinstance(time, int)):
        return None  # `tests.crash.source` sends no text and no fraction
    plausible = (ms for ms in _readings(time) if _FROM_MS <= ms < _UNTIL_MS)
    return Said(str(item), next(plausible, timestamp))


def _readings(time: int | None) -> list[int]:
    """What a number can mean: seconds, milliseconds, microseconds, nanoseconds."""
    return [] if time is None else [time * 1000, time, time // 1000, time // 1_000_000]
