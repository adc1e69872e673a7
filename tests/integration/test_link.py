"""What becomes of partitions on a real client while another member of the group comes and goes.

What one member alone shows is in test_link_contract.py.
"""

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer

from tests.integration.test_link_contract import PARTITIONS, OnBroker, offsets, polled, resumed
from tests.processes import wait_until

RECORDS = 500

pytestmark = pytest.mark.isolation


@pytest.fixture
def kafka(bootstrap: str, app: str) -> Iterator[OnBroker]:
    made = OnBroker(bootstrap, app)
    for partition in range(PARTITIONS):
        made.put(partition, RECORDS)
    made.start()
    yield made
    made.close()


@pytest.fixture
def other(kafka: OnBroker) -> Iterator[Consumer]:
    """Another member, about to join."""
    made = kafka.another_member()
    yield made
    made.close()


def test_a_partition_that_went_away_while_paused_comes_back_from_where_it_is_resumed(
    kafka: OnBroker, other: Consumer
) -> None:
    """As after an aborted step, when the group went on without this worker. The client keeps the pause."""
    for partition in range(PARTITIONS):
        resumed(kafka, partition, RECORDS - 10)
    polled(kafka, 20)
    for partition in range(PARTITIONS):
        kafka.link.pause(partition)
    kafka.until_shared_with(other)
    (away,) = set(range(PARTITIONS)) - kafka.owned
    (stayed,) = kafka.owned
    other.close()
    kafka.until_owned(PARTITIONS)
    resumed(kafka, away, RECORDS - 5)
    records = polled(kafka, 5)
    assert (offsets(records, away), offsets(records, stayed)) == (list(range(RECORDS - 5, RECORDS)), [])
    resumed(kafka, stayed, 300)
    assert offsets(polled(kafka, 200), stayed) == list(range(300, RECORDS))


def test_a_partition_that_stays_is_not_paused_while_another_goes_and_comes_back(
    kafka: OnBroker, other: Consumer
) -> None:
    for partition in range(PARTITIONS):
        resumed(kafka, partition, RECORDS)
    came: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}
    sent = 0

    def goes_on() -> None:
        nonlocal sent
        for partition in range(PARTITIONS):
            kafka.put(partition, 1)
        sent += 1
        records = kafka.link.poll(100, 0.05)
        for partition, found in came.items():
            found += offsets(records, partition)

    def shared() -> bool:
        goes_on()
        other.poll(0.01)
        return len(kafka.owned) == len(other.assignment()) == 1

    wait_until(shared, 60, "the other member owns a partition")
    (stayed,) = kafka.owned
    before = len(came[stayed])

    def more_came() -> bool:
        goes_on()
        other.poll(0.01)
        return len(came[stayed]) > before + 20

    wait_until(more_came, 60, "the partition that stayed goes on")
    other.close()

    def whole() -> bool:
        goes_on()
        return len(kafka.owned) == PARTITIONS

    wait_until(whole, 60, "the partition comes back")
    if len(came[stayed]) < sent:
        came[stayed] += offsets(polled(kafka, sent - len(came[stayed])), stayed)
    assert came[stayed] == list(range(RECORDS, RECORDS + sent))


def test_a_partition_that_stays_while_another_goes_skips_no_record_behind_its_end(
    kafka: OnBroker, other: Consumer
) -> None:
    """With `enable.partition.eof` librdkafka 2.12 continues one offset too far then (#4844)."""
    for partition in range(PARTITIONS):
        resumed(kafka, partition, RECORDS - 1)
    polled(kafka, PARTITIONS)
    kafka.until_shared_with(other)
    (stayed,) = kafka.owned
    kafka.put(stayed, 3)
    assert offsets(polled(kafka, 3), stayed) == [RECORDS, RECORDS + 1, RECORDS + 2]
