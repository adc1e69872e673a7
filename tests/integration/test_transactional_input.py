"""Interactions that come in transactions: the markers of transactions and aborted records are no records.

The lag of an idle topic becomes 0, and a worker starts when retention has deleted all of it. Only lost records are a
gap.
"""

import msgpack
import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from stream.kafka import topics
from tests.integration.test_refusals import refusal
from tests.integration.test_worker import PARTITIONS, WORK_S, Application
from tests.processes import session_ms, wait_until

pytestmark = pytest.mark.isolation

USERS = 30


class Upstream:
    """A program that writes interactions exactly once, as Flink or Kafka Streams does."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.admin = AdminClient({"bootstrap.servers": application.bootstrap})
        self.places = [TopicPartition(application.interactions, number) for number in range(PARTITIONS)]
        self.written = 0
        """Interactions in committed transactions."""
        self._producer = Producer(
            {
                "bootstrap.servers": application.bootstrap,
                "transactional.id": f"{application.name}-upstream",
                "partitioner": "murmur2_random",
            }
        )
        self._producer.init_transactions(30)
        wait_until(self._has_leaders, 30, "the new topic has its leaders")

    def writes(self, count: int, *, commits: bool = True) -> None:
        """Write so many interactions to every partition in one transaction, and commit or abort it."""
        before = self.ends()
        self._producer.begin_transaction()
        for at in range(count):
            for place in self.places:
                user = b"user-%d-%d" % (place.partition, at % USERS)
                value = msgpack.packb({"item": at, "ts": 1_767_225_600_000 + at})
                self._producer.produce(place.topic, value, user, place.partition)
        assert self._producer.flush(30) == 0
        self._producer.commit_transaction(30) if commits else self._producer.abort_transaction(30)
        marked = {number: end + count + 1 for number, end in before.items()}
        wait_until(lambda: self.ends() == marked, 30, "the transaction has its markers")
        self.written += count * PARTITIONS * commits

    def ends(self) -> dict[int, int]:
        asked = self.admin.list_offsets({place: OffsetSpec.latest() for place in self.places})
        return {place.partition: found.result(30).offset for place, found in asked.items()}

    def _has_leaders(self) -> bool:
        try:
            return len(self.ends()) == PARTITIONS
        except KafkaException:
            return False

    def delete_everything(self) -> None:
        """As retention does with a topic that is idle for long enough."""
        everything = [TopicPartition(place.topic, place.partition, -1) for place in self.places]
        for deleted in self.admin.delete_records(everything).values():
            deleted.result(30)


@pytest.fixture
def upstream(application: Application) -> Upstream:
    return Upstream(application)


def lag(upstream: Upstream) -> int:
    """As every tool sees it: the ends of the partitions without what the group has committed."""
    return sum(upstream.ends().values()) - upstream.application.committed()


def changelog_ends(application: Application) -> list[int]:
    client = AdminClient({"bootstrap.servers": application.bootstrap})
    places = {
        TopicPartition(topics.changelog_topic(application.name), number): OffsetSpec.latest()
        for number in range(PARTITIONS)
    }
    return [found.result(30).offset for found in client.list_offsets(places).values()]


@pytest.mark.parametrize("last", ["committed", "aborted"])
def test_the_lag_of_an_idle_topic_becomes_0_and_its_markers_may_be_deleted(
    application: Application, upstream: Upstream, last: str
) -> None:
    worker = application.start_worker(KAFKA_SESSION_TIMEOUT_MS=session_ms(1500))
    upstream.writes(20)
    if last == "aborted":
        upstream.writes(5, commits=False)
    wait_until(lambda: lag(upstream) == 0, WORK_S, "the group has committed the end, markers included")
    still = changelog_ends(application)
    upstream.delete_everything()
    worker.kill()
    worker = application.start_worker()
    upstream.writes(3)
    wait_until(lambda: lag(upstream) == 0, WORK_S, "the restarted worker reads on")
    assert worker.stop()[0] == 0, worker.told()
    assert "but the state reaches" not in worker.log.read_text()
    assert application.export()["taken"].sum() == upstream.written
    assert max(end - before for end, before in zip(changelog_ends(application), still, strict=True)) < 100


def test_a_worker_that_is_stopped_right_after_its_last_step_has_stored_the_end(
    application: Application, upstream: Upstream
) -> None:
    """It does not wait for idle seconds: nobody may run until retention has deleted the marker."""
    for _ in range(2):
        worker = application.start_worker()
        upstream.writes(10)
        wait_until(
            lambda: application.committed() >= sum(upstream.ends().values()) - PARTITIONS, WORK_S, "all is remembered"
        )
        assert worker.stop()[0] == 0, worker.told()
        assert lag(upstream) == 0
        upstream.delete_everything()
    assert application.export()["taken"].sum() == upstream.written


def test_records_that_were_deleted_before_a_worker_read_them_are_still_a_gap(
    application: Application, upstream: Upstream
) -> None:
    worker = application.start_worker()
    upstream.writes(10)
    wait_until(lambda: lag(upstream) == 0, WORK_S, "everything is read")
    assert worker.stop()[0] == 0
    upstream.writes(1)
    upstream.delete_everything()
    assert "the 2 offsets from 11, which the state reaches, to 13" in refusal(application.start_worker())
