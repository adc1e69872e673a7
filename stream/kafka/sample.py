"""The newest records of a topic, as a worker would read them: for a look at what producers send."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

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


def newest(admin: AdminClient, kafka: Mapping[str, Any], topic: str, count: int, within_s: float) -> Sample:
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
    numbers = _partitions(admin, topic)
    first = _offsets(admin, topic, numbers, OffsetSpec.earliest())
    end = _offsets(admin, topic, numbers, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)
    # What is behind the first open transaction cannot be read.
    readable = _offsets(admin, topic, numbers, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
    shares = {
        number: share
        for number, share in shared_out({number: end[number] - first[number] for number in numbers}, count).items()
        if share
    }
    if not shares:
        return Sample([], len(numbers), complete=True)
    read: dict[int, deque[Sampled]] = {number: deque(maxlen=count) for number in shares}
    unread = set(read)
    deadline = time.monotonic() + within_s
    consumer = Consumer({**CHANGELOG_READER, "log_level": 3, "group.id": "rec2pm-export", **kafka})
    try:
        consumer.assign(
            [
                TopicPartition(topic, number, max(first[number], readable[number] - _ROOM * share))
                for number, share in shares.items()
            ]
        )
        while unread and time.monotonic() < deadline:
            for message in consumer.consume(_BATCH, 0.1):
                _take(message, topic, read, unread)
    finally:
        consumer.close()
    # The embedded broker knows its end only roughly: what was read decides.
    shares = shared_out({number: len(each) for number, each in read.items()}, count)
    records = [record for number, each in read.items() for record in islice(each, len(each) - shares[number], None)]
    return Sample(records, len(numbers), complete=not unread)


def _partitions(admin: AdminClient, topic: str) -> list[int]:
    known = admin.list_topics(topic, timeout=_ANSWERS_WITHIN_S).topics[topic]
    if known.error is not None:
        raise KafkaUnusable(f"{topic} cannot be read: {known.error}")
    return sorted(known.partitions)


def _offsets(
    admin: AdminClient,
    topic: str,
    numbers: Sequence[int],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[int, int]:
    asked = admin.list_offsets(
        {TopicPartition(topic, number): spec for number in numbers},
        isolation_level=isolation,
        request_timeout=_ANSWERS_WITHIN_S,
    )
    return {place.partition: future.result(2 * _ANSWERS_WITHIN_S).offset for place, future in asked.items()}


def _take(message: Message, topic: str, read: Mapping[int, deque[Sampled]], unread: set[int]) -> None:
    number, error = message.partition() or 0, message.error()
    if error is None:
        read[number].append(Sampled(number, message.key(), message.value(), message.timestamp()[1]))
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
