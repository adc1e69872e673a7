"""A changelog whose first records are gone is read from where it begins, also where that moved after it was asked for.
One that cannot be read to its end holds up its own partition alone."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from bench import null_model
from model.version.registry import Registry
from state.codec import working_key, working_value
from state.store import StoreMemory
from stream.commands.broker import Broker
from stream.kafka.lineage import Changelog, Committed
from stream.kafka.options import CHANGELOG_READER
from stream.kafka.restore import ChangelogRestore
from stream.partition import Partition
from tests.fakes import restoring
from tests.integration.test_worker import PARTITIONS, Application, create_topics
from tests.processes import SESSION_MS

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
def test_what_is_left_of_a_changelog_is_restored(
    broker: Broker, topic: str, partition: Partition, told_low: int
) -> None:
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
    assert partition.store.taken([b"user-%d" % number for number in range(RECORDS)]) == [0] * DELETED + [1] * (
        RECORDS - DELETED
    )
    assert partition.store.changelog_offset() == RECORDS


def test_while_one_partition_waits_for_its_changelog_the_others_run_for_longer_than_the_group_waits_for_a_poll(
    broker: Broker, tmp_path: Path
) -> None:
    """Somebody's transaction is open in the changelog of partition 0."""
    application = Application(broker.bootstrap, tmp_path)
    create_topics(application)
    null_model.write(Registry(application.models), segment_length=10)
    foreign = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"{application.name}-foreign"})
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(f"{application.name}.changelog", b"foreign", b"\x07foreign\x01", partition=0)
    assert foreign.flush(30) == 0

    def sent_to(partitions: range) -> None:
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        for number in partitions:
            for _ in range(50):
                producer.produce(application.interactions, b'{"item": 1}', b"user-%d" % number, partition=number)
        assert producer.flush(30) == 0

    others = range(1, PARTITIONS)
    try:
        sent_to(range(PARTITIONS))
        worker = application.start_worker(KAFKA_SESSION_TIMEOUT_MS=SESSION_MS, KAFKA_MAX_POLL_INTERVAL_MS=SESSION_MS)
        application.wait_until(50 * len(others), worker)
        began, rounds = time.monotonic(), 1
        while time.monotonic() < began + SESSION_MS / 1000 + 2:
            sent_to(others)
            rounds += 1
            application.wait_until(50 * len(others) * rounds, worker)
        assert application.committed() == 50 * len(others) * rounds, "nothing of partition 0"
        foreign.abort_transaction(30)
        application.wait_until(50 * len(others) * rounds + 50, worker)
        said = worker.log.read_text()
        assert "restore waits partition=0" in said
        assert "no records arrive" in said
        assert "lost=[" not in said, "it stays a member of the group, with what it has"
        assert worker.stop()[0] == 0
        assert application.export()["taken"].sum() == 50 * len(others) * rounds + 50
    finally:
        application.close()
