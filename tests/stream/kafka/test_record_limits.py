"""How large records may be: the options of the clients follow the topics."""

import pytest
from confluent_kafka import Consumer, Producer
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.kafka.options import CHANGELOG_READER, CONSUMER, PRODUCER, MemoryBudget, fitting
from stream.kafka.record_limits import RecordLimits, reading, writing
from stream.wire import LETTER_HEADERS_BYTES

NOWHERE = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
limits = st.one_of(st.none(), st.integers(0, 2**31 - 1))


@settings(max_examples=50, deadline=None)
@given(limits, limits, limits, st.sampled_from([32, 256, 4096]), st.sampled_from([None, "20000", "1000000000"]))
def test_a_producer_takes_the_largest_record_of_the_input_and_its_queue_holds_it(
    interactions: int | None, dead: int | None, smallest: int | None, memory_mb: int, largest: str | None
) -> None:
    given_options = {} if largest is None else {"message.max.bytes": largest}
    options = writing(
        {**PRODUCER, **MemoryBudget(memory_mb << 20).producer(), **given_options},
        RecordLimits(interactions, dead, smallest),
    )
    Producer({**options, **NOWHERE, "transactional.id": "x"})  # librdkafka accepts them
    if largest is None:
        assert options["message.max.bytes"] >= min((interactions or 0) + LETTER_HEADERS_BYTES, 1_000_000_000)
    assert options["queue.buffering.max.kbytes"] << 10 > options["message.max.bytes"]
    assert options["batch.size"] <= max(1, smallest if smallest is not None and smallest else 1_000_000)


def test_what_an_operator_sets_holds() -> None:
    options = writing({**PRODUCER, "message.max.bytes": "20000", "batch.size": "5"}, RecordLimits(10**6, 10**6, 10**6))
    assert (options["message.max.bytes"], options["batch.size"]) == (20_000, "5")
    assert reading({"receive.message.max.bytes": "5000"})["receive.message.max.bytes"] == "5000"


@pytest.mark.parametrize("memory_mb", [32, 4096])
def test_a_consumer_takes_an_answer_of_any_size(memory_mb: int) -> None:
    budget = MemoryBudget(memory_mb << 20)
    for options in ({**CONSUMER, **budget.consumer()}, {**CHANGELOG_READER, **budget.changelog_reader()}):
        fitted = fitting(reading(options))
        assert fitted["receive.message.max.bytes"] == 2**31 - 1
        Consumer({**fitted, **NOWHERE, "group.id": "x"})
    Consumer({**reading(CHANGELOG_READER), **NOWHERE, "group.id": "x"})
