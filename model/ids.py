"""What an id is: one rule for users and items, in logs, on topics, in catalogues and in commands.

An id is text of 1 to 255 bytes in UTF-8 without control characters, or an integer in [-2**63, 2**64). An integer and
its decimal text are the same id: 7 is "7". "007" is another id. Nothing else is an id: no truth value, no float, not
even 7.0. Control characters are a sign of something else than text: a binary number, or a line that was cut badly.
"""

import re
from typing import Final, Literal, TypeAlias

from model.values import in_words

Id: TypeAlias = int | str

IdType: TypeAlias = Literal["text", "integer"]
"""What a user says of the ids in a file that cannot say it. `integer` reads "007" as 7; `text` takes each as text."""

MAX_ID_BYTES: Final = 255
LOWEST: Final = -(1 << 63)
HIGHEST: Final = (1 << 64) - 1

CONTROL: Final = bytes(range(0x20)) + b"\x7f"
"""The characters that no id has. They are the same bytes in UTF-8; most binary values have one."""
ANY_CONTROL: Final = r"[\x00-\x1f\x7f]"

DECIMAL: Final = r"^(?:0|-?[1-9][0-9]{0,19})$"
"""The text of an integer as programs write it: no plus sign, no leading zero. The number may still be out of range."""


PADDED: Final = r"^(-?)0*([0-9]{1,20})(?:\.0+)?$"
"""The text of a whole number with leading zeros, or with nothing but zeros after a point."""

MOST_EXACT_FLOAT: Final = 1 << 53
"""Above this, floats leave out integers, so a float does not say which integer it was."""

_PADDED: Final = re.compile(PADDED)
_CONTROL: Final = re.compile(ANY_CONTROL)


def stated(value: object, id_type: IdType) -> Id:
    """An id from a file that cannot say it, as a user says.

    `text`: an integer is its decimal text, and binary is UTF-8. `integer`: the text of a whole number in the range is
    that number, and so is a whole float up to 2**53; other text stays as it is.

    Raises:
        ValueError: it is not an id.
    """
    if id_type == "text":
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise ValueError("is binary that is not UTF-8, expected text or an integer") from error
        return str(checked(value))
    if isinstance(value, float):
        if not (value.is_integer() and abs(value) <= MOST_EXACT_FLOAT):
            raise ValueError("is a float that is not a whole number up to 2**53")
        return int(value)
    if isinstance(value, str) and (found := _PADDED.fullmatch(value)):
        number = int(found[1] + found[2])
        if LOWEST <= number <= HIGHEST:
            return number
    return checked(value)


def checked(value: object) -> Id:
    """Return an id as it is.

    Raises:
        ValueError: it is not an id. The message says what was found and what was expected, without repeating the value.
    """
    if isinstance(value, str):
        if not value:
            raise ValueError("is empty, expected text or an integer")
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise ValueError("is text that UTF-8 does not have (a lone surrogate)") from error
        if size > MAX_ID_BYTES:
            raise ValueError(f"has {size} bytes, expected at most {MAX_ID_BYTES}")
        if _CONTROL.search(value):
            raise ValueError("has control characters, expected text without them, or an integer")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if not LOWEST <= value <= HIGHEST:
            raise ValueError(f"is an integer of {value.bit_length()} bits, expected -2**63 to 2**64 - 1, or text")
        return value
    raise ValueError(f"is {in_words(value)}, expected text or an integer")
