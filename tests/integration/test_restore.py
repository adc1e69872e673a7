"""A changelog whose first records are gone: it is read from where it begins, also where that moved after it was asked for."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from state.codec import working_key, working_value
from state.store import StoreMemory
from stream.broker import Broker
from stream.librdkafka import CHANGELOG_READER
from stream.lineage import Changelog, Committed
from stream.partitions import Partition
from stream.restore import ChangelogRestore
from tests.fakes import restoring

pytestmark = pytest.mark.isolation

MEMORY = StoreMemory(8 << 20)
RECORDS, DELETED = 10, 4


@pytest.fixture
def topic(broker: Broker) -> str:
    """With one partition that holds the later ones of its records."""
    name = f"changelog-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.create_topics([NewTopic(name, 1, 1, config={"cleanup.policy": "delete"})]).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(RECORDS):
        producer.produce(name, working_value([number], [number]), working_key(b"user-%d" % number, 1), partition=0)
    assert producer.flush(30) == 0
    for future in admin.delete_records([TopicPartition(name, 0, DELETED)]).values():
        future.result(30)
    return name


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[Partition]:
    with restoring(0, tmp_path, MEMORY) as made:
        yield made


@pytest.mark.parametrize("told_low", [DELETED, 0], ids=["where it begins", "where it began"])
def test_what_is_left_of_a_changelog_is_restored(broker: Broker, topic: str, partition: Partition, told_low: int) -> None:
    partition.restore = restore = ChangelogRestore(
        topic=topic,
        partition=partition,
        memory=MEMORY,
        config={**CHANGELOG_READER, "bootstrap.servers": broker.bootstrap, "group.id": topic},
        committed=lambda _: Committed(None, None),
        changelog=lambda _: Changelog("an-id", 1, told_low, RECORDS),
        deletions_kept_ms=86_400_000,
        clock=time.monotonic,
        wall_ms=lambda: time.time_ns() // 1_000_000,
    )
    deadline = time.monotonic() + 30
    while not restore.advance():
        assert time.monotonic() < deadline
    assert partition.store.taken([b"user-%d" % number for number in range(RECORDS)]) == [0] * DELETED + [1] * (RECORDS - DELETED)
    assert partition.store.changelog_offset() == RECORDS
