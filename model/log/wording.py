"""Paths and values of a log as messages show them: short, and without control characters."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final

_LONGEST_VALUE: Final = 60
_LONGEST_PATH: Final = 200
_LONGEST_LIST: Final = 300


def shown(value: object) -> str:
    """A value, quoted if it is text."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str | bytes):
        return repr(value[:_LONGEST_VALUE]) + ("…" if len(value) > _LONGEST_VALUE else "")
    if isinstance(value, int | float | date | Decimal) or value is None:
        return str(value)
    return type(value).__name__


def shown_path(path: str | Path) -> str:
    """A path as it is if a terminal can show it; otherwise, quoted."""
    text = str(path)
    short = text if len(text) <= _LONGEST_PATH else "…" + text[-_LONGEST_PATH:]
    return short if short.isprintable() else repr(short)


def listed(names: list[str]) -> str:
    """Names one after another; the first of them if there are many."""
    found = ""
    for number, name in enumerate(names):
        part = name if name.isprintable() and len(name) <= _LONGEST_VALUE else shown(name)
        if len(found) + len(part) > _LONGEST_LIST:
            return f"{found}, … ({len(names) - number} more)"
        found += f", {part}" if found else part
    return found
