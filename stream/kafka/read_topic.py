"""Read a topic to its present end while others write to it. Commands use this; they join no group."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from stream.errors import KafkaUnusable, TopicsUnusable
from stream.kafka.options import CHANGELOG_READER

_BATCH: Final = 5000
_ANSWERS_WITHIN_S: Final = 30.0


def partitions(kafka: Mapping[str, Any], topic: str) -> list[int]:
    """The numbers of a topic's partitions.

    Raises:
        TopicsUnusable: the topic does not exist, or these credentials may not read it.
    """
    consumer = _reader(kafka)
    try:
        known = consumer.list_topics(topic, timeout=_ANSWERS_WITHIN_S).topics[topic]
    finally:
        consumer.close()
    if known.error is not None:
        raise TopicsUnusable(
            f"topic {topic} cannot be read: {known.error.str()}. Is REC2PM_APP right? `rec2pm topics create` creates missing topics"
        )
    return sorted(known.partitions)


def committed_records(kafka: Mapping[str, Any], topic: str, partition: int, start: int = 0) -> Iterator[Message]:
    """Every committed record of one partition from an offset to the present end; each has a partition and an offset.

    Raises:
        KafkaUnusable: the partition cannot be read to its end.
    """
    consumer = _reader(kafka)
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ANSWERS_WITHIN_S)
        if high == 0:
            return
        begin = min(start, high)  # librdkafka does not start beyond the end
        consumer.assign([TopicPartition(topic, partition, begin if begin > low else OFFSET_BEGINNING)])
        while True:
            for message in consumer.consume(_BATCH, 0.1):
                error = message.error()
                if error is None:
                    if (message.offset() or 0) >= start:
                        yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Nothing can be read beyond an open transaction of a worker; its records are not committed yet.
                    return
                elif error.fatal() or not error.retriable():
                    raise KafkaUnusable(f"{topic}[{partition}] cannot be read: {error}")
    finally:
        consumer.close()


def _reader(kafka: Mapping[str, Any]) -> Consumer:
    # Only errors are logged: a command need not warn that an option of REC2PM_KAFKA_* is for producers.
    return Consumer({**CHANGELOG_READER, "log_level": 3, "group.id": "rec2pm.reader", **kafka})
