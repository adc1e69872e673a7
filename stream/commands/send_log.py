"""`rec2pm produce`: an event log into the interactions topic, in time order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import polars as pl
from confluent_kafka import KafkaError, Message, Producer

from model.errors import LogUnreadable
from model.log import in_time_order
from model.times import TimeRule
from stream.errors import KafkaUnusable
from stream.event import Fields, Path
from stream.keys import KeyFormat

_encode: Final = msgspec.msgpack.Encoder().encode
_CHUNK: Final = 5000

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


def send(
    log: pl.LazyFrame,
    *,
    shape: Shape,
    kafka: Mapping[str, Any],
    topic: str,
    keys: KeyFormat,
    limit: int | None,
    rate: float | None,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    progress: Callable[[int, int], None],
) -> int:
    """Send every interaction, keyed by user, as MessagePack; returns how many were acknowledged.

    Args:
        log: columns user_id, item_id, timestamp (epoch ms), and `event` if it has one.
        shape: how a record is written.
        kafka: options of the producer; they come before ours.
        limit: send only the first so many; None for all.
        rate: interactions per second; None for as fast as Kafka accepts them.
        progress: called with (sent, all).

    Raises:
        LogUnreadable: a user id cannot be a key. What comes before it is sent.
        KafkaUnusable: Kafka did not accept all interactions.
    """
    columns = ["user_id", "item_id", "timestamp"]
    columns += ["event"] if "event" in log.collect_schema() else []
    frame = in_time_order(log).select(columns)
    rows = (frame if limit is None else frame.head(limit)).collect()
    failed: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(str(error))

    # The records' own timestamps are the present. With the log's, the topic's retention would delete old interactions
    # at once.
    producer = Producer({**PRODUCER, **kafka})
    began = clock()
    for start in range(0, len(rows), chunk := _CHUNK if rate is None else max(1, int(rate / 100))):
        for row in rows.slice(start, chunk).iter_rows():
            key, value = _key(keys, row[0]), shape.value(*row)
            while True:
                try:
                    producer.produce(topic, value, key, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
        sent = min(start + chunk, len(rows))
        progress(sent, len(rows))
        if rate is not None and (ahead := sent / rate - (clock() - began)) > 0:
            sleep(ahead)
    left = producer.flush(60)
    if failed or left:
        raise KafkaUnusable(
            f"{topic} did not accept {len(failed) + left} of {len(rows)} interactions: {(failed or ['no answer within 60 s'])[0]}"
        )
    return len(rows)


def _key(keys: KeyFormat, user: int | str) -> bytes:
    try:
        return keys.key(str(user))
    except ValueError as error:
        raise LogUnreadable(f"no key can be the user {str(user)[:80]!r}, who {error}") from error
