"""`rec2pm produce`: an event log into the interactions topic, in time order."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from confluent_kafka import KafkaError, Message, Producer
from numpy.typing import NDArray

from model.errors import LogUnreadable
from model.log import in_time_order
from model.times import TimeRule
from stream.commands.pace import Pace
from stream.errors import KafkaUnusable
from stream.event import Fields, Path
from stream.keys import KeyFormat

_encode: Final = msgspec.msgpack.Encoder().encode
_HASHED: Final = 100_000
"""Rows that are text at a time."""

PRODUCER: Final[Mapping[str, Any]] = {
    "enable.idempotence": True,
    "partitioner": "murmur2_random",  # Java's default: every client sends a user to the same partition
    "linger.ms": 20,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 500_000,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a record looks like, so that a worker with the same settings reads it."""

    fields: Fields
    times: TimeRule

    def value(self, user: int | str, item: int | str, ms: int, event: str | None = None) -> bytes:
        """The MessagePack map of an interaction.

        Args:
            event: the kind of event; None: one that the worker takes, if it wants one.
        """
        fields = self.fields
        found: list[tuple[Path, Any]] = [(fields.item, item), (fields.time, self.times.written(ms))]
        if fields.user:
            found.append((fields.user, user))
        if fields.event:
            found.append((fields.event, min(fields.events) if event is None else event))
        return _encode(_record(found))


def _record(values: Sequence[tuple[Path, Any]]) -> dict[str, Any]:
    """The nested map with these values under their paths."""
    record: dict[str, Any] = {}
    for (*outer, name), value in values:
        inner = record
        for each in outer:
            inner = inner.setdefault(each, {})
        inner[name] = value
    return record


class Rows:
    """The interactions to send, in time order, with their keys."""

    def __init__(self, log: pl.LazyFrame, *, shape: Shape, keys: KeyFormat, limit: int | None) -> None:
        """Args:
        log: columns user_id, item_id, timestamp (epoch ms), and `event` if it has one.
        shape: how a record is written.
        limit: only the first so many; None for all.

        Raises:
            LogUnreadable: a user id cannot be a key.
        """
        columns = ["user_id", "item_id", "timestamp"]
        columns += ["event"] if "event" in log.collect_schema() else []
        frame = in_time_order(log).select(columns)
        self.frame: Final = (frame if limit is None else frame.head(limit)).collect()
        self._shape = shape
        self._key_of: Final = {user: _key(keys, user) for user in self.frame["user_id"].unique()}

    def __len__(self) -> int:
        return len(self.frame)

    def times(self, start: int) -> NDArray[np.int64]:
        """Epoch ms of the interactions from one on."""
        return self.frame["timestamp"].slice(start).to_numpy()

    def records(self, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of each interaction in a range."""
        for row in self.frame.slice(start, end - start).iter_rows():
            yield self._key_of[row[0]], self._shape.value(*row)

    def sha256(self) -> str:
        """What is sent, in short: equal for the same interactions in the same order."""
        digest = sha256(" ".join(self.frame.columns).encode())
        for piece in self.frame.iter_slices(_HASHED):
            digest.update(piece.write_csv(include_header=False).encode())
        return digest.hexdigest()


def send(
    rows: Rows,
    *,
    kafka: Mapping[str, Any],
    topic: str,
    pace: Pace,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    progress: Callable[[int, int], None],
) -> int:
    """Send every interaction, keyed by user, as MessagePack; returns how many were acknowledged.

    Args:
        kafka: options of the producer; they come before ours.
        progress: called with (sent, all).

    Raises:
        KafkaUnusable: Kafka did not accept all interactions.
    """
    failed: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(str(error))

    # The records' own timestamps are the present. With the log's, the topic's retention would delete old interactions
    # at once.
    producer = Producer({**PRODUCER, **kafka})
    for start, end in pace.chunks(rows.times(0), clock, sleep):
        for key, value in rows.records(start, end):
            queued(producer, topic, key, value, on_delivery=delivered)
        producer.poll(0)
        progress(end, len(rows))
    left = producer.flush(60)
    if failed or left:
        raise KafkaUnusable(
            f"{topic} did not accept {len(failed) + left} of {len(rows)} interactions: {(failed or ['no answer within 60 s'])[0]}"
        )
    return len(rows)


def queued(producer: Producer, topic: str, key: bytes, value: bytes, **more: Any) -> None:
    """Call `Producer.produce`, again while its queue is full."""
    while True:
        try:
            producer.produce(topic, value, key, **more)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def _key(keys: KeyFormat, user: int | str) -> bytes:
    try:
        return keys.key(str(user))
    except ValueError as error:
        raise LogUnreadable(f"no key can be the user {str(user)[:80]!r}, who {error}") from error
