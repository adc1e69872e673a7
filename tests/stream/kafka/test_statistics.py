"""What the client's statistics say about Kafka."""

import json
from typing import Any

import pytest

from stream.kafka.outage import Outage
from stream.kafka.statistics import Statistics


def noted(statistics: Any) -> bool:
    """Whether an outage is noted."""
    outage = Outage(lambda: 100.0)
    Statistics("clicks", outage)(statistics if isinstance(statistics, str) else json.dumps(statistics))
    return outage.waited_at == 100.0


@pytest.mark.parametrize(
    ("brokers", "away"),
    [
        ({}, True),
        ({"a": {"state": "UP", "rxidle": 3_000}}, False),
        ({"a": {"state": "UP", "rxidle": 60_000_000}}, True),
        ({"a": {"state": "UP", "rxidle": -1}}, True),
        ({"a": {"state": "TRY_CONNECT", "rxidle": 3_000}}, True),
        ({"a": {"state": "DOWN", "rxidle": 9_000_000}, "b": {"state": "UP", "rxidle": 100}}, False),
    ],
)
def test_kafka_is_away_when_no_broker_has_sent_anything_for_a_while(brokers: dict[str, Any], away: bool) -> None:
    assert noted({"brokers": brokers}) is away


@pytest.mark.parametrize("text", ["", "{", "[]", '{"brokers": 7}', "null"])
def test_statistics_that_cannot_be_read_say_nothing_and_end_nothing(text: str) -> None:
    assert not noted(text)


def test_the_ends_are_those_of_fetched_partitions_of_the_input() -> None:
    statistics = Statistics("clicks", Outage(lambda: 0.0))
    assert statistics.ends == {}
    partitions = {"0": {"ls_offset": 7, "hi_offset": 9}, "1": {"ls_offset": -1}, "-1": {"ls_offset": -1}}
    others = {"other": {"partitions": {"0": {"ls_offset": 1}}}}
    statistics(json.dumps({"brokers": {}, "topics": {"clicks": {"partitions": partitions}, **others}}))
    assert statistics.ends == {0: 7}
