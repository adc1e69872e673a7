"""The topic of models on a broker: alias and history together, two promoters, reports, and what readers survive."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stream.errors import KafkaUnusable, PromotionConflict, TopicsUnusable
from stream.kafka import models_topic as topic_of_models
from stream.kafka.models_topic import ModelsReader, Reporter, publish, read_models
from stream.kafka.names import models_topic, promote_id
from stream.kafka.read_topic import committed_records
from stream.promotion.record import CHAMPION, Models, Promotion, alias_key, encode, promotion_key, worker_key
from tests.integration.test_broker import until
from tests.stream.promotion.promotions import promotion, report


@dataclass
class Topic:
    bootstrap: str
    app: str

    @property
    def name(self) -> str:
        return models_topic(self.app)

    @property
    def options(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.bootstrap}

    def create(self, **config: str) -> None:
        admin = AdminClient(self.options)  # freeing the client would end what it asks for
        created = admin.create_topics(
            [NewTopic(self.name, 1, 1, config={"cleanup.policy": "compact", **config})], operation_timeout=15
        )
        created[self.name].result(30)

    def delete(self) -> None:
        admin = AdminClient(self.options)
        admin.delete_topics([self.name], operation_timeout=15)[self.name].result(30)
        until(lambda: self.name not in admin.list_topics(timeout=10).topics, 30, "the topic is gone")

    def models(self) -> Models:
        return read_models(self.options, self.app)

    def left_open(self, *records: tuple[bytes, bytes]) -> Producer:
        """What a promoter leaves that is killed before it commits; the producer stands for its process."""
        killed = Producer({**self.options, "transactional.id": promote_id(self.app)})
        killed.init_transactions(30)
        killed.begin_transaction()
        for key, value in records:
            killed.produce(self.name, value, key, 0)
        assert killed.flush(30) == 0
        return killed

    def write(self, *records: tuple[bytes, bytes | None]) -> None:
        """Records from elsewhere."""
        producer = Producer(self.options)
        for key, value in records:
            producer.produce(self.name, value, key, 0)
        assert producer.flush(30) == 0

    def publish(self, new: Promotion) -> Promotion:
        publish(self.options, self.app, new)
        return new

    def read_to_the_end(self, reader: ModelsReader) -> None:
        until(lambda: (reader.poll(0.1), reader.at_end)[1], 30, "the reader is at the end")

    def read_until(self, reader: ModelsReader, aliases: dict[str, Promotion]) -> None:
        until(lambda: (reader.poll(0.1), reader.models.aliases == aliases)[1], 30, f"the reader knows {aliases}")


@pytest.fixture
def topic(bootstrap: str, app: str) -> Topic:
    made = Topic(bootstrap, app)
    made.create()
    return made


@pytest.fixture
def reader(topic: Topic) -> Iterator[ModelsReader]:
    made = ModelsReader(topic.options, topic.app)
    yield made
    made.close()


def test_an_empty_topic_is_read_to_its_end(topic: Topic, reader: ModelsReader) -> None:
    topic.read_to_the_end(reader)
    assert topic.models() == reader.models == Models()


def test_a_reader_follows_promotions(topic: Topic, reader: ModelsReader) -> None:
    first = topic.publish(promotion("films@1"))
    topic.read_until(reader, {CHAMPION: first})
    second = topic.publish(promotion("films@2", after=first))
    topic.read_until(reader, {CHAMPION: second})
    assert list(reader.models.history.values()) == [first, second]
    assert topic.models() == reader.models


def test_records_that_are_no_records_of_models_are_passed_over(
    topic: Topic, reader: ModelsReader, caplog: pytest.LogCaptureFixture
) -> None:
    first = topic.publish(promotion("films@1"))
    topic.write((alias_key(CHAMPION), b"films@2"), (b"", b"{}"), (b"\xff", b"\xff"), (alias_key(CHAMPION), b"films@3"))
    second = topic.publish(promotion("films@2", after=first))
    topic.read_until(reader, {CHAMPION: second})
    assert topic.models() == reader.models
    assert list(reader.models.history.values()) == [first, second]
    said = [each.getMessage() for each in caplog.records if "passed over" in each.getMessage()]
    assert len([line for line in said if "key=alias/champion" in line]) == 3, "once for each of the three readers"


def test_a_promotion_that_looked_before_another_is_told_who_promoted_what(topic: Topic) -> None:
    first = topic.publish(promotion("films@1"))
    second = topic.publish(promotion("films@2", after=first, who="bob@desk"))
    with pytest.raises(PromotionConflict) as told:
        topic.publish(promotion("films@3", after=first))
    assert str(told.value) == (
        "films@3 is not promoted: bob@desk promoted films@2 at 2026-11-30T12:01:00Z, and champion was films@1 when this "
        "promotion looked. If films@3 is to replace it, run the command again"
    )
    with pytest.raises(PromotionConflict, match="and nothing was champion when"):
        topic.publish(promotion("films@3"))
    assert topic.models().aliases == {CHAMPION: second}
    assert len(topic.models().history) == 2


def test_aliases_do_not_stand_in_each_others_way(topic: Topic) -> None:
    first = topic.publish(promotion("films@1"))
    other = topic.publish(promotion("films@2", alias="challenger"))
    assert topic.models().aliases == {CHAMPION: first, "challenger": other}


@pytest.mark.isolation
def test_of_promoters_at_the_same_time_one_wins_and_the_others_are_told(topic: Topic) -> None:
    """Some read before another has written, some are ended in the middle of their transaction."""
    first = topic.publish(promotion("films@1"))
    outcomes: list[Promotion | PromotionConflict] = []
    together = threading.Barrier(4)

    def promote(version: str) -> None:
        wanted = promotion(version, after=first)
        together.wait()
        try:
            outcomes.append(topic.publish(wanted))
        except PromotionConflict as conflict:
            outcomes.append(conflict)

    threads = [threading.Thread(target=promote, args=(f"films@{number}",)) for number in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    won = [each for each in outcomes if isinstance(each, Promotion)]
    assert (len(outcomes), len(won)) == (4, 1), outcomes
    assert topic.models().aliases == {CHAMPION: won[0]}
    assert list(topic.models().history.values()) == [first, *won]


@pytest.mark.isolation
def test_a_promoter_that_is_overtaken_before_its_commit_writes_nothing(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Models] = read_models
    overtaking = [promotion("films@2", who="bob@desk")]

    def read_and_be_overtaken(*args: Any) -> Models:
        found = real(*args)
        if overtaking:
            topic.publish(overtaking.pop())
        return found

    other = overtaking[0]
    monkeypatch.setattr(topic_of_models, "read_models", read_and_be_overtaken)
    with pytest.raises(PromotionConflict, match=r"began and ended this one: bob@desk promoted films@2 at"):
        topic.publish(promotion("films@1"))
    assert list(topic.models().history.values()) == [other]


@pytest.mark.isolation
def test_what_a_killed_promoter_left_open_is_never_seen_and_blocks_no_other(topic: Topic, reader: ModelsReader) -> None:
    lost, first = promotion("films@1"), promotion("films@2")
    topic.read_to_the_end(reader)
    killed = topic.left_open((promotion_key(lost.id), encode(lost)), (alias_key(CHAMPION), encode(lost)))
    assert not reader.poll(1)
    began = time.monotonic()
    topic.publish(first)
    assert time.monotonic() - began < 8, "before Kafka ends the open transaction because of its age"
    topic.read_until(reader, {CHAMPION: first})
    assert list(reader.models.history.values()) == [first]
    assert topic.models() == reader.models
    del killed


@pytest.mark.isolation
def test_a_reader_that_begins_behind_an_open_transaction_is_not_at_the_end(topic: Topic, reader: ModelsReader) -> None:
    lost = promotion("films@1")
    killed = topic.left_open((alias_key(CHAMPION), encode(lost)))
    topic.write((worker_key("one"), encode(report("one", lost))))
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        reader.poll(0.2)
    assert not reader.at_end
    killed.abort_transaction(30)
    topic.read_to_the_end(reader)
    assert reader.models.workers.keys() == {"one"}
    assert not reader.models.aliases


def test_a_commit_whose_answer_is_lost_counts(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka commits, and the client hears nothing of it."""
    real = topic_of_models.until_done

    def unheard(call: Callable[[], None]) -> None:
        real(call)
        if "commit" in repr(call):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr(topic_of_models, "until_done", unheard)
    only = topic.publish(promotion("films@1"))
    assert topic.models().aliases == {CHAMPION: only}


def test_a_topic_that_is_missing_is_named_and_read_once_it_is_there(bootstrap: str, app: str) -> None:
    missing = Topic(bootstrap, app)
    with pytest.raises(TopicsUnusable, match=rf"topic {missing.name} cannot be read"):
        missing.models()
    with pytest.raises(TopicsUnusable):
        missing.publish(promotion("films@1"))
    reader = ModelsReader(missing.options, app)
    try:
        for _ in range(5):
            assert not reader.poll(0.2)
        assert not reader.at_end
        missing.create()
        only = missing.publish(promotion("films@1"))
        missing.read_until(reader, {CHAMPION: only})
    finally:
        reader.close()


@pytest.mark.isolation
def test_a_topic_that_is_deleted_and_created_again_is_read_from_its_start(topic: Topic, reader: ModelsReader) -> None:
    first = topic.publish(promotion("films@1"))
    second = topic.publish(promotion("films@2", after=first))
    topic.read_until(reader, {CHAMPION: second})
    topic.delete()
    topic.create()
    again = topic.publish(promotion("films@3"))

    def read() -> bool:
        with suppress(KafkaUnusable):  # while there is no topic
            reader.poll(0.2)
        return reader.models.aliases == {CHAMPION: again}

    until(read, 60, "the reader has read the new topic")
    assert list(reader.models.history.values()) == [again]


@pytest.mark.isolation
def test_compaction_keeps_the_history(bootstrap: str, app: str) -> None:
    """Kafka cleans every 15 s; only closed segments."""
    topic = Topic(bootstrap, app)
    topic.create(**{"segment.ms": "200", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "200"})
    promoted: list[Promotion] = []

    def promote() -> None:
        after = promoted[-1] if promoted else None
        promoted.append(topic.publish(promotion(f"films@{len(promoted) + 1}", after=after)))

    for _ in range(5):
        promote()
        topic.write(*[(worker_key("one"), encode(report("one", promoted[-1])))] * 20, (worker_key("two"), None))

    def compacted() -> bool:
        topic.write((worker_key("one"), encode(report("one", promoted[-1]))))  # closes a segment that is old enough
        kept = [message.key() for message in committed_records(topic.options, topic.name, 0)]
        return kept.count(alias_key(CHAMPION)) == 1 and kept.count(worker_key("one")) < 20

    until(compacted, 120, "Kafka has compacted the topic")
    promote()
    models = topic.models()
    assert list(models.history.values()) == promoted
    assert models.aliases == {CHAMPION: promoted[-1]}
    assert models.workers.keys() == {"one"}


def test_a_report_is_written_and_deleted(topic: Topic) -> None:
    reporter = Reporter(topic.options, topic.app, "one")
    given = report("one", promotion("films@1"))
    try:
        reporter.report(given)
        until(lambda: topic.models().workers == {"one": given}, 30, "the report is there")
        reporter.gone()
        assert topic.models().workers == {}
    finally:
        reporter.close()


def test_the_newest_report_counts_however_fast_they_come(topic: Topic) -> None:
    reporter = Reporter(topic.options, topic.app, "one")
    reports = [report("one", promotion(f"films@{number}")) for number in range(1, 50)]
    try:
        for each in reports:
            reporter.report(each)
        until(lambda: topic.models().workers == {"one": reports[-1]}, 30, "the last report is there")
    finally:
        reporter.close()


@pytest.mark.isolation  # the embedded broker creates a topic that somebody writes to
def test_a_reporter_waits_for_its_topic_and_says_so_once(
    bootstrap: str, app: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_of_models, "_AGAIN_AFTER_S", 0.2)
    missing = Topic(bootstrap, app)
    reporter = Reporter({**missing.options, "message.timeout.ms": 2_000}, app, "one")
    given = report("one", promotion("films@1"))
    try:
        with caplog.at_level(logging.WARNING):
            reporter.report(given)
            until(lambda: "not reported for the moment" in caplog.text, 30, "the reporter says that it cannot")
        missing.create()
        until(lambda: missing.models().workers == {"one": given}, 30, "the report is there")
        assert len([each for each in caplog.records if "not reported for the moment" in each.getMessage()]) == 1
    finally:
        reporter.close()


def test_a_reporter_without_a_kafka_holds_nobody_up(app: str, caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter({"bootstrap.servers": "127.0.0.1:1"}, app, "one")
    began = time.monotonic()
    reporter.report(report("one", promotion("films@1")))
    assert time.monotonic() - began < 1
    reporter.gone()
    reporter.close()
    assert time.monotonic() - began < 15
    assert not [each for each in threading.enumerate() if each.name == "models-reporter"]
