"""Where a partition's records begin, on a real client: after it came, and after it went away and came back."""

import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stream.kafka.link import KafkaLink
from stream.kafka.options import MemoryBudget
from stream.wire import Record
from tests.processes import wait_until

RECORDS, PARTITIONS, SESSION_MS = 500, 2, "6000"

pytestmark = pytest.mark.isolation


class Group:
    """A link, and what the group says it owns."""

    def __init__(self, bootstrap: str, app: str) -> None:
        self.owned: set[int] = set()
        self.link = KafkaLink(
            bootstrap=bootstrap,
            app=app,
            worker_name="w1",
            named=False,
            interactions_topic=f"{app}.in",
            recommendations_topic=f"{app}.out",
            output_format="json",
            memory=MemoryBudget(64 << 20),
            extra={"session.timeout.ms": SESSION_MS},
            clock=time.monotonic,
        )
        self.link.start(
            SimpleNamespace(
                assigned=self.owned.update, revoked=self.owned.difference_update, lost=self.owned.difference_update
            )
        )  # type: ignore[arg-type]

    def polled(self, until: Callable[[Sequence[Record]], bool]) -> list[Record]:
        """The records of as many polls as it takes."""
        records: list[Record] = []

        def enough() -> bool:
            records.extend(self.link.poll(100, 0.05))
            return until(records)

        wait_until(enough, 60, "Kafka does it")
        return records

    def begin(self, number: int, position: int) -> None:
        """Take a partition's records from there; nothing is committed here, so it is the state's word that counts."""
        wait_until(lambda: self.link.resume(number, position, None) == position, 30, f"partition {number} is begun")


@pytest.fixture
def group(bootstrap: str, app: str) -> Iterator[Group]:
    topic = f"{app}.in"
    client = AdminClient({"bootstrap.servers": bootstrap})
    client.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": bootstrap})
    for at in range(RECORDS * PARTITIONS):
        producer.produce(topic, b"{}", b"ann", partition=at % PARTITIONS)
    producer.flush(30)
    made = Group(bootstrap, app)
    yield made
    made.link.close()


def offsets(records: Sequence[Record], number: int) -> list[int]:
    return [record.offset() for record in records if record.partition() == number]


def test_nothing_comes_before_a_partition_is_begun_and_then_everything_from_there(group: Group) -> None:
    assert group.polled(lambda _: group.owned == {0, 1}) == []
    group.begin(0, 480)
    records = group.polled(lambda found: len(offsets(found, 0)) == 20)
    assert offsets(records, 0) == list(range(480, RECORDS))
    assert offsets(records, 1) == []
    group.begin(1, 0)
    assert offsets(group.polled(lambda found: len(found) == RECORDS), 1) == list(range(RECORDS))


def test_a_partition_that_went_away_while_paused_comes_back_from_where_it_is_begun(
    group: Group, bootstrap: str, app: str
) -> None:
    """As after a step that was given up because the group went on without this worker. The client keeps the pause."""
    group.polled(lambda _: group.owned == {0, 1})
    for number in range(PARTITIONS):
        group.begin(number, 490)
    group.polled(lambda found: len(found) == 20)
    for number in range(PARTITIONS):
        group.link.pause(number)
    other = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": app,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000,
        }
    )
    other.subscribe([f"{app}.in"])

    def one_is_away(_: Sequence[Record]) -> bool:
        other.poll(0.05)
        return len(group.owned) == 1 and len(other.assignment()) == 1

    assert group.polled(one_is_away) == []
    (away,) = {0, 1} - group.owned
    other.close()
    assert group.polled(lambda _: group.owned == {0, 1}) == [], (
        "the one that stayed is paused, the one that came is not begun"
    )
    group.begin(away, 495)
    assert offsets(group.polled(lambda found: len(found) == 5), away) == list(range(495, RECORDS))
    (stayed,) = {0, 1} - {away}
    group.begin(stayed, 300)
    assert offsets(group.polled(lambda found: len(found) == 200), stayed) == list(range(300, RECORDS))


def test_a_partition_that_stays_is_not_paused_while_another_goes_and_comes_back(
    group: Group, bootstrap: str, app: str
) -> None:
    group.polled(lambda _: group.owned == {0, 1})
    for number in range(PARTITIONS):
        group.begin(number, RECORDS)
    other = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": app,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000,
        }
    )
    other.subscribe([f"{app}.in"])
    producer = Producer({"bootstrap.servers": bootstrap})
    sent = [RECORDS] * PARTITIONS

    def goes_on(until: bool) -> bool:
        for number in range(PARTITIONS):
            producer.produce(f"{app}.in", b"{}", b"ann", partition=number)
            sent[number] += 1
        producer.poll(0)
        return until

    def joined(until: bool) -> bool:
        other.poll(0.01)
        return goes_on(until)

    came = group.polled(lambda _: joined(len(group.owned) == 1 and len(other.assignment()) == 1))
    (stayed,) = group.owned
    came += group.polled(lambda found: joined(len(found) > 50))
    other.close()
    came += group.polled(lambda _: goes_on(group.owned == {0, 1}))
    producer.flush(30)
    seen = len(offsets(came, stayed))
    came += group.polled(lambda found: seen + len(offsets(found, stayed)) == sent[stayed] - RECORDS)
    assert offsets(came, stayed) == list(range(RECORDS, sent[stayed]))
