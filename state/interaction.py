"""The identity of an item, independent of any model.

Items come as integers or text. State keeps a 64-bit key for each, so that a model with another catalogue can read the
same history.
"""

from hashlib import blake2b
from typing import Final

NAMED: Final = 1 << 62
"""A key below this is the integer itself. A key from here on is a hash; the text of the item is stored beside it."""

MAX_ID_BYTES: Final = 255
"""The longest user or item id, in UTF-8 bytes: a user's length is one byte of every key."""


def item_key(item: int | str) -> int:
    """The 64-bit key of an item, in [0, 2**63).

    An integer in [0, 2**62) is its own key, and so is text that spells one in decimal without leading zeros: producers
    that write `7` and `"7"` mean the same item. Anything else is hashed (blake2b, 62 bits: with a million distinct
    texts the chance of any collision is 1e-7).
    """
    if isinstance(item, int):
        if 0 <= item < NAMED:
            return item
        text = str(item)
    else:
        text = item
        if (
            text.isascii()
            and text.isdigit()
            and (len(text) == 1 or text[0] != "0")
            and len(text) < 20
            and (number := int(text)) < NAMED
        ):
            return number
    return NAMED | int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 2
