"""A late EndTxn on a real Kafka: it ends the next transaction of a plain client, and not that of a worker."""

import os
import random
import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stream.kafka.link import KafkaLink
from stream.kafka.names import changelog_topic, dead_letter_topic, worker_id
from stream.kafka.options import MemoryBudget
from stream.keys import KeyFormat
from stream.ports import Outgoing
from tests.crash import kafka
from tests.crash.hold import Hold
from tests.crash.ports import free_ports
from tests.crash.proxy import Proxy
from tests.processes import read_committed, wait_until

ENDED = 0
INVALID_PRODUCER_EPOCH = 47
APP = "app"

pytestmark = pytest.mark.skipif(
    not os.environ.get("KAFKA_HOME"), reason="a broker behind a proxy: set KAFKA_HOME to an unpacked Kafka 4 (Java 17)"
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[kafka.Kafka, Proxy]]:
    ports = kafka.Ports(*free_ports(4, random.Random()))
    with (
        kafka.running(tmp_path_factory.mktemp("kafka"), ports, os.environ) as started,
        Proxy(ports.proxy, ports.behind_proxy) as proxy,
    ):
        admin = AdminClient({"bootstrap.servers": started.direct})
        names = ("plain", f"{APP}.in", f"{APP}.out", changelog_topic(APP), dead_letter_topic(APP))
        for made in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            made.result(30)
        wait_until(started._leads, 30, "the topics have leaders")
        yield started, proxy


def delivered(hold: Hold) -> int | None:
    assert hold.delivered.wait(20)
    return hold.answer


def test_a_late_end_ends_the_next_transaction_of_a_client_that_keeps_its_producer(
    broker: tuple[kafka.Kafka, Proxy],
) -> None:
    """Why a worker does not keep it. The client says nothing about the request that it sent twice."""
    _, proxy = broker
    producer = Producer(
        {"bootstrap.servers": f"127.0.0.1:{proxy.port}", "client.id": "plain", "transactional.id": "plain"}
    )
    producer.init_transactions(30)
    hold = proxy.hold("plain")
    for _ in range(2):
        producer.begin_transaction()
        producer.produce("plain", b"record")
        producer.flush(1)
        if hold.delivered.is_set():
            break
        producer.commit_transaction(30)
    assert delivered(hold) == ENDED
    proxy.let_go(hold)


def test_a_late_end_does_not_end_the_next_transaction_of_a_worker(
    broker: tuple[kafka.Kafka, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    started, proxy = broker
    link = KafkaLink(
        bootstrap=f"127.0.0.1:{proxy.port}",
        app=APP,
        worker_name="w1",
        named=False,
        interactions_topic=f"{APP}.in",
        recommendations_topic=f"{APP}.out",
        output_format="json",
        memory=MemoryBudget(64 << 20),
        extra={},
        keys=KeyFormat(),
        clock=time.monotonic,
    )
    try:
        link.transactions.start()
        wait_until(lambda: link.questions.committed_within(0, 1.0) is not None, 60, "the group has its coordinator")
        monkeypatch.setattr(link, "_metadata", link._consumer.consumer_group_metadata())
        hold = proxy.hold(worker_id(APP, "w1"))
        link.publish(Outgoing(changes={0: [(b"first", b"1")]}, next_offsets={0: 1}))
        second = threading.Thread(
            target=link.publish, args=(Outgoing(changes={0: [(b"second", b"2")]}, next_offsets={0: 2}),)
        )
        second.start()
        answer = delivered(hold)
        proxy.let_go(hold)
        second.join(30)
        assert answer == INVALID_PRODUCER_EPOCH
        records = read_committed(started.direct, changelog_topic(APP))
        assert [record.key() for record in records] == [b"first", b"second"]
    finally:
        link.close()
