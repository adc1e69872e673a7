"""The bytes of state: keys and values, the same in RocksDB and in the changelog.

    key                          value, after one byte of format number
    user ∥ 1 ∥ taken             working: item key, time, item key, time … (the first time, then differences)
    user ∥ 2                     preference: memory format, segment length, folds, as_of, float32[C·d]
    user ∥ 3 ∥ segment           folded: item keys
    0 ∥ "l"                      segment length of all users in the partition
    0 ∥ "p"                      position: the offset of the next input record that this state lacks
    0 ∥ "i"                      input of that position: Kafka's id of the topic
    0 ∥ "n" ∥ item key           name: the text of a hashed item id
    0 ∥ "o"                      offset: the next changelog record to restore (only in RocksDB, as the next two)
    0 ∥ "c"                      changelog that the store is a copy of: Kafka's id of the topic
    0 ∥ "t"                      when the store last was known to be complete, epoch ms

`user` is one length byte and the id's UTF-8, so no user's keys are a prefix of another's. Ids are never empty, so 0
marks the partition's own records. `taken` in a key counts the user's interactions up to the last one in this record. It
is stored as MAX_TAKEN − `taken`, so the newest record of a user comes first, and one key is enough to know `taken`.
Values are MessagePack. Every format ever written stays readable: `tests/state/golden` holds bytes of each.
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

WORKING: Final = b"\x01"
PREFERENCE: Final = b"\x02"
FOLDED: Final = b"\x03"
SEGMENT_LENGTH: Final = b"\x00l"
POSITION: Final = b"\x00p"
INPUT: Final = b"\x00i"
_NAME: Final = b"\x00n"
OFFSET: Final = b"\x00o"
CHANGELOG: Final = b"\x00c"
COMPLETE: Final = b"\x00t"
LOCAL: Final = frozenset({OFFSET, CHANGELOG, COMPLETE})
"""Keys that describe the store, not users. The changelog does not hold them."""

MAX_TAKEN: Final = (1 << 40) - 1
"""The most interactions of one user: what five bytes can count, a thousand a second for 34 years."""
_FIRST_WORKING: Final = (WORKING[0] << 40) + MAX_TAKEN

_encode = msgspec.msgpack.Encoder().encode
_decode_preference = msgspec.msgpack.Decoder(tuple[str, int, int, int, bytes]).decode
_decode_numbers = msgspec.msgpack.Decoder(list[int]).decode
_decode_name = msgspec.msgpack.Decoder(str).decode
_decode_number = msgspec.msgpack.Decoder(int).decode


_LENGTHS: Final = tuple(bytes((length,)) for length in range(256))


def user_prefix(user: bytes) -> bytes:
    """The prefix of all keys of a user. `user` has 1 to 255 bytes."""
    return _LENGTHS[len(user)] + user


def user_of(key: bytes) -> tuple[bytes, bytes]:
    """The user's id and the rest of a key; the id is empty for a partition's own records."""
    end = 1 + key[0]
    return key[1:end], key[end:]


def working_key(user: bytes, taken: int) -> bytes:
    """`taken` is at most MAX_TAKEN."""
    return _LENGTHS[len(user)] + user + (_FIRST_WORKING - taken).to_bytes(6, "big")


def taken_of(rest: bytes) -> int:
    """`taken` of a working record, from the rest of its key (see `user_of`)."""
    return _FIRST_WORKING - int.from_bytes(rest, "big")


def preference_key(user: bytes) -> bytes:
    return user_prefix(user) + PREFERENCE


def folded_key(user: bytes, segment: int) -> bytes:
    return user_prefix(user) + FOLDED + segment.to_bytes(4, "big")


def name_key(item: int) -> bytes:
    return _NAME + item.to_bytes(8, "big")


def preference_value(preference: Preference) -> bytes:
    return _FORMAT + _encode(msgspec.structs.astuple(preference))


def working_value(items: Sequence[int], times: Sequence[int]) -> bytes:
    """The items of a user in one step, and the time of each."""
    if len(items) == 1:
        return _FORMAT + _encode((items[0], times[0]))
    flat = [0] * (2 * len(items))
    flat[::2] = items
    # Differences are small where absolute times are nine bytes each.
    flat[1::2] = [*times[:1], *map(sub, times[1:], times)]
    return _FORMAT + _encode(flat)


def folded_value(items: Sequence[int]) -> bytes:
    return _FORMAT + _encode(items)


def name_value(text: str) -> bytes:
    return _FORMAT + _encode(text)


def number_value(number: int) -> bytes:
    """A changelog offset, or a segment length."""
    return _FORMAT + _encode(number)


_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


def _body(value: bytes) -> memoryview:
    """A value after its format number."""
    if not value:
        raise StateCorrupted("a state record is empty; expected a format number and a MessagePack value")
    if value[0] != FORMAT:
        raise StateFormatUnknown(
            f"a state record has format {value[0]}; this build reads up to {FORMAT}: a newer rec2pm wrote it"
        )
    return memoryview(value)[1:]


def read_preference(value: bytes) -> Preference:
    try:
        return Preference(*_decode_preference(_body(value)))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a preference record cannot be read: {error}") from error


def read_working(value: bytes) -> tuple[list[int], list[int]]:
    """Item keys, and the time of each."""
    try:
        flat = _decode_numbers(_body(value))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a working record cannot be read: {error}") from error
    if len(flat) % 2:
        raise StateCorrupted(f"a working record has {len(flat)} numbers, expected an item and a time in turn")
    return flat[::2], list(accumulate(flat[1::2]))


def read_folded(value: bytes) -> list[int]:
    try:
        return _decode_numbers(_body(value))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a folded segment cannot be read: {error}") from error


def read_name(value: bytes) -> str:
    try:
        return _decode_name(_body(value))
    except _UNREADABLE as error:
        raise StateCorrupted(f"an item's name cannot be read: {error}") from error


def read_number(value: bytes) -> int:
    try:
        return _decode_number(_body(value))
    except _UNREADABLE as error:
        raise StateCorrupted(f"an offset or segment length cannot be read: {error}") from error


def named_item(rest: bytes) -> int | None:
    """The item key of a name record, from the rest of its key (see `user_of`); None for any other record."""
    return int.from_bytes(rest[1:], "big") if rest[:1] == b"n" else None


def read_user(records: Iterable[tuple[bytes, bytes]]) -> User:
    """A user's state from their working and preference records, in key order: (the key after the user's prefix, value).

    Working records of interactions that are already folded are stale leftovers of a fold. They are skipped.
    """
    preference: Preference | None = None
    working: list[tuple[int, bytes]] = []
    for rest, value in records:
        if rest[:1] == WORKING:
            working.append((taken_of(rest), value))
        else:
            preference = read_preference(value)
    folded = 0 if preference is None else preference.folds * preference.segment_length
    if not working:
        if preference is None:
            return NEW_USER
        raise StateCorrupted(f"a preference memory of {folded} interactions is stored without a working record")
    items: list[int] = []
    times: list[int] = []
    reached = folded
    for end, value in reversed(working):
        if end < folded:
            continue
        new_items, new_times = read_working(value)
        if end == folded and not new_items:
            continue
        if end - len(new_items) != reached:
            raise StateCorrupted(
                f"a working record ends at {end} with {len(new_items)} items, but {reached} come before it"
            )
        reached = end
        items += new_items
        times += new_times
    if reached != working[0][0]:
        raise StateCorrupted(
            f"the newest working record ends at {working[0][0]}, but {reached} interactions are folded"
        )
    try:
        return User(reached, packed(items), packed(times), tuple(end for end, _ in working), preference)
    except OverflowError as error:
        raise StateCorrupted(f"a working record holds a number of more than 64 bits: {error}") from error
