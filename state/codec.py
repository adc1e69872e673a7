"""The bytes of state: keys and values, the same in RocksDB and in the changelog.

    key                          value, after one byte of format number
    user ∥ 1                     preference: memory format, segment length, folds, as_of, float32[C·d]
    user ∥ 2 ∥ position          working: segment, item keys, times (first, then differences)
    user ∥ 3 ∥ segment           folded: item keys
    0 ∥ "n" ∥ item key           name: the text of a hashed item id
    0 ∥ "o"                      offset: how far into the changelog the store reaches (RocksDB only)

`user` is one length byte and the id's UTF-8, so no user's keys are a prefix of another's; ids are never empty, which leaves 0 for what
belongs to the partition. Values are MessagePack. Every format ever written stays readable: `tests/state/golden` holds bytes of each.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import sub
from typing import Final

import msgspec

from state.errors import StateCorrupted, StateFormatUnknown
from state.user import NEW_USER, Preference, User, packed

FORMAT: Final = 1
_FORMAT: Final = bytes([FORMAT])

PREFERENCE: Final = b"\x01"
WORKING: Final = b"\x02"
FOLDED: Final = b"\x03"
_NAME: Final = b"\x00n"
OFFSET: Final = b"\x00o"

MAX_SEGMENT_LENGTH: Final = 1 << 16
"""A position is two bytes."""

_encode = msgspec.msgpack.Encoder().encode
_decode_preference = msgspec.msgpack.Decoder(tuple[str, int, int, int, bytes]).decode
_decode_working = msgspec.msgpack.Decoder(tuple[int, list[int], list[int]]).decode
_decode_folded = msgspec.msgpack.Decoder(list[int]).decode
_decode_name = msgspec.msgpack.Decoder(str).decode
_decode_offset = msgspec.msgpack.Decoder(int).decode


_LENGTHS: Final = tuple(bytes((length,)) for length in range(256))
_POSITIONS: Final = tuple(WORKING + position.to_bytes(2, "big") for position in range(MAX_SEGMENT_LENGTH))


def user_prefix(user: bytes) -> bytes:
    """What all keys of a user start with. `user` has 1 to 255 bytes."""
    return _LENGTHS[len(user)] + user


def user_of(key: bytes) -> tuple[bytes, bytes]:
    """The user's id and the rest of a key; the id is empty for a partition's own records."""
    end = 1 + key[0]
    return key[1:end], key[end:]


def preference_key(prefix: bytes) -> bytes:
    return prefix + PREFERENCE


def working_key(prefix: bytes, position: int) -> bytes:
    return prefix + _POSITIONS[position]


def folded_key(prefix: bytes, segment: int) -> bytes:
    return prefix + FOLDED + segment.to_bytes(4, "big")


def name_key(item: int) -> bytes:
    return _NAME + item.to_bytes(8, "big")


def preference_value(preference: Preference) -> bytes:
    return _FORMAT + _encode(msgspec.structs.astuple(preference))


def working_value(segment: int, items: Sequence[int], times: Sequence[int]) -> bytes:
    """The items that one step took, tagged with the number of the segment that they belong to."""
    if len(times) > 1:
        # Differences are small where absolute times are nine bytes each.
        times = [times[0], *map(sub, times[1:], times)]
    return _FORMAT + _encode((segment, items, times))


def folded_value(items: Sequence[int]) -> bytes:
    return _FORMAT + _encode(items)


def name_value(text: str) -> bytes:
    return _FORMAT + _encode(text)


def offset_value(offset: int) -> bytes:
    return _FORMAT + _encode(offset)


_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


def _body(value: bytes) -> memoryview:
    """A value after its format number."""
    if not value:
        raise StateCorrupted("a state record is empty; expected a format number and a MessagePack value")
    if value[0] != FORMAT:
        raise StateFormatUnknown(f"a state record has format {value[0]}; this build reads up to {FORMAT}: a newer rec2pm wrote it")
    return memoryview(value)[1:]


def read_preference(value: bytes) -> Preference:
    try:
        return Preference(*_decode_preference(_body(value)))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a preference record cannot be read: {error}") from error


def read_working(value: bytes) -> tuple[int, list[int], list[int]]:
    """Segment number, item keys, times."""
    try:
        segment, items, times = _decode_working(_body(value))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a working record cannot be read: {error}") from error
    if len(items) != len(times):
        raise StateCorrupted(f"a working record has {len(items)} items and {len(times)} times")
    return segment, items, list(accumulate(times))


def read_folded(value: bytes) -> list[int]:
    try:
        return _decode_folded(_body(value))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a folded segment cannot be read: {error}") from error


def read_name(value: bytes) -> str:
    try:
        return _decode_name(_body(value))
    except _UNREADABLE as error:
        raise StateCorrupted(f"an item's name cannot be read: {error}") from error


def read_offset(value: bytes) -> int:
    try:
        return _decode_offset(_body(value))
    except _UNREADABLE as error:
        raise StateCorrupted(f"the changelog offset cannot be read: {error}") from error


def named_item(rest: bytes) -> int | None:
    """The item key of a name record, of the rest of its key (see `user_of`); None for another of the partition's records."""
    return int.from_bytes(rest[1:], "big") if rest[:1] == b"n" else None


def read_user(records: Iterable[tuple[bytes, bytes]]) -> User:
    """A user's state from its preference and working records, in key order: (the key after the user's prefix, value).

    Working records of an older segment are what a fold left behind; they are passed over by their tag.
    """
    preference: Preference | None = None
    folds = 0
    items: list[int] = []
    times: list[int] = []
    positions: list[int] = []
    for rest, value in records:
        if rest[:1] == PREFERENCE:
            preference = read_preference(value)
            folds = preference.folds
            continue
        position = int.from_bytes(rest[1:], "big")
        positions.append(position)
        segment, new_items, new_times = read_working(value)
        if segment > folds:
            raise StateCorrupted(f"a working record belongs to segment {segment}, but only {folds} segments are folded")
        if segment < folds:
            continue
        if position != len(items):
            raise StateCorrupted(f"a working record starts at {position}, but {len(items)} items come before it")
        items += new_items
        times += new_times
    if not positions and preference is None:
        return NEW_USER
    try:
        return User(folds, packed(items), packed(times), tuple(positions), preference)
    except OverflowError as error:
        raise StateCorrupted(f"a working record holds a number of more than 64 bits: {error}") from error
