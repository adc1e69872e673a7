"""Read a topic to its present end while others write to it. Commands use this; they join no group.

The end is the high watermark. A read_committed client reports the end of a partition earlier, at the last stable
offset: the first record of the oldest open transaction. What is behind it may be committed already, by others. So a
reader that stops there would call a partial answer a whole one.
"""

import time
from collections.abc import Generator, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from stream.errors import BehindOpenTransaction, KafkaUnusable, TopicsUnusable
from stream.kafka.options import CHANGELOG_READER
from stream.kafka.record_limits import reading

_BATCH: Final = 5000
_ANSWERS_WITHIN_S: Final = 30.0
WAIT_S: Final = 20.0
"""How long a reader waits for an open transaction: a worker's transaction ends within 15 s."""


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


def committed_records(
    kafka: Mapping[str, Any],
    topic: str,
    partition: int,
    start: int = 0,
    until: int | None = None,
    *,
    wait_s: float = WAIT_S,
) -> Generator[Message, None, None]:
    """Every committed record of one partition from an offset to the present end; each has a partition and an offset.

    Args:
        until: stop before this offset, if the present end does not come first.
        wait_s: how long to wait for the end of an open transaction.

    Raises:
        BehindOpenTransaction: a transaction is still open, and records wait behind it.
        KafkaUnusable: the partition cannot be read to its end.
    """
    consumer = _reader(kafka)
    place = TopicPartition(topic, partition)
    try:
        low, stable = consumer.get_watermark_offsets(place, timeout=_ANSWERS_WITHIN_S)
        begin = min(start, stable)  # librdkafka does not start beyond the end
        consumer.assign([TopicPartition(topic, partition, begin if begin > low else OFFSET_BEGINNING)])
        end: int | None = None
        deadline = 0.0
        while True:
            for message in consumer.consume(_BATCH, 0.1):
                error = message.error()
                if error is None:
                    if until is not None and (message.offset() or 0) >= until:
                        return
                    if (message.offset() or 0) >= start:
                        yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    # The client reports it again whenever it has come further.
                    stable = message.offset() or 0
                    if end is None:
                        end, deadline = _high_watermark(consumer, place), time.monotonic() + wait_s
                    if stable >= (end if until is None else min(end, until)):
                        return
                elif error.fatal() or not error.retriable():
                    raise KafkaUnusable(f"{topic}[{partition}] cannot be read: {error}")
            if end is not None and time.monotonic() > deadline:
                raise _behind(topic, partition, stable, end, f", and not all could be read within {wait_s:.0f} s")
    finally:
        consumer.close()


def _high_watermark(consumer: Consumer, place: TopicPartition) -> int:
    """The high watermark, as the last fetch brought it. Asked for it, Kafka would give the last stable offset."""
    high: int = consumer.get_watermark_offsets(place, cached=True)[1]
    return high


def waiting_behind(kafka: Mapping[str, Any], topic: str, partition: int, offset: int) -> BehindOpenTransaction | None:
    """Why nobody can read the record at an offset now; None if they can."""
    place = TopicPartition(topic, partition)
    ends = []
    for isolation in ("read_committed", "read_uncommitted"):
        consumer = _reader({**kafka, "isolation.level": isolation})
        try:
            ends.append(consumer.get_watermark_offsets(place, timeout=_ANSWERS_WITHIN_S)[1])
        finally:
            consumer.close()
    stable, end = ends
    return _behind(topic, partition, stable, end, "") if stable <= offset < end else None


def _behind(topic: str, partition: int, stable: int, end: int, more: str) -> BehindOpenTransaction:
    return BehindOpenTransaction(
        f"{topic}[{partition}]: {end - stable} records (transaction markers among them) from offset {stable} on wait "
        f"behind an open transaction{more}: {FIND_TRANSACTION.format(topic=topic, partition=partition)}"
    )


FIND_TRANSACTION: Final = (
    "Kafka ends it after its time-out. `kafka-transactions.sh describe-producers --topic {topic} --partition {partition}` "
    "shows whose it is; `kafka-transactions.sh find-hanging --broker-id ID` names one that Kafka has lost track of, and "
    "`kafka-transactions.sh abort` ends it"
)
"""What an operator can do about an open transaction."""


def _reader(kafka: Mapping[str, Any]) -> Consumer:
    # Only errors are logged: a command need not warn that an option of REC2PM_KAFKA_* is for producers.
    return Consumer(reading({**CHANGELOG_READER, "log_level": 3, "group.id": "rec2pm.reader", **kafka}))
