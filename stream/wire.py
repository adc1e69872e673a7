"""The bytes on the topics: interactions in, recommendations and dead letters out."""

from typing import Annotated, Final, Literal, Protocol

import msgspec

from state.interaction import MAX_ID_BYTES
from stream.errors import MalformedInteraction

Header = tuple[str, bytes | None]


class Record(Protocol):
    """What is used of a consumed Kafka record (`confluent_kafka.Message`)."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> list[Header] | None: ...


class Interaction(msgspec.Struct, frozen=True, gc=False):
    """The value of an interaction; fields that are not named here are ignored."""

    item: (
        Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
    )
    ts: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    """Epoch ms; the record's own timestamp when absent."""


_from_msgpack: Final = msgspec.msgpack.Decoder(Interaction).decode
_from_json: Final = msgspec.json.Decoder(Interaction).decode
_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_JSON: Final = frozenset(b"{ \t\r\n")
_CONFLUENT: Final = 0x00


def interaction(value: bytes) -> Interaction:
    """Decode a value, MessagePack or JSON, told apart by its first byte.

    Raises:
        MalformedInteraction: it says what was found and what was expected, without repeating the user's data.
    """
    first = value[0] if value else None
    try:
        if first in _MAPS:
            decoded = _from_msgpack(value)
        elif first in _JSON:
            decoded = _from_json(value)
        else:
            raise MalformedInteraction(_not_a_map(value))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        kind = "MessagePack" if first in _MAPS else "JSON"
        raise MalformedInteraction(f"value is not an interaction ({kind}): {error}") from error
    if isinstance(decoded.item, str) and len(decoded.item.encode()) > MAX_ID_BYTES:
        raise MalformedInteraction(f"item id has {len(decoded.item.encode())} bytes, expected at most {MAX_ID_BYTES}")
    return decoded


def _not_a_map(value: bytes) -> str:
    if not value:
        return "value is empty, expected a MessagePack or JSON map with `item`"
    if value[0] == _CONFLUENT and len(value) >= 5:
        return f"value has Confluent's wire format, schema id {int.from_bytes(value[1:5], 'big')}: not supported, send MessagePack or JSON"
    return f"value starts with byte 0x{value[0]:02x}, expected a MessagePack or JSON map with `item`"


def user_id(key: bytes | None) -> bytes:
    """A record's key as a user id.

    Raises:
        MalformedInteraction: there is none, it is too long, or it is not UTF-8.
    """
    if not key:
        raise MalformedInteraction("key is null or empty, expected a user id")
    if len(key) > MAX_ID_BYTES:
        raise MalformedInteraction(f"user id has {len(key)} bytes, expected at most {MAX_ID_BYTES}")
    if not key.isascii():
        try:
            key.decode()
        except UnicodeDecodeError as error:
            raise MalformedInteraction(f"key is not UTF-8: {error.reason} at byte {error.start}") from error
    return key


class Recommendation(msgspec.Struct, frozen=True, gc=False):
    """The value of a recommendation record."""

    items: list[int | str]
    """Item ids, best first, as they came in."""
    scores: list[float]
    as_of: int
    """Epoch ms of the newest interaction taken into account."""
    partition: int
    """Where that interaction is in the interactions topic."""
    offset: int
    taken: int
    """Interactions remembered for this user so far."""
    folds: int
    model: str
    """NAME@VERSION"""
    source: Literal["memory", "working", "popular"]
    """`memory`: preference memory and working memory; `working`: working memory alone; `popular`: neither was usable."""


recommendation_as_msgpack: Final = msgspec.msgpack.Encoder().encode
recommendation_as_json: Final = msgspec.json.Encoder().encode

MODEL_HEADER: Final = "rec2pm.model"
ATTEMPTS_HEADER: Final = "rec2pm.attempts"
_ERROR_HEADER: Final = "__streams.errors."


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A record that can never succeed: its original bytes, and headers that say why and whence."""

    key: bytes | None
    value: bytes | None
    headers: list[Header]


def dead_letter(record: Record, topic: str, error: MalformedInteraction) -> DeadLetter:
    """Original headers first, then Kafka Streams' names, then how often this record was tried."""
    original = record.headers() or []
    reason = {
        "exception": type(error).__name__,
        "message": str(error),
        "topic": topic,
        "partition": str(record.partition()),
        "offset": str(record.offset()),
    }
    tried = [value for name, value in original if name == ATTEMPTS_HEADER and value is not None]
    attempts = int(tried[-1]) + 1 if tried and tried[-1].isdigit() else 1
    return DeadLetter(
        record.key(),
        record.value(),
        [
            *((name, value) for name, value in original if name != ATTEMPTS_HEADER),
            *((_ERROR_HEADER + name, text.encode()) for name, text in reason.items()),
            (ATTEMPTS_HEADER, str(attempts).encode()),
        ],
    )
