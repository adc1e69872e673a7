"""What the loop hears while Kafka has not answered yet, and afterwards."""

import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection

from stream.kafka.lineage import Changelog
from stream.kafka.link import KafkaLink


def test_the_loop_does_not_wait_for_an_answer_about_the_changelog(
    link: KafkaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    told = Changelog("an-id", 1, 0, 7)

    def asked(*_: Any) -> Changelog:
        answers.wait(60)
        return told

    monkeypatch.setattr(link.questions, "changelog_now", asked)
    began = time.monotonic()
    assert [link.changelog(0), link.changelog(0)] == [None, None]
    assert time.monotonic() - began < 10
    answers.set()
    deadline = time.monotonic() + 10
    while (found := link.changelog(0)) is None:
        assert time.monotonic() < deadline
    assert found == told


def test_an_end_that_was_asked_for_before_a_restore_began_is_no_answer_to_it(
    link: KafkaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link.questions, "changelog_now", lambda *_: Changelog("an-id", 1, 0, 7))
    monkeypatch.setattr(link.questions, "committed_within", lambda *_: None)
    link.changelog(0)
    link.committed(0)
    monkeypatch.setattr(link.questions, "changelog_now", lambda *_: Changelog("an-id", 1, 0, 8))
    assert link.changelog(0) is None
    time.sleep(0.05)
    assert link.changelog(0) == Changelog("an-id", 1, 0, 8)


@pytest.mark.parametrize(("code", "found"), [(KafkaError.UNSUPPORTED_VERSION, ""), (KafkaError.UNKNOWN, None)])
def test_only_a_broker_that_knows_no_ids_is_taken_for_one(link: KafkaLink, code: int, found: str | None) -> None:
    """Otherwise a topic that was deleted and created again would not be noticed after any error."""

    class Admin:
        def describe_topics(self, topics: TopicCollection, **_: Any) -> dict[str, Future[Any]]:
            answer: Future[Any] = Future()
            answer.set_exception(KafkaException(KafkaError(code)))
            return {"app.in": answer}

    if found is None:
        with pytest.raises(KafkaException):
            link.questions.topic_id("app.in", Admin())  # type: ignore[arg-type]
    else:
        assert link.questions.topic_id("app.in", Admin()) == found  # type: ignore[arg-type]
