"""What a value of a log or an event is, in words for messages."""

from datetime import date, datetime
from decimal import Decimal
from typing import Final

_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "true or false",
    int: "an integer",
    float: "a float",
    Decimal: "a decimal number",
    str: "text",
    bytes: "binary",
    list: "a list",
    dict: "a map",
    datetime: "a date and time",
    date: "a date",
}


def in_words(value: object) -> str:
    """The kind of a value, with its article."""
    return _KINDS.get(type(value), f"a value of the kind {type(value).__name__}")
