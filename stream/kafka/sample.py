"""The newest records of a topic, as a worker would read them: for a look at what producers send."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from stream.errors import KafkaUnusable
from stream.kafka.options import CHANGELOG_READER

_ANSWERS_WITHIN_S: Final = 15.0
_BATCH: Final = 1000
_ROOM: Final = 3
"""Offsets read for each record that is wanted: the markers of transactions have offsets too."""


class Sampled(NamedTuple):
    """A record of a topic."""

    partition: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    """Epoch ms."""


class Sample(NamedTuple):
    """The newest committed records of a topic, in the order of each partition."""

    records: Sequence[Sampled]
    width: int
    """The number of partitions of the topic."""
    complete: bool
    """False: Kafka took longer than the time that was given."""


def newest(kafka: Mapping[str, Any], topic: str, count: int, within_s: float) -> Sample:
    """Read the newest records of a topic. Each partition gives about as many as the others, if it has them.

    It joins no group and commits nothing.

    Args:
        kafka: options of the client, `bootstrap.servers` among them.
        count: how many records.
        within_s: after this time, what was read until then is the answer.

    Raises:
        KafkaUnusable: the topic cannot be read.
        KafkaException: Kafka does not answer.
    """
    deadline = time.monotonic() + within_s
    consumer = Consumer({**CHANGELOG_READER, "log_level": 3, "group.id": "rec2pm-export", **kafka})
    try:
        known = consumer.list_topics(topic, timeout=_ANSWERS_WITHIN_S).topics[topic]
        if known.error is not None:
            raise KafkaUnusable(f"{topic} cannot be read: {known.error}")
        ends = {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ANSWERS_WITHIN_S)
            for number in known.partitions
        }
        shares = shared_out({number: high - low for number, (low, high) in ends.items()}, count)
        places = [
            TopicPartition(topic, number, max(ends[number][0], ends[number][1] - _ROOM * share))
            for number, share in shares.items()
            if share
        ]
        if not places:
            return Sample([], len(ends), complete=True)
        consumer.assign(places)
        newest: dict[int, deque[Sampled]] = {each.partition: deque(maxlen=shares[each.partition]) for each in places}
        unread = set(newest)
        while unread and time.monotonic() < deadline:
            for message in consumer.consume(_BATCH, 0.1):
                _take(message, topic, newest, unread)
        return Sample([record for each in newest.values() for record in each], len(ends), complete=not unread)
    finally:
        consumer.close()


def _take(message: Message, topic: str, newest: Mapping[int, deque[Sampled]], unread: set[int]) -> None:
    number, error = message.partition() or 0, message.error()
    if error is None:
        newest[number].append(Sampled(number, message.key(), message.value(), message.timestamp()[1]))
    elif error.code() == KafkaError._PARTITION_EOF:
        unread.discard(number)
    elif error.fatal() or not error.retriable():
        raise KafkaUnusable(f"{topic}[{number}] cannot be read: {error}")


def shared_out(sizes: Mapping[int, int], count: int) -> dict[int, int]:
    """How many records each partition gives: equal shares, and what a short partition lacks comes from the others."""
    shares: dict[int, int] = {}
    left = count
    for at, (number, size) in enumerate(sorted(sizes.items(), key=lambda each: each[1])):
        shares[number] = min(size, -(-left // (len(sizes) - at)))
        left -= shares[number]
    return shares
