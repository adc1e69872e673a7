"""The bytes on the topics: records in, recommendations and dead letters out.

`stream.keys` has the keys of the records, and `stream.event` the values.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from model.errors import ModelFailed
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
_PARTS: Final = ("value", "headers", "key")
_LEFT_OUT: Final = tuple((f"rec2pm.{part}.size", f"rec2pm.{part}.sha256") for part in _PARTS)
"""The headers that say which part of the record a dead letter lacks: the part's size in bytes, and its hash."""
_MAX_ATTEMPTS: Final = 10**9
"""A higher counter was not written by a worker."""
_MAX_REASON_BYTES: Final = 2000
LETTER_HEADERS_BYTES: Final = 4096
"""The headers that a dead letter adds to its record are smaller than this."""
_BATCH_BYTES: Final = 61
"""The fields before the records of a batch (Kafka's message format 2)."""
_NO_TIMESTAMP: Final = 0
"""Kafka's type for a record without a timestamp, from a client older than timestamps."""


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A refused record: its original bytes, with headers that say why, and from which topic, partition and offset."""

    key: bytes | None
    value: bytes | None
    headers: list[Header]


class LeftOut(msgspec.Struct, frozen=True):
    """A part of the record that its dead letter lacks, because the letter would be larger than Kafka takes."""

    part: str
    """`value`, `headers` or `key`."""
    size: int
    """Bytes."""
    sha256: str
    """Of the part, in hexadecimal. Of headers: of their names and values one after the other."""


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
    left_out: tuple[LeftOut, ...] = ()
    """Parts of the record that the letter lacks. Such a letter cannot be sent in again."""


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
            *((name, _bounded(text)) for name, text in zip(_REASON, reason, strict=True)),
            *([] if kind == _NO_TIMESTAMP else [(TIMESTAMP_HEADER, str(timestamp).encode())]),
            (ATTEMPTS_HEADER, str(attempts).encode()),
        ],
    )


def reduced(letter: DeadLetter, limit: int) -> DeadLetter:
    """The letter without the largest of its parts (value, headers, key), and without the next ones until it has at most
    `limit` bytes. Headers say the size and the hash of what was left out.

    A letter without any of the three is returned as it is, and is smaller than `LETTER_HEADERS_BYTES`.
    """
    ours = _split(letter.headers)
    if ours is None:
        return letter
    parts: dict[str, bytes] = {
        "value": letter.value or b"",
        "headers": b"".join(name.encode() + (value or b"") for name, value in ours.original),
        "key": letter.key or b"",
    }
    for part in sorted(parts, key=lambda each: -len(parts[each])):
        if not parts[part]:
            break
        names = _LEFT_OUT[_PARTS.index(part)]
        told = [str(len(parts[part])).encode(), sha256(parts[part]).hexdigest().encode()]
        ours = ours._replace(
            original=[] if part == "headers" else ours.original,
            left_out=[*ours.left_out, *zip(names, told, strict=True)],
        )
        letter = DeadLetter(
            None if part == "key" else letter.key, None if part == "value" else letter.value, ours.joined()
        )
        if letter_bytes(letter) <= limit:
            break
    return letter


def letter_bytes(letter: DeadLetter) -> int:
    """The size of a dead letter that is alone in its batch and not compressed: what `max.message.bytes` limits."""
    headers = [(name.encode(), value) for name, value in letter.headers]
    record = 3 + _sized(letter.key) + _sized(letter.value) + _varint(len(headers))
    record += sum(_sized(name) + _sized(value) for name, value in headers)
    return _BATCH_BYTES + _varint(record) + record


def _sized(data: bytes | None) -> int:
    return 1 if data is None else _varint(len(data)) + len(data)


def _varint(number: int) -> int:
    """Bytes of a number of zero or more, in Kafka's records."""
    return max(1, -(-(number << 1).bit_length() // 7))


def refusal(headers: Sequence[Header]) -> Refusal | None:
    """Read what `dead_letter` appended, and the headers before that; None if the headers are not of a dead letter.

    Ours are the last ones. If the original has headers with the same names, it keeps them.
    """
    ours = _split(headers)
    if ours is None:
        return None
    exception, message, topic, partition, offset = ((value or b"").decode(errors="replace") for _, value in ours.reason)
    numbers = [_number(each.encode()) for each in (partition, offset)]
    tried = _number(ours.end[-1][1])
    if numbers[0] is None or numbers[1] is None or tried is None:
        return None
    timestamp = _number(ours.end[0][1]) if len(ours.end) > 1 else None
    left_out = tuple(
        LeftOut(size_name.split(".")[1], _number(size) or 0, (digest or b"").decode(errors="replace"))
        for (size_name, size), (_, digest) in zip(ours.left_out[::2], ours.left_out[1::2], strict=True)
    )
    return Refusal(exception, message, topic, numbers[0], numbers[1], tried, timestamp, list(ours.original), left_out)


class _Split(NamedTuple):
    """The headers of a dead letter, by what they say."""

    original: Sequence[Header]
    reason: Sequence[Header]
    left_out: Sequence[Header]
    end: Sequence[Header]
    """The timestamp, if there is one, and the attempts."""

    def joined(self) -> list[Header]:
        # What was left out stands where a reader that does not know it no longer recognises a dead letter: it must not
        # take a value that is missing for a null value, which forgets the user.
        return [*self.original, *self.reason, *self.left_out, *self.end]


def _split(headers: Sequence[Header]) -> _Split | None:
    """None if the headers are not of a dead letter."""
    rest = list(headers)
    if not rest or rest[-1][0] != ATTEMPTS_HEADER:
        return None
    end = [rest.pop()]
    if rest and rest[-1][0] == TIMESTAMP_HEADER:
        end.insert(0, rest.pop())
    left_out: list[Header] = []
    while tuple(name for name, _ in rest[-2:]) in _LEFT_OUT:
        left_out[:0] = rest[-2:]
        del rest[-2:]
    original, reason = rest[: -len(_REASON)], rest[-len(_REASON) :]
    if tuple(name for name, _ in reason) != _REASON:
        return None
    return _Split(original, reason, left_out, end)


def _bounded(text: str) -> bytes:
    """A header's text, cut where it is too long."""
    data = text.encode(errors="replace")
    return data if len(data) <= _MAX_REASON_BYTES else data[:_MAX_REASON_BYTES].decode(errors="ignore").encode()


def _number(text: bytes | None) -> int | None:
    """A header's whole number; None if it is not one, or has more than Kafka's 64 bits."""
    return number if text and text.isdigit() and len(text) < 20 and (number := int(text)) < 1 << 63 else None
