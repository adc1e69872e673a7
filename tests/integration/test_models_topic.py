"""The topic of models on a broker: alias and history together, two promoters, reports, and what readers survive."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stream.kafka.models_topic import ModelsReader, Reporter, publish, read_models
from stream.kafka.names import models_topic
from stream.promotion.record import CHAMPION, Promotion
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
    assert read_models(topic.options, topic.app) == reader.models
    assert not reader.models.aliases


def test_a_reader_follows_promotions(topic: Topic, reader: ModelsReader) -> None:
    first = topic.publish(promotion("films@1"))
    topic.read_until(reader, {CHAMPION: first})
    second = topic.publish(promotion("films@2", after=first))
    topic.read_until(reader, {CHAMPION: second})
    assert list(reader.models.history.values()) == [first, second]
    assert read_models(topic.options, topic.app) == reader.models


def test_a_report_is_written_and_deleted(topic: Topic) -> None:
    reporter = Reporter(topic.options, topic.app, "one")
    given = report("one", promotion("films@1"))
    try:
        reporter.report(given)
        until(lambda: read_models(topic.options, topic.app).workers == {"one": given}, 30, "the report is there")
        reporter.gone()
        assert read_models(topic.options, topic.app).workers == {}
    finally:
        reporter.close()
