"""The bytes on the topics: user ids in, recommendations and dead letters out. `stream.event` has the events."""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec

from model.errors import ModelFailed
from model.ids import MAX_ID_BYTES
from stream.errors import MalformedInteraction

Header = tuple[str, bytes | None]


class Record(Protocol):
    """What the worker uses of a consumed Kafka record (`confluent_kafka.Message`)."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> list[Header] | None: ...


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
    """Epoch ms of the newest interaction that the list is made from."""
    partition: int
    """Where that interaction is in the interactions topic."""
    offset: int
    taken: int
    """Interactions remembered for this user so far."""
    folds: int
    model: str
    """NAME@VERSION"""
    source: Literal["memory", "working", "popular"]
    """`memory`: preference and working memory; `working`: working memory alone; `popular`: neither was usable."""


recommendation_as_msgpack: Final = msgspec.msgpack.Encoder().encode
recommendation_as_json: Final = msgspec.json.Encoder().encode

MODEL_HEADER: Final = "rec2pm.model"
ATTEMPTS_HEADER: Final = "rec2pm.attempts"
TIMESTAMP_HEADER: Final = "rec2pm.timestamp"
_ERROR_HEADER: Final = "__streams.errors."
_REASON: Final = tuple(_ERROR_HEADER + name for name in ("exception", "message", "topic", "partition", "offset"))
_MAX_ATTEMPTS: Final = 10**9
"""A higher counter was not written by a worker."""
_NO_TIMESTAMP: Final = 0
"""Kafka's type for a record without a timestamp, from a client older than timestamps."""


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A refused record: its original bytes, with headers that say why, and from which topic, partition and offset."""

    key: bytes | None
    value: bytes | None
    headers: list[Header]


class Refusal(msgspec.Struct, frozen=True):
    """What a dead letter's headers say, and the headers of the record before it was refused."""

    exception: str
    message: str
    topic: str
    """The topic that the record was in."""
    partition: int
    offset: int
    attempts: int
    """How often it was refused, this time included."""
    timestamp: int | None
    """The record's own, epoch ms; None if it had none, or if an older rec2pm wrote the dead letter."""
    headers: list[Header]


def dead_letter(record: Record, topic: str, error: MalformedInteraction | ModelFailed) -> DeadLetter:
    """Make a dead letter. Its headers: the original ones, the reason under Kafka Streams' names, timestamp, attempts.

    `refusal` reads them back. They hold everything that is needed to send the record into its topic again.
    """
    original = record.headers() or []
    reason = (type(error).__name__, str(error), topic, str(record.partition()), str(record.offset()))
    kind, timestamp = record.timestamp()
    tried = [value for name, value in original if name == ATTEMPTS_HEADER and value is not None]
    before = _number(tried[-1]) if tried else None
    attempts = before + 1 if before is not None and before < _MAX_ATTEMPTS else 1
    return DeadLetter(
        record.key(),
        record.value(),
        [
            *((name, value) for name, value in original if name != ATTEMPTS_HEADER),
            *((name, text.encode()) for name, text in zip(_REASON, reason, strict=True)),
            *([] if kind == _NO_TIMESTAMP else [(TIMESTAMP_HEADER, str(timestamp).encode())]),
            (ATTEMPTS_HEADER, str(attempts).encode()),
        ],
    )


def refusal(headers: Sequence[Header]) -> Refusal | None:
    """Read what `dead_letter` appended, and the headers before that; None if the headers are not of a dead letter.

    Ours are the last ones. If the original has headers with the same names, it keeps them.
    """
    *rest, attempts = headers or [("", None)]
    timestamp = rest.pop()[1] if rest and rest[-1][0] == TIMESTAMP_HEADER else None
    original, ours = rest[: -len(_REASON)], rest[-len(_REASON) :]
    if attempts[0] != ATTEMPTS_HEADER or tuple(name for name, _ in ours) != _REASON:
        return None
    exception, message, topic, partition, offset = ((value or b"").decode(errors="replace") for _, value in ours)
    numbers = [_number(each.encode()) for each in (partition, offset)]
    tried = _number(attempts[1])
    if numbers[0] is None or numbers[1] is None or tried is None:
        return None
    return Refusal(exception, message, topic, numbers[0], numbers[1], tried, _number(timestamp), original)


def _number(text: bytes | None) -> int | None:
    """A header's whole number; None if it is not one, or has more than Kafka's 64 bits."""
    return number if text and text.isdigit() and len(text) < 20 and (number := int(text)) < 1 << 63 else None
