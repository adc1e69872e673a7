"""What a running worker says about its topics and its input: each change once, and once when it is over."""

import logging
from collections.abc import Sequence
from threading import Event
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka import watch
from stream.kafka.topic_problems import Problem
from stream.kafka.watch import HELD_BACK_S, TOPICS_EVERY_S, HeldBack, TopicChanges

POLICY = Problem("app.changelog", "error", "topic app.changelog has cleanup.policy=delete")
GONE = Problem("app.dead-letter", "error", "topic app.dead-letter is missing")
LAG = Problem("out", "warning", "topic out has max.compaction.lag.ms=not set")
UNSEEN = Problem("app.changelog", "warning", "topic app.changelog: the broker does not show it: not checked")
PROBLEMS = [POLICY, GONE, LAG, UNSEEN]


def lines(said: Sequence[tuple[int, str]]) -> list[str]:
    return [line for _, line in said]


def test_a_change_is_said_once_and_once_when_it_is_over() -> None:
    changes = TopicChanges([LAG])
    assert changes.since([LAG]) == []
    assert changes.since([POLICY, LAG]) == [(logging.ERROR, f"changed while the worker runs: {POLICY.line}")]
    assert changes.since([LAG, POLICY]) == []
    assert changes.since([LAG]) == [(logging.INFO, "app.changelog is right again")]
    assert changes.since([]) == [(logging.INFO, "out is right again")]
    assert lines(changes.since([LAG])) == [f"changed while the worker runs: {LAG.line}"]


def test_what_kafka_no_longer_shows_is_not_called_right() -> None:
    changes = TopicChanges([])
    changes.since([POLICY])
    assert lines(changes.since([UNSEEN])) == [f"changed while the worker runs: {UNSEEN.line}"]
    assert changes.since([UNSEEN]) == []
    assert changes.since([POLICY]) == []
    assert lines(changes.since([])) == ["app.changelog is right again"]


@given(st.lists(st.sets(st.sampled_from(PROBLEMS)), max_size=12))
def test_no_two_looks_that_find_the_same_say_anything_and_each_new_problem_is_said(looks: list[set[Problem]]) -> None:
    changes = TopicChanges([])
    before: set[Problem] = set()
    for found in looks:
        said = lines(changes.since(list(found)))
        assert {line for line in said if "changed" in line} >= {
            f"changed while the worker runs: {each.line}" for each in found - before if UNSEEN not in before
        }
        assert not [line for line in said if line.split()[0] in {each.topic for each in found}]
        assert changes.since(list(found)) == []
        before = found


def test_an_input_that_is_held_back_is_said_once_with_what_to_do_and_once_when_it_goes_on() -> None:
    held = HeldBack("in")
    assert held.since({3: (10, 12), 4: (7, 7)}, 0.0) == []
    assert held.since({3: (10, 15), 4: (7, 7)}, HELD_BACK_S - 1) == []
    ((level, line),) = held.since({3: (10, 15), 4: (7, 7)}, HELD_BACK_S)
    assert level == logging.WARNING
    assert "topic=in partition=3: 5 records" in line
    assert "from offset 10 on" in line
    assert "kafka-transactions.sh describe-producers --topic in --partition 3" in line
    assert held.since({3: (10, 90)}, 100.0) == []
    assert held.since({3: (90, 90)}, 120.0) == [(logging.INFO, "input goes on topic=in partition=3 after=120 s")]
    assert held.since({3: (90, 90)}, 130.0) == []


def test_a_producer_with_long_transactions_is_soon_no_news() -> None:
    held, said, now = HeldBack("in"), 0, 0.0
    for transaction in range(100):
        for _ in range(12):  # a minute, as with a checkpoint each minute
            now += 5.0
            said += len(held.since({0: (transaction * 9, transaction * 9 + 5)}, now))
    assert said <= 4


def test_a_partition_that_went_elsewhere_is_forgotten() -> None:
    held = HeldBack("in")
    held.since({3: (10, 12)}, 0.0)
    held.since({}, 10.0)
    held.since({3: (10, 12)}, 20.0)
    assert held.since({3: (10, 12)}, 30.0) == []


class Admin:
    """A client of a Kafka that is away at some looks."""

    made = 0

    def __init__(self, _: Any) -> None:
        Admin.made += 1


def test_a_look_that_fails_is_said_once_until_one_succeeds_and_gets_a_new_client(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "AdminClient", Admin)
    away = [False, True, True, True, False, True]

    def check(_: AdminClient) -> Sequence[Problem]:
        if away.pop(0):
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "nobody there"))
        return [POLICY]

    noted: list[Any] = []
    look = watch._Look({}, check, TopicChanges([]), HeldBack("in"), "in", list, noted.append, Event())
    caplog.set_level(logging.INFO)
    assert noted == []
    for at in range(1, 7):
        look.once(look._topics_at + at * TOPICS_EVERY_S)
    assert [record.message for record in caplog.records] == [
        f"changed while the worker runs: {POLICY.line}",
        'what changes is not noticed for the moment: KafkaError{code=_TRANSPORT,val=-195,str="nobody there"}',
        'what changes is not noticed for the moment: KafkaError{code=_TRANSPORT,val=-195,str="nobody there"}',
    ]
    assert Admin.made == 4
    assert noted == [{}] * 6
