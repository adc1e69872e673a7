"""Write changelogs of a given size and content: ours, and one with the same keys and values in Quix Streams' form.

Changelog records of Quix 3.28 have their keys and values as they are. Their headers have the column family and the
input offset.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from state.codec import SEGMENT_LENGTH, number_value, preference_key, preference_value, working_key, working_value
from state.user import Preference
from stream.kafka.options import PRODUCER

PARTITIONS = 4
FOLDED_EVERY = 50
"""Segment length of these states, and of a model that serves them."""
_PER_TRANSACTION = 20_000
_VECTORS = 4_096
"""Number of different preference memories: far more bytes than a compressor looks back."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a changelog holds."""

    kind: str
    """`small`: working records of one to three interactions. `memories`: preference memories of 256 floats each."""
    records: int
    """Records in all partitions together; one more in each partition holds the segment length."""
    partitions: int = PARTITIONS


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    records: int
    key_value_bytes: int


Change = tuple[int, bytes, bytes]
"""Partition, key, value."""


def changes(content: Content, seed: int = 7) -> Iterator[Change]:
    """The records, each with its own key, users mixed at random; first the segment length of each partition."""
    rng = np.random.default_rng(seed)
    yield from ((partition, SEGMENT_LENGTH, number_value(FOLDED_EVERY)) for partition in range(content.partitions))
    yield from _working(content, rng) if content.kind == "small" else _memories(content, rng)


def _working(content: Content, rng: np.random.Generator) -> Iterator[Change]:
    records = content.records
    users = max(content.partitions, records // 20)
    taken = [0] * users
    names = [b"u%07d" % user for user in range(users)]
    order, counts = rng.integers(0, users, records).tolist(), rng.integers(1, 4, records).tolist()
    items = rng.integers(0, 20_000, records + 3).tolist()
    for at, (user, count) in enumerate(zip(order, counts, strict=True)):
        taken[user] += count
        now = 1_767_225_600_000 + at * 37
        yield (
            user % content.partitions,
            working_key(names[user], taken[user]),
            working_value(items[at : at + count], range(now, now + count)),
        )


def _memories(content: Content, rng: np.random.Generator) -> Iterator[Change]:
    vectors = [vector.tobytes() for vector in rng.standard_normal((_VECTORS, 256), dtype=np.float32)]
    for at, user in enumerate(rng.permutation(content.records).tolist()):
        memory = Preference(
            "sasrec-4l/0123456789abcdef", FOLDED_EVERY, 1, 1_767_225_600_000 + at * 37, vectors[at % _VECTORS]
        )
        yield user % content.partitions, preference_key(b"u%07d" % user), preference_value(memory)


def create(bootstrap: str, topics: Sequence[str], partitions: int = PARTITIONS) -> None:
    """Create changelog topics that Kafka does not compact for a day, as compaction would disturb the measurement."""
    config = {"cleanup.policy": "compact", "min.compaction.lag.ms": "86400000"}
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(topic, partitions, 1, config=config) for topic in topics]).values():
        future.result()


def write(bootstrap: str, content: Content, ours: str, quix: str | None, quix_input: str = "") -> Written:
    """Write a content into our changelog and into Quix', with the same transactions.

    Args:
        ours: our topic, which exists.
        quix: the topic of Quix; None: there is none.
        quix_input: the input topic of the Quix application.
    """
    producer = Producer({**PRODUCER, "bootstrap.servers": bootstrap, "transactional.id": f"{ours}-writer"})
    producer.init_transactions(30)
    producer.begin_transaction()
    headers = [("__column_family__", b"default"), ("__processed_tp_offsets__", json.dumps({quix_input: 0}).encode())]
    records = size = 0
    for partition, key, value in changes(content):
        _produce(producer, ours, value, key, partition, [])
        if quix is not None:
            _produce(producer, quix, value, key, partition, headers)
        records, size = records + 1, size + len(key) + len(value)
        if records % _PER_TRANSACTION == 0:
            producer.commit_transaction(60)
            producer.begin_transaction()
    producer.commit_transaction(60)
    return Written(records, size)


def _produce(
    producer: Producer, topic: str, value: bytes, key: bytes, partition: int, headers: list[tuple[str, bytes]]
) -> None:
    while True:
        try:
            return producer.produce(topic, value, key, partition, headers=headers)
        except BufferError:
            producer.poll(0.05)


def consumed_input(bootstrap: str, group: str, topic: str) -> None:
    """Create an input topic with one record in each partition, and commit its end for the group."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition in range(PARTITIONS):
        producer.produce(topic, b'{"item": 1, "ts": 1}', b"primer", partition)
    producer.flush()
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    consumer.commit(
        offsets=[TopicPartition(topic, partition, 1) for partition in range(PARTITIONS)], asynchronous=False
    )
    consumer.close()
