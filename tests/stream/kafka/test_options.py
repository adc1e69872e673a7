"""One amount of memory for everything that grows with load."""

import logging

import pytest
from confluent_kafka import Consumer

from stream.kafka.options import CHANGELOG_READER, CONSUMER, PRODUCER, RESERVED, MemoryBudget, fitting, logger_of


@pytest.mark.parametrize("megabytes", [32, 256, 4096])
def test_stores_and_queues_together_stay_within_the_budget(megabytes: int) -> None:
    budget = MemoryBudget(megabytes << 20)
    consumer, reader = budget.consumer(), budget.changelog_reader()
    queues = [consumer, *[reader] * 4]
    fetched = sum(each["queued.max.messages.kbytes"] << 10 for each in queues)
    # Each may take in one fetch more when it is nearly full; a fetch is at least as large as a record may be.
    fetching = sum(max(each["fetch.max.bytes"], 1 << 20) for each in queues if each["fetch.max.bytes"] > 1 << 20)
    produced = budget.producer()["queue.buffering.max.kbytes"] << 10
    assert budget.stores + fetched + fetching + produced <= budget.total
    assert budget.stores == budget.total // 2


def test_the_least_budget_that_may_be_set_leaves_every_queue_room_for_a_record() -> None:
    budget = MemoryBudget(32 << 20)
    for each in (budget.consumer(), budget.changelog_reader()):
        assert each["fetch.max.bytes"] >= 1 << 20
        assert each["queued.max.messages.kbytes"] >= 256
    assert budget.producer()["queue.buffering.max.kbytes"] >= 4096


@pytest.mark.parametrize("largest", ["40000000", "200000000"])
def test_a_consumer_takes_the_largest_message_there_may_be(largest: str) -> None:
    """librdkafka refuses to start where a fetch, or an answer, may be smaller than a message."""
    budget = MemoryBudget(64 << 20)
    for options in ({**CONSUMER, **budget.consumer()}, {**CHANGELOG_READER, **budget.changelog_reader()}):
        Consumer(
            {
                **fitting({**options, "message.max.bytes": largest}),
                "bootstrap.servers": "127.0.0.1:1",
                "group.id": "x",
                "log_level": 0,
            }
        )


def test_no_queue_has_a_limit_that_the_budget_does_not_know() -> None:
    assert not {"queued.max.messages.kbytes", "fetch.max.bytes", "queue.buffering.max.kbytes"} & {*CONSUMER, *PRODUCER}


def test_the_name_of_a_member_and_what_isolates_cannot_be_set_from_outside() -> None:
    assert {"group.instance.id", "transactional.id", "isolation.level", "enable.auto.commit"} <= RESERVED


def test_a_client_does_not_say_of_the_others_options_that_it_ignores_them(caplog: pytest.LogCaptureFixture) -> None:
    logger = logger_of("consumer")
    assert logger_of("consumer").filters == logger.filters, "one filter, however often it is asked for"
    with caplog.at_level(logging.WARNING):
        logger.warning(
            "CONFWARN %s",
            "Configuration property transaction.timeout.ms is a producer property and will be ignored by this consumer instance",
        )
        logger.warning("FAIL %s", "Disconnected")
    assert [record.getMessage() for record in caplog.records] == ["FAIL Disconnected"]
