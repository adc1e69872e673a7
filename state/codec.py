"""The bytes of state: keys and values, the same in RocksDB and in the changelog.

    key                          value, after one byte of format number
    user ∥ 1 ∥ taken             working: item key, time, item key, time … (the first time, then differences)
    user ∥ 2                     preference: memory format, segment length, folds, as_of, float32[C·d] (, missing)
    user ∥ 2 ∥ 0                 prepared: the same, in a format that has not folded the newest segment
    user ∥ 2 ∥ hash of format    earlier: the same, in a format that folded segments before; the hash has 8 bytes
    user ∥ 3 ∥ segment           folded: item keys; or item key, time, item key, time … as in a working record
    0 ∥ "l"                      segment length of all users in the partition
    0 ∥ "v" ∥ number             mark: model version, promotion, memory format, input offset, epoch ms
    0 ∥ "f"                      format: every user of the partition has a memory in this memory format
    0 ∥ "p"                      position: the offset of the next input record that this state lacks
    0 ∥ "i"                      input of that position: Kafka's id of the topic
    0 ∥ "n" ∥ item key           name: the text of a hashed item id
    0 ∥ "m"                      import: which file's states are being imported; deleted with the last of them
    0 ∥ "o"                      offset: the next changelog record to restore (only in RocksDB, as the next two)
    0 ∥ "c"                      changelog that the store is a copy of: Kafka's id of the topic
    0 ∥ "t"                      when the store last was known to be complete, epoch ms

`user` is one length byte and the id's UTF-8, so no user's keys are a prefix of another's. Ids are never empty, so 0
marks the partition's own records. `taken` in a key counts the user's interactions up to the last one in this record. It
is stored as MAX_TAKEN − `taken`, so the newest record of a user comes first, and one key is enough to know `taken`.
Values are MessagePack. Every format ever written stays readable: `tests/state/golden` holds bytes of each. A value is
written in the first format that can express it, so an earlier build reads what means the same to it.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate
from operator import sub
from typing import Final

import msgspec

from state.errors import StateCorrupted, StateFormatUnknown
from state.user import NEW_USER, Preference, User, packed

FORMAT: Final = 2
_FIRST, _SECOND = b"\x01", b"\x02"

WORKING: Final = b"\x01"
PREFERENCE: Final = b"\x02"
PREPARED: Final = b"\x02\x00"
FOLDED: Final = b"\x03"
SEGMENT_LENGTH: Final = b"\x00l"
POSITION: Final = b"\x00p"
INPUT: Final = b"\x00i"
ONE_FORMAT: Final = b"\x00f"
MARK: Final = b"\x00v"
IMPORT: Final = b"\x00m"
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
_decode_rebuilt = msgspec.msgpack.Decoder(tuple[str, int, int, int, bytes, int]).decode
_decode_mark = msgspec.msgpack.Decoder(tuple[str, str, str, int, int]).decode
_decode_numbers = msgspec.msgpack.Decoder(list[int]).decode
_decode_name = msgspec.msgpack.Decoder(str).decode
_decode_number = msgspec.msgpack.Decoder(int).decode


_LENGTHS: Final = tuple(bytes((length,)) for length in range(256))


class Mark(msgspec.Struct, frozen=True):
    """From an input offset on, a model version served the partition, until the next mark."""

    version: str
    """NAME@VERSION."""
    promotion: str
    """The id of the promotion; empty for a version from the settings."""
    memory_format: str
    """Of the version."""
    offset: int
    """The first record that the version served has this offset or a higher one."""
    at_ms: int
    """When that step was published, by the worker's clock, epoch ms."""


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


def prepared_key(user: bytes) -> bytes:
    return user_prefix(user) + PREPARED


def earlier_key(user: bytes, memory_format: str) -> bytes:
    return user_prefix(user) + PREFERENCE + blake2b(memory_format.encode(), digest_size=8).digest()


def folded_key(user: bytes, segment: int) -> bytes:
    return user_prefix(user) + FOLDED + segment.to_bytes(4, "big")


def name_key(item: int) -> bytes:
    return _NAME + item.to_bytes(8, "big")


def mark_key(number: int) -> bytes:
    """`number`: how many marks of the partition come before this one."""
    return MARK + number.to_bytes(4, "big")


def preference_value(preference: Preference) -> bytes:
    if preference.missing:
        return aside_value(preference)
    return _FIRST + _encode(msgspec.structs.astuple(preference)[:5])


def aside_value(preference: Preference) -> bytes:
    """The value of a prepared or earlier memory. An earlier build would take it for the memory that serves, so it must
    refuse it.
    """
    return _SECOND + _encode(msgspec.structs.astuple(preference))


def working_value(items: Sequence[int], times: Sequence[int]) -> bytes:
    """The items of a user in one step, and the time of each."""
    if len(items) == 1:
        return _FIRST + _encode((items[0], times[0]))
    return _FIRST + _encode(_flat(items, times))


def _flat(items: Sequence[int], times: Sequence[int]) -> list[int]:
    flat = [0] * (2 * len(items))
    flat[::2] = items
    # Differences are small where absolute times are nine bytes each.
    flat[1::2] = [*times[:1], *map(sub, times[1:], times)]
    return flat


def folded_value(items: Sequence[int], times: Sequence[int] = ()) -> bytes:
    """The items of a segment, and the time of each if they are kept."""
    return _SECOND + _encode(_flat(items, times)) if times else _FIRST + _encode(items)


def mark_value(mark: Mark) -> bytes:
    return _SECOND + _encode(msgspec.structs.astuple(mark))


def one_format_value(memory_format: str) -> bytes:
    return _SECOND + _encode(memory_format)


def name_value(text: str) -> bytes:
    return _FIRST + _encode(text)


def import_value(file: str) -> bytes:
    return _SECOND + _encode(file)


def number_value(number: int) -> bytes:
    """A changelog offset, or a segment length."""
    return _FIRST + _encode(number)


_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


def _body(value: bytes, newest: int = 1) -> memoryview:
    """A value after its format number. `newest`: the newest format that values of this kind have."""
    if not value:
        raise StateCorrupted("a state record is empty; expected a format number and a MessagePack value")
    if not 1 <= value[0] <= newest:
        raise StateFormatUnknown(
            f"a state record has format {value[0]}; this build reads up to {newest}: a newer rec2pm wrote it"
        )
    return memoryview(value)[1:]


def read_preference(value: bytes) -> Preference:
    """A preference memory, a prepared one or an earlier one."""
    body = _body(value, FORMAT)
    try:
        return Preference(*(_decode_rebuilt(body) if value[:1] == _SECOND else _decode_preference(body)))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a preference record cannot be read: {error}") from error


def read_working(value: bytes) -> tuple[list[int], list[int]]:
    """Item keys, and the time of each."""
    try:
        flat = _decode_numbers(_body(value))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a working record cannot be read: {error}") from error
    return _unflat(flat, "a working record")


def _unflat(flat: list[int], what: str) -> tuple[list[int], list[int]]:
    if len(flat) % 2:
        raise StateCorrupted(f"{what} has {len(flat)} numbers, expected an item and a time in turn")
    return flat[::2], list(accumulate(flat[1::2]))


def read_folded(value: bytes) -> tuple[list[int], list[int]]:
    """Item keys, and the time of each; no times if they were not kept."""
    try:
        numbers = _decode_numbers(_body(value, FORMAT))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a folded segment cannot be read: {error}") from error
    return _unflat(numbers, "a folded segment") if value[:1] == _SECOND else (numbers, [])


def read_mark(value: bytes) -> Mark:
    try:
        return Mark(*_decode_mark(_body(value, FORMAT)))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a mark cannot be read: {error}") from error


def read_one_format(value: bytes) -> str:
    try:
        return _decode_name(_body(value, FORMAT))
    except _UNREADABLE as error:
        raise StateCorrupted(f"a partition's memory format cannot be read: {error}") from error


def read_import(value: bytes) -> str:
    try:
        return _decode_name(_body(value, FORMAT))
    except _UNREADABLE as error:
        raise StateCorrupted(f"the note of an import cannot be read: {error}") from error


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


def read_memories(records: Iterable[tuple[bytes, bytes]]) -> User:
    """A user's memories, and nothing else, from those records: (the key after the user's prefix, value)."""
    preference, prepared = None, None
    earlier: list[Preference] = []
    for rest, value in records:
        memory = read_preference(value)
        if rest == PREFERENCE:
            preference = memory
        elif rest == PREPARED:
            prepared = memory
        else:
            earlier.append(memory)
    # No two are of the same age: a format becomes an earlier one when another folds a segment.
    earlier.sort(key=lambda memory: memory.folds, reverse=True)
    return User(preference=preference, prepared=prepared, earlier=tuple(earlier))


def read_user(records: Iterable[tuple[bytes, bytes]]) -> User:
    """A user's state from their working records and memories, in key order: (the key after the user's prefix, value).

    Working records of interactions that are already folded are stale leftovers of a fold. They are skipped.
    """
    working: list[tuple[int, bytes]] = []
    stored: list[tuple[bytes, bytes]] = []
    for rest, value in records:
        if rest[:1] == WORKING:
            working.append((taken_of(rest), value))
        else:
            stored.append((rest, value))
    memories = read_memories(stored) if stored else NEW_USER
    preference = memories.preference
    folded = 0 if preference is None else preference.folds * preference.segment_length
    if not working:
        if not stored:
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
    ends = tuple(end for end, _ in working)
    try:
        return User(reached, packed(items), packed(times), ends, preference, memories.prepared, memories.earlier)
    except OverflowError as error:
        raise StateCorrupted(f"a working record holds a number of more than 64 bits: {error}") from error
